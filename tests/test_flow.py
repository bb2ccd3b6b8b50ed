"""The UNet as a flow: its schedule, what of a picture it may change, its loss, and a bundle of it."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from jores.checkpoint import FORMER_SEGMENTER, SHIPPED_SEGMENTER, SHIPPED_WEIGHTS, build, load_bundle, save_bundle
from jores.conditions import Given, RetinexCondition, SemanticPrior
from jores.config import PRESETS
from jores.diffusion.sampling import ddim_step
from jores.diffusion.schedule import LEARNED_STEPS, NoiseSchedule
from jores.files.pictures import read_image
from jores.nets.denoiser import DenoisingUNet, fine_detail, without_mesh
from jores.options import SampleOptions
from jores.pipeline import adjust, decompose, enhance, sample
from jores.semantics import load_segmenter
from jores.training.flow import OWN_STEPS, FlowObjective, noise_level
from jores.training.perceptual import FeatureDistance
from tests.tiny import FLOW, TINY, C, batch_of, flow_nets, seeded, shaken

PICTURES = Path(__file__).resolve().parents[1] / "workflows"


def given_for(size=(48, 64)):
    """Picture, R', L' and F, as the UNet gets them."""
    height, width = size
    shapes = zip(FLOW.denoiser.feature_widths, (4, 8, 16), strict=True)
    features = tuple(seeded(1, channels, height // s, width // s, seed=s) for channels, s in shapes)
    condition = RetinexCondition(seeded(1, 3, *size, seed=1), seeded(1, 1, *size, seed=2), features)
    return Given(seeded(1, 3, *size), condition)


class Oracle(DenoisingUNet):
    """A UNet that knows y and eps, so that its velocity is exact."""

    def raw_output(self, x, noise_level, given, guides=None):
        t = noise_level.view(-1, 1, 1, 1)
        return (self.y - x) / (1 - t)  # from y_t straight to y


def test_the_times_are_evenly_spaced_from_noise_to_detail():
    schedule = NoiseSchedule(FLOW.schedule)
    steps = [schedule.alpha_bar(t) for t in schedule.timesteps(4)]
    ratios = [(1 - a) ** 0.5 / a**0.5 / C if a else float("inf") for a in steps]
    assert ratios == pytest.approx([float("inf"), 3.0, 1.0, 1 / 3], rel=1e-3)  # (1 - t) / t at t = 0, 1/4, 1/2, 3/4
    levels = noise_level(torch.tensor([0.25, 0.5, 0.75]), C)
    assert levels.square().tolist() == pytest.approx(steps[1:], rel=1e-2)


def test_a_ddim_step_is_eulers_step_of_the_flow():
    schedule, size = NoiseSchedule(FLOW.schedule), (16, 24)
    picture, y_t, goal = (
        torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(i)).double() for i in range(3)
    )
    picture = picture * 0.1
    t, later = 749, 499
    (a, s), (a2, s2) = ((schedule.alpha_bar(k) ** 0.5, (1 - schedule.alpha_bar(k)) ** 0.5) for k in (t, later))
    time, next_time = a * C / (a * C + s), a2 * C / (a2 * C + s2)
    x_t = a * picture + (a * C + s) * y_t
    velocity = goal - y_t
    x0 = picture + C * (y_t + (1 - time) * velocity)
    made, _ = ddim_step(lambda x, _t: (a * x - x0) / s, x_t, schedule, t, later)
    moved = y_t + (next_time - time) * velocity
    assert (made - (a2 * picture + (a2 * C + s2) * moved)).abs().max() < 1e-9


@pytest.mark.parametrize("steps", [1, 4, 8])
def test_an_exact_velocity_leads_to_the_true_detail(steps):
    given = given_for()
    net = Oracle(FLOW.denoiser)
    net.y = fine_detail(torch.randn(1, 3, 48, 64, generator=torch.Generator().manual_seed(9)))
    picture = given.condition.picture * 2 - 1
    schedule = NoiseSchedule(FLOW.schedule)
    x = torch.randn(1, 3, 48, 64, generator=torch.Generator().manual_seed(4))
    times = [*schedule.timesteps(steps), -1]
    for t, later in zip(times, times[1:], strict=False):
        level = torch.tensor([schedule.alpha_bar(t) ** 0.5])
        x, _ = ddim_step(lambda x_t, _t, level=level: net(x_t, level, given), x, schedule, t, later)
    assert (x - (picture + C * without_mesh(fine_detail(net.y))).clamp(-1, 1)).abs().max() < 2e-3


def test_light_and_colour_stay_those_of_the_retinex_picture():
    """Whatever the net says: what is broader than the detail is taken out of it, at any size."""
    given = given_for((41, 58))
    net = DenoisingUNet(FLOW.denoiser)
    torch.nn.init.normal_(net.head.weight)
    torch.nn.init.constant_(net.head.bias, 3.0)
    level, x = torch.tensor([0.2]), torch.randn(1, 3, 41, 58, generator=torch.Generator().manual_seed(3))
    strides = zip(given.condition.features, (4, 8, 16), strict=True)
    features = tuple(F.interpolate(f, (-(-41 // s), -(-58 // s))) for f, s in strides)
    with torch.inference_mode():
        v = net(x, level, replace(given, condition=replace(given.condition, features=features)))
    a, s = level.item(), (1 - level.item() ** 2) ** 0.5
    detail = (a * x - s * v - (given.condition.picture * 2 - 1)) / C
    assert detail.std() > 0.5
    assert F.avg_pool2d(detail, 16).abs().mean() < 0.1 * detail.abs().mean()


def test_training_brings_both_losses_down():
    torch.manual_seed(0)
    nets = build(FLOW)
    nets.unet.requires_grad_(True), nets.rnet.requires_grad_(True)
    objective, batch = FlowObjective(nets, {"refine": 1.0, "prior_dropout": 1.0}), batch_of()
    t, eps = torch.tensor([0.1, 0.4, 0.6, 0.9]), torch.randn_like(batch["high"])
    frozen = [p.clone() for p in nets.anet.parameters()]
    optimizer = torch.optim.Adam(objective.parameters(), 3e-3)
    terms = []
    for _ in range(40):
        terms.append(objective.at_time(batch, t, eps, None))
        optimizer.zero_grad()
        terms[-1]["loss"].backward()
        optimizer.step()
    for name in ("flow", "refinement"):
        assert terms[-1][name].item() < 0.8 * terms[0][name].item(), name
    assert terms[-1]["refinement"].item() < terms[-1]["unrefined"].item()
    assert all(torch.equal(a, b) for a, b in zip(frozen, nets.anet.parameters(), strict=True))


def test_a_bundle_of_it_keeps_its_kind_and_enhances(tmp_path):
    torch.manual_seed(1)
    save_bundle(tmp_path / "flow.safetensors", build(FLOW), dtype=None)
    nets = load_bundle(tmp_path / "flow.safetensors")
    assert nets.config == FLOW
    dark = seeded(1, 3, 40, 56, seed=5) * 0.1
    first, again, other = (enhance(dark, nets, None, SampleOptions(2, seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    tiled = enhance(dark.repeat(1, 1, 3, 3), nets, None, SampleOptions(2, tile=64))
    assert bool(torch.isfinite(tiled).all())


@pytest.mark.parametrize("tile", [0, 64])
def test_texture_mixes_what_is_drawn_with_the_retinex_picture(tile):
    nets, dark = flow_nets(), seeded(1, 3, 72, 88, seed=5) * 0.1
    none, half, full, mean = (
        enhance(dark, nets, None, SampleOptions(steps, exposure=0.4, texture=texture, tile=tile))
        for steps, texture in ((4, 0.0), (4, 0.5), (4, 1.0), (0, 1.0))
    )
    assert torch.equal(none, mean)
    assert (full - mean).abs().mean() > 0.01
    inside = (full > 0) & (full < 1) & (mean > 0) & (mean < 1)  # finished pictures are clamped
    exact = 1e-5 if tile == 0 else 5e-4  # in tiles, conditions wait in half precision
    assert (half - (full + mean) / 2)[inside].abs().max() < exact


def test_texture_leaves_a_net_alone_that_corrects_the_retinex_picture():
    torch.manual_seed(3)
    nets, dark = build(TINY), seeded(1, 3, 40, 56, seed=5) * 0.1
    pictures = [enhance(dark, nets, None, SampleOptions(2, texture=texture)) for texture in (0.0, 0.5, 1.0)]
    assert torch.equal(pictures[0], pictures[1]) and torch.equal(pictures[1], pictures[2])


def test_schedule_and_net_must_agree():
    with pytest.raises(ValueError, match="same detail_std"):
        replace(FLOW, schedule=replace(FLOW.schedule, detail_std=0.2))
    with pytest.raises(ValueError, match="starts at pure noise"):
        replace(FLOW.schedule, zero_terminal_snr=False)


@pytest.mark.parametrize("steps", [4, 8])
def test_the_hosts_euler_gives_what_our_sampler_gives(jores_pack_nodes, comfy_inprocess, steps):
    host = importlib.import_module("jores_pack.nodes.host.model_sampling")
    config = importlib.import_module("jores_pack.jores.config").PRESETS["texture"].schedule
    euler = importlib.import_module("comfy.k_diffusion.sampling").sample_euler
    sampling, schedule = host.model_sampling(config), NoiseSchedule(replace(PRESETS["texture"].schedule))
    picture, goal = seeded(1, 3, 16, 16) * 0.5, seeded(1, 3, 16, 16, seed=1) - 0.5

    def x0_of(x_t, a, s):
        y_t, t = (x_t - a * picture) / (a * C + s), a * C / (a * C + s)
        return picture + C * (y_t + (1 - t) * (goal.sin() - 0.5 * y_t))

    noise = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    ours, times = noise, [*schedule.timesteps(steps), -1]
    for t, later in zip(times, times[1:], strict=False):
        a, s = schedule.alpha_bar(t) ** 0.5, (1 - schedule.alpha_bar(t)) ** 0.5
        ours, _ = ddim_step(lambda x, _t, a=a, s=s: (a * x - x0_of(x, a, s)) / s, ours, schedule, t, later)
    sigmas = host.sampling_sigmas(sampling, schedule.timesteps(steps))

    def model(x, sigma):
        a = 1 / (1 + sigma.square()).sqrt().item()
        return x0_of(x * a, a, a * sigma.item())

    theirs = euler(model, noise * sigmas[0], sigmas, disable=True)
    assert (ours - theirs).abs().max() * 255 / 2 < 1
    assert float(sampling.sigma_min) < 0.06 * C  # stock schedulers lead on to where the detail is clean


def test_the_shipped_model_draws_detail_on_a_real_photograph_and_keeps_its_colours():
    nets = load_bundle(SHIPPED_WEIGHTS)
    assert nets.config.name == "texture"
    photograph = read_image(PICTURES / "enhance_low_light.input.png").pixels[None, :3, :192, :256]
    mean, drawn = (enhance(photograph, nets, None, SampleOptions(2, texture=texture)) for texture in (0.0, 1.0))
    assert fine_detail(drawn - mean).std() > 0.003
    assert (F.avg_pool2d(drawn - mean, 32)).abs().max() < 0.02


@pytest.fixture(scope="module")
def distance():
    return FeatureDistance(load_segmenter(SHIPPED_SEGMENTER))


def test_features_prefer_a_texture_off_its_place_to_a_blur(distance):
    picture = read_image(PICTURES / "only_this_region.input.png").pixels[None, :3, 64:192, 64:192] * 2 - 1
    fine = fine_detail(seeded(1, 3, 128, 128)) * 0.2
    wanted, moved, blurred = picture + fine, picture + fine.roll(2, 3), picture
    error, far = F.mse_loss(moved, wanted), F.mse_loss(blurred, wanted)
    assert error > far
    same, of_moved, of_blurred = distance(wanted, wanted, moved, blurred)
    assert same == 0 and of_moved < 0.7 * of_blurred


def test_both_estimates_are_trained_by_the_features(distance):
    torch.manual_seed(3)
    nets, options = flow_nets(), {"refine": 1.0, "prior_dropout": 0.0, "perceptual": 2.0}
    objective = FlowObjective(nets, options, distance)
    terms = objective(batch_of(2))
    plain = terms["flow"] + terms["refinement"]
    assert torch.allclose(terms["loss"], plain + 2 * (terms["seen"] + terms["seen_refined"]))
    for name, net in (("seen", nets.unet), ("seen_refined", nets.rnet)):
        found = torch.autograd.grad(terms[name], list(net.parameters()), retain_graph=True, allow_unused=True)
        assert any(g is not None and g.any() for g in found)
    assert not any(p.requires_grad for p in distance.parameters())


def test_features_of_another_segmenter_are_refused():
    with pytest.raises(ValueError, match="and its `segmenter` names another model: leave `segmenter` out"):
        FeatureDistance(load_segmenter(FORMER_SEGMENTER))


@pytest.mark.parametrize("config", [TINY, FLOW])
def test_what_the_steps_share_is_computed_once_and_changes_no_bit(config, monkeypatch):
    torch.manual_seed(3)
    nets, low = build(config), seeded(1, 3, 40, 56, seed=5) * 0.1
    for parameter in (*nets.unet.parameters(), *nets.rnet.parameters()):
        torch.nn.init.normal_(parameter, std=0.05)
    prior = SemanticPrior(seeded(1, 150, 10, 14).softmax(1), tuple(map(str, range(150))), (40, 56))
    condition = adjust(nets, decompose(nets, low))
    calls, unet, rnet, guides = [], nets.unet.forward, nets.rnet.forward, nets.unet.guides
    monkeypatch.setattr(nets.unet, "guides", lambda *given: calls.append(1) or guides(*given))
    kept = sample(nets, condition, prior, SampleOptions(3), low=low)
    assert len(calls) == 1
    monkeypatch.setattr(nets.unet, "forward", lambda x, level, given, guides: unet(x, level, given))
    monkeypatch.setattr(nets.rnet, "forward", lambda x0, level, condition, modulations: rnet(x0, level, condition))
    assert torch.equal(sample(nets, condition, prior, SampleOptions(3), low=low), kept)
    assert len(calls) == 1 + 1 + 3


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_near_float32(dtype):
    dark = seeded(1, 3, 24, 40, seed=5).sigmoid() * 0.1
    exact, half = (enhance(dark, shaken(FLOW, kind), None, SampleOptions(2)) for kind in (torch.float32, dtype))
    assert (exact - half).abs().mean() < 0.02


@pytest.mark.parametrize("pattern", [(0, 1), (1, 0), (1, 1)], ids=["columns", "rows", "checks"])
def test_a_mesh_of_single_pixels_is_taken_out_of_what_is_drawn(pattern):
    y, x = torch.meshgrid(torch.arange(52.0), torch.arange(70.0), indexing="ij")
    mesh = 0.02 * (-1) ** (pattern[0] * y + pattern[1] * x)
    scene = fine_detail(seeded(1, 3, 52, 70)) * 0.05
    left = without_mesh(scene + mesh) - without_mesh(scene)
    assert left.abs().max() < 0.1 * mesh.abs().max()
    assert (without_mesh(scene) - scene).std() < 0.2 * scene.std()


@pytest.mark.parametrize("steps", [9, 20, 100, 751])
def test_more_steps_than_the_net_has_learned_end_at_noise_that_it_knows(steps):
    schedule = NoiseSchedule(FLOW.schedule)
    times = schedule.timesteps(steps)
    assert times[0] == 999 and times[-1] == schedule.timesteps(4)[-1] and len(times) == steps
    assert all(later < t for t, later in zip(times, times[1:], strict=False))
    shares = [schedule.refined_share(t, later) for t, later in zip(times, [*times[1:], -1], strict=True)]
    assert max(shares) == shares[-1] == 1 and sum(shares[:-1]) == pytest.approx(6, abs=0.02)
    with pytest.raises(ValueError, match="steps must be between 1 and 751"):
        schedule.timesteps(752)
    assert max(OWN_STEPS) == LEARNED_STEPS


def test_former_schedules_have_no_such_end():
    former = NoiseSchedule(PRESETS["compact"].schedule)
    assert former.timesteps(20)[-1] == 49 and former.refined_share(99, 49) == 1
