"""Schedule and sampler: numbers pinned, and oracles whose answer is known."""

from __future__ import annotations

import pytest
import torch

from jores.config import PRESETS, ScheduleConfig
from jores.diffusion.sampling import ddim_in_tiles, ddim_sigma, start_noise
from jores.diffusion.schedule import NoiseSchedule
from jores.options import SampleOptions
from jores.tiling.tiler import Tiler

COMPACT, PAPER = (NoiseSchedule(PRESETS[name].schedule) for name in ("compact", "paper"))


def ddim_sample(denoise, noise, schedule, steps, *, refine=None, eta=0.0, **rest):
    """The sampler on a whole picture."""
    noise = noise.clone()  # it works in place
    options = SampleOptions(steps, eta=eta)
    return ddim_in_tiles(Tiler(), noise, schedule, options, lambda window: (denoise, refine, None), like=noise, **rest)


def test_paper_schedule_has_pydiffs_numbers():
    taus = PAPER.timesteps(4)
    assert taus == [1999, 1499, 999, 499]
    ratios = [((1 - PAPER.alpha_bar(t)) / PAPER.alpha_bar(t)) ** 0.5 for t in taus]
    assert ratios == pytest.approx([151, 16.7, 3.35, 0.93], rel=5e-3)
    assert PAPER.alpha_bar(1999) == pytest.approx(4.4e-5, rel=0.02)


def test_compact_schedule_ends_at_zero_signal_and_keeps_its_start():
    plain = NoiseSchedule(ScheduleConfig(zero_terminal_snr=False))
    assert COMPACT.timesteps(4) == [999, 749, 499, 249]
    assert COMPACT.alpha_bar(999) == 0.0
    assert COMPACT.alpha_bar(0) == pytest.approx(plain.alpha_bar(0), abs=1e-12) == pytest.approx(0.9999, abs=1e-9)
    assert COMPACT.alpha_bar(499) == pytest.approx(0.0758, abs=2e-3)
    assert bool((COMPACT.alphas_cumprod.diff() < 0).all())


@pytest.mark.parametrize("steps", [0, 1001])
def test_impossible_step_counts_are_refused(steps):
    with pytest.raises(ValueError, match="steps must be between 1 and 1000"):
        COMPACT.timesteps(steps)


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("schedule", [COMPACT, PAPER], ids=["v", "eps"])
def test_an_oracle_that_knows_the_picture_is_recovered_exactly(schedule, eta):
    picture = torch.rand(1, 3, 9, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 2 - 1
    noise = start_noise((1, 3, 9, 7), 3, picture)

    def oracle(x_t, t):
        a, s = schedule.alpha_bar(t) ** 0.5, (1 - schedule.alpha_bar(t)) ** 0.5
        eps = (x_t - a * picture) / s
        return eps if schedule.config.prediction == "eps" else a * eps - s * picture

    for steps in (1, 2, 4, 7):
        out = ddim_sample(oracle, noise, schedule, steps, eta=eta)
        assert (out - picture).abs().max() < 1e-9


def test_gaussian_data_follow_the_closed_form_of_the_probability_flow():
    """For x0 ~ N(0, s2) the exact eps is linear in x_t, and many DDIM steps must map noise z to s * z."""
    s2 = 0.25

    def denoise(x_t, t):
        a = COMPACT.alpha_bar(t)
        gain = 1 / (a * s2 + 1 - a)  # Cov(., x_t) / Var(x_t)
        eps, x0 = (1 - a) ** 0.5 * gain * x_t, a**0.5 * s2 * gain * x_t
        return a**0.5 * eps - (1 - a) ** 0.5 * x0

    noise = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64).clamp(-1.9, 1.9)
    out = ddim_sample(denoise, noise, COMPACT, 1000)
    assert (out / noise - s2**0.5).abs().max() < 5e-3


def test_sigma_is_formula_16_of_ddim_and_zero_at_the_end():
    assert ddim_sigma(0.1, 0.5, 0.0) == 0.0
    assert ddim_sigma(0.1, 0.5, 1.0) == pytest.approx((0.5 / 0.9 * (1 - 0.2)) ** 0.5)
    assert ddim_sigma(0.1, 1.0, 1.0) == 0.0


def test_refinement_runs_at_every_step_and_reaches_the_next_one():
    calls, seen = [], []

    def denoise(x_t, t):
        seen.append(x_t.mean().item())
        return torch.zeros_like(x_t)

    def refine(x0, alpha_bar):
        calls.append(alpha_bar)
        return torch.full_like(x0, 0.5)

    noise = start_noise((1, 3, 8, 8), 0, torch.zeros(1))
    out = ddim_sample(denoise, noise, COMPACT, 4, refine=refine)
    assert calls == [COMPACT.alpha_bar(t) for t in COMPACT.timesteps(4)]
    assert torch.equal(out, torch.full_like(out, 0.5))
    plain = list(seen)
    seen.clear()
    ddim_sample(denoise, noise, COMPACT, 4)
    assert seen[0] == plain[0] and seen[1] != plain[1]


def test_a_callback_may_cancel():
    def stop(step, total, x0):
        if step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ddim_sample(lambda x, t: x, torch.zeros(1, 3, 4, 4), COMPACT, 4, callback=stop)
