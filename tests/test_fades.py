"""Fades, and cuts in the dark: structure against noise."""

from __future__ import annotations

import json

import av
import numpy as np
import pytest
import torch
from skimage import data
from torch.nn import functional as F

from jores.cli import main
from jores.imaging.fades import fade_at, is_switched
from jores.imaging.temporal import frame_thumbnail, is_black, is_other_scene
from jores.options import SampleOptions
from jores.video import REACH, enhance_frames
from tests.films import is_cut
from tests.tiny import TINY, shaken

SIZE = (64, 96)
ONE_STEP = SampleOptions(steps=1)
SCENES = {"astronaut": data.astronaut(), "coffee": data.coffee(), "chelsea": data.chelsea(), "rocket": data.rocket()}


def scene(name: str, level: float, shift: int = 0, size: tuple[int, int] = SIZE) -> torch.Tensor:
    """A dark photograph of this mean, (1, 3, H, W), as if the camera had turned by `shift` columns."""
    photo = torch.from_numpy(SCENES[name][..., :3].astype(np.float32) / 255).permute(2, 0, 1)[None]
    height, width = size
    scale = max(height / photo.shape[2], (width + 24) / photo.shape[3])
    wide = F.interpolate(photo, scale_factor=scale * 1.02, mode="area")[:, :, :height, shift : shift + width] ** 2.2
    return wide / wide.mean() * level


def noisy(pictures: list[torch.Tensor], noise: float, seed: int = 0) -> list[torch.Tensor]:
    """As a sensor with eight bits gives them."""
    generator = torch.Generator().manual_seed(seed)
    grain = [torch.randn(p.shape, generator=generator) * noise for p in pictures]
    return [((p + g).clamp(0, 1) * 255).round() / 255 for p, g in zip(pictures, grain, strict=True)]


@pytest.mark.parametrize("noise", [0.004, 0.012, 0.02])
@pytest.mark.parametrize("level", [0.013, 0.03])
def test_dark_clips_are_one_shot_and_cuts_between_them_are_found(level, noise):
    size = (128, 192)
    for name, other in zip(SCENES, [*list(SCENES)[1:], "astronaut"], strict=True):
        still = noisy([scene(name, level, 0, size)] * 4, noise)
        pan = noisy([scene(name, level, 3 * i, size) for i in range(4)], noise, 1)
        for clip in (still, pan):
            assert not any(is_cut(a, b) for a, b in zip(clip, clip[1:], strict=False)), name
        assert is_cut(still[0], noisy([scene(other, level, 0, size)], noise, 2)[0]), (name, other)
        assert is_cut(still[0], noisy([scene(name, level, 0, size).flip(2)], noise, 2)[0]), name


def test_noise_and_black_are_no_scenes():
    black = torch.zeros(1, 3, *SIZE)
    grains = noisy([black + 0.006] * 3, 0.01)
    assert not is_cut(*grains[:2]) and not is_cut(black, grains[0]) and not is_cut(black, black)
    grey = black + 0.3
    assert is_other_scene(frame_thumbnail(grey), frame_thumbnail(scene("coffee", 0.3)))  # something and nothing


@pytest.mark.parametrize("noise", [0.0, 0.004, 0.012, 0.02])
def test_black_frames_are_distinguished_from_dark_ones(noise):
    black = torch.zeros(1, 3, *SIZE)
    assert all(is_black(frame_thumbnail(frame)) for frame in noisy([black] * 3, noise))
    for name in SCENES:
        for frame in noisy([scene(name, 0.013, 3 * i) for i in range(3)], noise):
            assert not is_black(frame_thumbnail(frame)), name
    lamps = black.clone()
    lamps[..., 10::23, 7::31] = 1  # a town far away
    assert not any(is_black(frame_thumbnail(frame)) for frame in noisy([lamps] * 3, noise))


@pytest.mark.slow
@pytest.mark.parametrize(("noise", "length"), [(0.004, 1), (0.004, 9), (0.012, 8), (0.02, 2)])
@pytest.mark.parametrize("turned", [False, True])
def test_a_noisy_black_leader_stays_black_and_changes_nothing_behind_the_cut(nets, noise, length, turned):
    clip = noisy([torch.zeros(1, 3, *SIZE)] * length + [scene("coffee", 0.03)] * 3, noise)
    alone = list(enhance_frames(clip[length:][:: -1 if turned else 1], nets, None, ONE_STEP))
    made = list(enhance_frames(clip[:: -1 if turned else 1], nets, None, ONE_STEP))
    leader, rest = (made[3:], made[:3]) if turned else (made[:length], made[length:])
    assert means(leader).max() < 6 and all(a.equal(b) for a, b in zip(rest, alone, strict=True))


def test_levels_tell_fades_from_lamps():
    up = [0.0] * 3 + [i / 100 for i in range(11)] + [0.1] * 3
    rising = [fade_at(up, i) for i in range(len(up))]
    assert all(f and f.rises and up[f.brightest] == 0.1 for f in rising[:12]) and not any(rising[13:])
    falling = [fade_at(up[::-1], i) for i in range(len(up))]
    assert not any(falling[:4]) and all(f and not f.rises for f in falling[5:])
    for steady in (
        [0.1] * 9,
        [0.02] * 4 + [0.1] * 5,
        [0.1, 0.09, 0.11, 0.095, 0.105] * 2,
        [0.06, 0.07, 0.08, 0.09, 0.1],
    ):
        assert not any(fade_at(steady, i) for i in range(len(steady)))
    assert is_switched([0.02, 0.02, 0.1, 0.1], 2) and not any(is_switched(up, i) for i in range(4, 13))


