"""The temporal average of clips whose camera moves by other things than whole pixels, and of those with nothing to fit.

Without nets: the results that are averaged are the truth with noise of their own.
"""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from jores.imaging import camera_motion as camera
from jores.imaging import metal, temporal
from jores.imaging.camera_motion import CameraMotion, camera_motion, lag, resampled
from jores.imaging.temporal import TemporalFilter
from jores.metrics import psnr
from tests.benchmarks import flicker
from tests.other_device import DEVICE, other_device

SIZE, FRAMES = (96, 144), 8
ALL = (slice(None),) * 4


@pytest.fixture(scope="module")
def clips():
    return flicker.make_clips(SIZE, FRAMES, 3)


def noisy(truth, spread=0.02, seed=7):
    noise = torch.randn(truth.shape, generator=torch.Generator().manual_seed(seed))
    return (truth + spread * noise).clamp(0, 1)


def averaged(dark, results):
    steady = TemporalFilter()
    return torch.cat([steady(*pair) for pair in zip(dark.split(1), results.split(1), strict=True)])


def gain(truth, dark, place=ALL):
    """dB by which the average of the later frames is nearer to the truth than these by themselves."""
    results = noisy(truth)
    before, after = (float(psnr(x[4:][place], truth[4:][place]).mean()) for x in (results, averaged(dark, results)))
    return after - before


@pytest.mark.parametrize("name", ["slow pan", "zoom", "tilt", "hand"])
def test_a_camera_that_moves_as_it_likes_gains(clips, name):
    assert gain(clips[name].truth, clips[name].dark) > 1


def test_both_directions_and_both_ways_of_turning_gain(clips):
    for name in ("zoom", "tilt"):
        assert gain(clips[name].truth.mT.flip(0), clips[name].dark.mT.flip(0)) > 1, name


def test_what_stands_still_and_whole_pixels_gain_as_before(clips, monkeypatch):
    """The gains are those of a filter that knows no other motion."""
    after = {name: gain(clips[name].truth, clips[name].dark) for name in ("static", "pan")}
    monkeypatch.setattr(camera, "MOTION_SURE", float("inf"))
    monkeypatch.setattr(temporal, "LAG", float("inf"))
    for name, figure in after.items():
        assert figure > gain(clips[name].truth, clips[name].dark) - 0.2 and figure > 5, name


@pytest.mark.parametrize("speed", [1 / 3, 1, 3])
def test_what_moves_alone_smears_less_than_without_a_look_at_its_lag(clips, speed, monkeypatch):
    """A patch of fine texture moves over a scene that stays; the place is all that it has covered."""
    still, side = clips["static"].truth[:1], 48
    patch = F.interpolate(still.flip(3), size=(3 * side, 3 * side), mode="area")
    frames = []
    for i in range(FRAMES):
        big, x = F.interpolate(still, scale_factor=3, mode="nearest"), round(3 * (20 + speed * i))
        big[..., 60 : 60 + 3 * side, x : x + 3 * side] = patch
        frames.append(F.avg_pool2d(big, 3))
    truth = torch.cat(frames)
    dark = torch.stack([flicker.SENSOR(f, torch.Generator().manual_seed(i)) for i, f in enumerate(truth)])
    there = (slice(None), slice(None), slice(20, 20 + side), slice(20, 20 + side + int(speed * FRAMES)))
    limited, whole = gain(truth, dark, there), gain(truth, dark)
    monkeypatch.setattr(temporal, "LAG", float("inf"))
    assert limited > gain(truth, dark, there) + 1 and whole > gain(truth, dark)


def test_the_map_is_that_of_the_camera(clips):
    """At every corner by a sixth of a pixel, from one noisy frame to the next."""
    motion = camera_motion(*clips["zoom"].dark[2:4].split(1))
    assert motion.theta is not None
    wanted = torch.tensor([[1 / 1.01, 0, 0], [0, 1 / 1.01, 0]])
    assert camera._farthest(motion.theta - wanted, SIZE) < 1 / 6


