"""Training on what the nets have drawn themselves, and the critic that judges it."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from jores.checkpoint import SHIPPED_SEGMENTER
from jores.diffusion.sampling import ddim_step
from jores.diffusion.schedule import NoiseSchedule
from jores.nets.denoiser import fine_detail
from jores.semantics import load_segmenter
from jores.training.critic import DetailCritic
from jores.training.flow import OWN_STEPS, FlowObjective
from jores.training.perceptual import FeatureDistance
from tests.tiny import FLOW, batch_of, flow_nets, seeded

OPTIONS = {"refine": 1.0, "prior_dropout": 0.0, "perceptual": 2.0, "own": 1.0, "own_error": 0.1}


@pytest.fixture(scope="module")
def distance():
    return FeatureDistance(load_segmenter(SHIPPED_SEGMENTER))


def objective_of(distance, **options):
    torch.manual_seed(3)
    nets = flow_nets()
    nets.unet.requires_grad_(True), nets.rnet.requires_grad_(True)
    return FlowObjective(nets, OPTIONS | options, distance), nets


def test_a_finished_picture_is_the_one_that_sampling_gives(distance):
    objective, nets = objective_of(distance)
    batch, eps, schedule = batch_of(2), torch.randn(2, 3, 32, 32), NoiseSchedule(FLOW.schedule)
    with torch.no_grad():
        given = objective._given(batch, None)
        first, second = torch.zeros(2), torch.full((2,), 0.5)
        y_t = objective._euler_step(given, eps, first, second)
        y = objective._refined(given, objective._drawn(given, y_t, second)[1], second)

        def level(t):
            return torch.full((2,), schedule.alpha_bar(t) ** 0.5)

        def denoise(x_t, t):
            return nets.unet(x_t, level(t), given)

        x_t, (start, middle) = eps, schedule.timesteps(2)
        for t, after in ((start, middle), (middle, -1)):
            x_t, x0 = ddim_step(
                denoise, x_t, schedule, t, after, refine=lambda x0, _, t=t: nets.rnet(x0, level(t), given.condition)
            )
    assert (given.picture + objective.detail_std * y - x0).abs().max() < 2e-3


def test_both_nets_learn_from_the_finished_picture(distance):
    objective, nets = objective_of(distance, adversary=0.5)
    terms = objective(batch_of(2))
    objective.own = 0.0
    assert list(terms) == list(objective(batch_of(2)))  # a log has one set of columns
    assert terms["flow"].isnan() and not terms["own_seen"].isnan()
    terms["loss"].backward()
    for net in (nets.unet, nets.rnet, objective.critic):
        assert any(p.grad is not None and p.grad.any() for p in net.parameters())
    assert not any(p.grad is not None for p in (*nets.anet.parameters(), *distance.parameters()))


def test_the_last_step_alone_has_a_gradient(distance):
    objective, nets = objective_of(distance)
    calls, raw_output = [], nets.unet.raw_output
    nets.unet.raw_output = lambda *given: calls.append(torch.is_grad_enabled()) or raw_output(*given)
    objective(batch_of(2))
    assert calls[-1] and not any(calls[:-1]) and len(calls) in OWN_STEPS


def test_options_that_need_each_other(distance):
    for options in ({"perceptual": 0.0}, {"own": 0.0, "adversary": 0.5}):
        with pytest.raises(ValueError, match="`own` needs `perceptual` > 0, and `adversary` needs `own` > 0"):
            objective_of(distance, **options)


def test_the_critic_learns_what_a_blur_lacks():
    torch.manual_seed(0)
    critic, picture = DetailCritic(), seeded(4, 3, 32, 32) * 2 - 1
    optimizer = torch.optim.Adam(critic.parameters(), 2e-3)
    for step in range(40):
        true = fine_detail(seeded(4, 3, 32, 32, seed=step) * 4)
        blurred = F.avg_pool2d(true, 3, 1, 1)
        (_, loss) = critic.losses(true, [blurred], picture)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        true = fine_detail(seeded(4, 3, 32, 32, seed=99) * 4)
        halfway = [torch.lerp(F.avg_pool2d(true, 3, 1, 1), true, share) for share in (0.0, 0.5, 1.0)]
        losses = critic.losses(true, halfway, picture)[0]
    assert losses[0] > losses[1] > losses[2]


def test_neither_trains_the_other():
    critic = DetailCritic()
    y, drawn, picture = (seeded(2, 3, 32, 32, seed=i).requires_grad_() for i in range(3))
    (of_drawn,), own = critic.losses(y, [drawn], picture.detach())
    weights = list(critic.parameters())
    assert torch.autograd.grad(of_drawn, drawn, retain_graph=True)[0].any()
    assert not any(g is not None for g in torch.autograd.grad(of_drawn, weights, retain_graph=True, allow_unused=True))
    assert torch.autograd.grad(own, drawn, retain_graph=True, allow_unused=True)[0] is None
    assert all(g.any() for g in torch.autograd.grad(own, weights)[:-1])