RAMP = [i / 9 for i in range(10)]


def faded(kind: str, scenes: tuple[str, str], noise: float) -> list[torch.Tensor]:
    first, second = scene(scenes[0], 0.08), scene(scenes[1], 0.05)
    made = {
        "in": [first * t for t in (0, 0, *RAMP, 1, 1)],
        "slow in": [first * t * t for t in (0, 0, *RAMP, 1, 1)],
        "out": [first * t for t in (1, 1, *RAMP[::-1], 0, 0)],
        "through black": [first * t for t in (1, *RAMP[::-1])] + [second * t for t in (*RAMP, 1)],
    }
    return noisy(made[kind], noise)


def means(frames: list[torch.Tensor]) -> np.ndarray:
    return np.array([255 * float(frame.mean()) for frame in frames])


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "noise"), [("in", 0.0), ("slow in", 0.004), ("out", 0.006), ("through black", 0.0)])
def test_results_fade_as_their_clip_does(nets, kind, noise):
    clip = faded(kind, ("astronaut", "coffee"), noise)
    low, high = means(clip), means(list(enhance_frames(clip, nets, None, ONE_STEP)))
    for begin, end in [(0, 12), (11, len(clip))] if kind == "through black" else [(0, len(clip))]:
        before, after = low[begin:end], high[begin:end]
        moving = np.abs(np.diff(before)) > 0.05 * before.max()
        assert (np.sign(np.diff(after))[moving] == np.sign(np.diff(before))[moving]).all()
        assert after.max() > 70 and after[before < 0.1 * before.max()].max() < 0.25 * after.max()
        assert np.corrcoef(before, after)[0, 1] > 0.95


@pytest.mark.slow
def test_a_cross_fade_and_a_lamp_are_no_fades(nets):
    first, second = scene("astronaut", 0.08), scene("coffee", 0.05)
    cross = noisy([first * (1 - t) + second * t for t in (0, *RAMP, 1)], 0.004)
    result = means(list(enhance_frames(cross, nets, None, ONE_STEP)))
    assert result.min() > 60 and np.abs(np.diff(result)).max() < 12
    lamp = noisy([first * t for t in (0.3, 0.3, 0.3, 1, 1, 1)], 0.004)
    assert means(list(enhance_frames(lamp, nets, None, ONE_STEP))).min() > 60


@pytest.mark.slow
def test_a_stream_that_cannot_be_looked_at_twice_does_not_flash(nets):
    clip = faded("in", ("chelsea", "coffee"), 0.0)
    result = means(list(enhance_frames(iter(clip), nets, None, ONE_STEP)))
    assert (np.diff(result) > -1).all() and result[0] < 10


@pytest.mark.slow
def test_a_fade_after_a_long_darkness_that_goes_on_beyond_what_is_seen_of_it():
    picture = scene("coffee", 0.05, 0, (16, 24))
    clip = [picture * 0] * (REACH + 2) + [picture * (i / REACH) for i in range(REACH + 2)]
    result = means(list(enhance_frames(clip, shaken(TINY), None, ONE_STEP)))
    assert len(result) == len(clip) and result[-1] > result[REACH]


@pytest.mark.slow
def test_the_command_line_looks_ahead_in_a_file(tmp_path, nets, capsys):
    clip, source = faded("in", ("rocket", "coffee"), 0.0), tmp_path / "in.mkv"
    with av.open(str(source), "w") as file:
        video = file.add_stream("ffv1", rate=25)
        video.height, video.width, video.pix_fmt = *SIZE, "bgr0"
        for number, frame in enumerate(clip):
            levels = (frame[0] * 255).round().byte().permute(1, 2, 0).numpy()
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(levels)).reformat(format="bgr0")
            picture.pts = number
            file.mux(video.encode(picture))
        file.mux(video.encode(None))
    command = ["enhance", str(source), "--output", str(tmp_path / "out"), "--segmenter", "none", "--steps", "1"]
    assert main([*command, "--device", "cpu"]) == 0
    assert json.loads(capsys.readouterr().out)["left_out"] == []
    with av.open(str(tmp_path / "out" / "in.mkv")) as file:
        result = np.array([frame.to_ndarray(format="rgb24").mean() for frame in file.decode(video=0)])
    expected = means(list(enhance_frames(clip, nets, None, ONE_STEP)))
    assert np.abs(result - expected).max() < 3 and result[3] < 0.25 * result.max()


@pytest.mark.parametrize("count", [1, 7, 12])
def test_one_frame_at_a_time_goes_to_the_device_when_a_shot_begins(monkeypatch, count):
    """The light of a shot is found from its first frames; no two of them may be alive there at once."""
    from jores import video

    nets, alive, most = shaken(TINY), 0, 0
    real = video._rgb

    class Held:
        def __init__(self):
            nonlocal alive, most
            alive += 1
            most = max(most, alive)

        def __del__(self):
            nonlocal alive
            alive -= 1

    def counted(frame, device):
        made = real(frame, device).clone()
        made.held = Held()
        return made

    monkeypatch.setattr(video, "_rgb", counted)
    clip = noisy([scene("coffee", 0.05)] * count, 0.004)
    assert len(list(enhance_frames(clip, nets, None, ONE_STEP))) == count
    assert most <= 3, most