def test_another_scene_a_lamp_and_noise_have_no_map(clips):
    a, b = clips["static"].dark[:2].split(1)
    for other in (b, b.flip(3), b.flip(2), b.roll(70, 3), (b * 2).clamp(0, 1), torch.zeros_like(b)):
        assert camera_motion(a, other).theta is None
        assert camera_motion(other, a).theta is None
    y, x = (torch.linspace(-1, 1, n) for n in SIZE)
    glow = (-((y[:, None] + 0.3) ** 2 + (x + 0.4) ** 2) / 0.3).exp()
    assert camera_motion(a, (b * (1 + 2 * glow) + 0.1 * glow).clamp(0, 1)).theta is None
    noise = torch.randn(12, 1, 3, *SIZE, generator=torch.Generator().manual_seed(0)) * 0.004
    steady = TemporalFilter()
    for frame in (noise.clamp(0, 1) * 255).round() / 255:
        assert steady.dark is None or camera_motion(steady.dark, frame).theta is None
        steady(frame, frame)


def test_a_fit_that_runs_away_falls_back_to_whole_pixels(clips, monkeypatch):
    dark = clips["zoom"].dark
    for far in (torch.nan, torch.inf, 3.0):
        monkeypatch.setattr(camera, "_fitted", lambda *_, far=far: (torch.full((2, 3), far), True))
        assert camera_motion(dark[:1], dark[1:2]) == CameraMotion((0, 0))
    monkeypatch.undo()
    monkeypatch.setattr(camera, "_better", lambda *_: False)
    assert camera_motion(dark[:1], dark[1:2]).theta is None


@pytest.mark.parametrize("size", [(1, 1), (1, 90), (90, 1), (2, 2), (15, 40), (16, 16), (17, 300), (300, 20)])
def test_any_size_black_flat_and_random(size):
    for frame in (torch.zeros(1, 3, *size), torch.full((1, 3, *size), 0.5)):
        assert torch.equal(averaged(frame.expand(3, -1, -1, -1), frame.expand(3, -1, -1, -1))[-1:], frame)
    frames = torch.rand(3, 3, *size, generator=torch.Generator().manual_seed(0))
    result = averaged(frames, frames)
    assert result.shape == frames.shape and result.isfinite().all() and result.min() >= 0 and result.max() <= 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_any_dtype(clips, dtype):
    clip = clips["zoom"]
    dark, results = clip.dark[:3], noisy(clip.truth[:3])
    low = averaged(dark.to(dtype), results.to(dtype))
    assert low.dtype == dtype
    # Frames of half precision are coarse: noise and the running mean are rounded.
    assert (low.float() - averaged(dark, results)).abs().mean() < 0.01


@pytest.mark.parametrize("without", [set(), {DEVICE.type}])
def test_another_device_sees_the_same(clips, monkeypatch, without):
    monkeypatch.setattr(metal, "DEVICES", without)
    before, after = clips["zoom"].dark[:2].split(1)
    here = camera_motion(before, after)
    want = [*here.follow(before, after), here.follow_count(before[:, :1].sign()), lag(before, after)]
    with other_device():
        a, b = before.to(DEVICE), after.to(DEVICE)
        there = camera_motion(a, b)
        made = [*there.follow(a, b), there.follow_count(a[:, :1].sign()), lag(a, b)]
    assert all(x.device == DEVICE for x in made)
    for x, y in zip(made, want, strict=True):
        torch.testing.assert_close(x.cpu(), y)


def test_bands_are_seamless_and_the_count_ends_at_the_border(monkeypatch):
    x = torch.rand(1, 3, 50, 40, generator=torch.Generator().manual_seed(0))
    theta = torch.tensor([[1.0, 0.02, 0.1], [-0.03, 0.99, 0.0]])
    whole = resampled(x, theta, "bicubic")
    monkeypatch.setattr(camera, "BAND", 16)
    torch.testing.assert_close(resampled(x, theta, "bicubic"), whole)
    count = CameraMotion((0, 0), theta).follow_count(torch.full((1, 1, 50, 40), 5.0))
    assert set(count.unique().tolist()) == {0.0, 5.0} and not count[..., -1].any()
