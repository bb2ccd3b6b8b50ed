"""Clips: what may be smoothed over time, what must not, and what a video file carries besides its pictures."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from jores.checkpoint import SHIPPED_SEGMENTER
from jores.cli import main
from jores.files import clips as clip_files
from jores.files.clips import VideoFileError, rewrite_video
from jores.imaging.camera_motion import camera_shift
from jores.imaging.fades import is_switched
from jores.imaging.lookahead import summarise
from jores.imaging.temporal import follow
from jores.pipeline import enhance
from jores.semantics import load_segmenter
from jores.video import LOOKAHEAD, enhance_frames
from tests.benchmarks import flicker
from tests.films import is_cut
from tests.flat import flat

pytestmark = pytest.mark.slow

SIZE, FRAMES = (64, 96), 6
TICK = Fraction(1, 30000)


@pytest.fixture(scope="module")
def clips():
    return flicker.make_clips(SIZE, FRAMES, 3)


def test_flicker_goes_and_neither_a_moving_camera_nor_a_moving_thing_pays_for_it(clips):
    shown = {name: clips[name] for name in ("static", "pan", "crossing", "lamp", "zoom")}
    results = flicker.run(shown, steps=1)
    figures = {key: flicker.measure(result, clips[key[0]]) for key, result in results.items()}
    for clip in ("static", "lamp"):
        still, smooth = figures[clip, "independent"], figures[clip, "smooth"]
        # How much of a wavering lamp is left depends on how strongly the weights follow the light.
        assert smooth["mean luma"] < still["mean luma"] * (1 / 3 if clip == "static" else 0.8), clip
        assert smooth["blocks"] < still["blocks"] / 3, clip
        assert smooth["PSNR raw"] > still["PSNR raw"] - 0.1, clip
    moving = [(c, f, 0.0) for c in ("pan", "zoom") for f in ("PSNR raw", "PSNR GT-mean")]
    for clip, figure, loss in (*moving, ("crossing", "ghost", 0.4)):
        assert figures[clip, "smooth"][figure] > figures[clip, "independent"][figure] - loss, clip
    assert figures["pan", "smooth"]["warp"] > figures["pan", "independent"]["warp"] + 3


def test_unrelated_pictures_are_not_smoothed_together(nets, clips):
    """Bit by bit what each of them gives by itself; and so does a single one."""
    segmenter = load_segmenter(SHIPPED_SEGMENTER)
    first, other = clips["static"].dark[:1], clips["static"].dark[:1].flip(3)
    alpha = torch.rand(1, 1, *SIZE, generator=torch.Generator().manual_seed(3))
    frames = [torch.cat([x, alpha], 1) for x in (first, other, first * 3)]
    results = list(flat(enhance_frames)(frames, nets, segmenter, steps=1, seed=5, strength=0.9))
    for frame, result in zip(frames, results, strict=True):
        assert torch.equal(result, flat(enhance)(frame, nets, segmenter, steps=1, seed=5, strength=0.9))
    small = [first, first[..., :40]]
    sizes = [r.shape[-1] for r in flat(enhance_frames)(small, nets, steps=1)]
    assert sizes == [SIZE[1], 40]


@pytest.mark.parametrize("exposure, runs", [(None, 1), (0.5, 2)])
def test_the_segmenter_sees_the_light_that_a_frame_has_already(nets, clips, exposure, runs):
    """ANet runs once per frame, and twice where the user asks for an exposure that the segmenter must not see."""
    dark, segmenter, calls = clips["static"].dark[:3], load_segmenter(SHIPPED_SEGMENTER), []
    handle = nets.anet.register_forward_hook(lambda *_: calls.append(1))
    try:
        frames = flat(enhance_frames)(dark.split(1), nets, segmenter, steps=1, exposure=exposure)
        once = torch.cat(list(frames))
    finally:
        handle.remove()
    assert len(calls) == runs * len(dark)
    unaware = torch.cat(list(flat(enhance_frames)(dark.split(1), nets, steps=1, exposure=exposure)))
    assert not torch.equal(once, unaware)  # the prior is used


@pytest.mark.parametrize("scale, ahead", ((2, False), (0.5, True)))
def test_frames_of_another_size_begin_a_shot_although_they_show_the_same(nets, clips, scale, ahead):
    frames = [*clips["static"].dark[:2].split(1)]
    others = [F.interpolate(frame, scale_factor=scale, mode="area") for frame in frames]

    def made(clip):
        return list(flat(enhance_frames)(iter(clip), nets, steps=0, ahead=iter(clip) if ahead else None))

    together, apart = made([*frames, *others]), [*made(frames), *made(others)]
    assert len(together) == len(apart) == 4 and all(map(torch.equal, together, apart))


def test_an_exposure_that_no_frame_can_have_is_refused_before_the_first_frame(nets):
    """Black frames, which come first in many films, are enhanced without it."""
    frames = iter([torch.zeros(1, 3, 48, 64)])
    with pytest.raises(ValueError, match="exposure must be"):
        list(flat(enhance_frames)(frames, nets, steps=0, exposure=torch.tensor([0.4, 0.5])))
    assert len(list(frames)) == 1


def test_the_switch_gives_independent_frames(nets, clips):
    frames = list(clips["static"].dark[:2].split(1))
    for frame, result in zip(frames, flat(enhance_frames)(frames, nets, smooth=False, steps=1), strict=True):
        assert torch.equal(result, flat(enhance)(frame, nets, steps=1))


def test_a_cut_starts_afresh_and_what_is_masked_stays(nets, clips):
    dark = clips["static"].dark
    mask = torch.zeros(1, 1, *SIZE)
    mask[..., 48:] = 1
    frames = [*dark[:3].split(1), *dark[:2].flip(3).split(1)]
    joined = list(flat(enhance_frames)(frames, nets, steps=1, masks=[mask] * 5))
    for frame, result in zip(frames, joined, strict=True):
        assert torch.equal(result[..., :48], frame[..., :48]) and not torch.equal(result[..., 48:], frame[..., 48:])
    alone = [
        list(flat(enhance_frames)(part, nets, steps=1, masks=[mask] * len(part))) for part in (frames[:3], frames[3:])
    ]
    torch.testing.assert_close(torch.cat(joined), torch.cat(sum(alone, [])), rtol=0, atol=0)


def test_an_endless_stream_is_worked_on_as_it_comes(nets, clips):
    taken = 0

    def camera():
        nonlocal taken
        while True:
            taken += 1
            yield clips["static"].dark[taken % FRAMES][None, :, :16, :24]

    results = flat(enhance_frames)(camera(), nets, steps=1)
    for done in range(1, 20):
        next(results)
        assert taken - done <= 2 * LOOKAHEAD + 1


def test_exposure_told_is_kept_in_the_mean(nets, clips):
    dark = clips["static"].dark[:3]
    bright, dim = (torch.cat(list(flat(enhance_frames)(dark.split(1), nets, exposure=e, steps=1))) for e in (0.5, 0.2))
    for result, exposure in ((bright, 0.5), (dim, 0.2)):
        independent = torch.cat([flat(enhance)(d, nets, exposure=exposure, steps=1) for d in dark.split(1)])
        assert result.mean().item() == pytest.approx(independent.mean().item(), abs=0.01)


def test_cuts_pans_and_light(clips):
    static, pan = clips["static"].dark.split(1), clips["pan"].dark.split(1)
    assert not any(is_cut(a, b) for clip in (static, pan) for a, b in zip(clip, clip[1:], strict=False))
    assert not is_cut(static[0], (static[1] * 1.2).clamp(0, 1))
    twice = (static[1] * 2).clamp(0, 1)  # the same scene; the light is judged by the levels
    levels = [summarise(None, frame).level for frame in (static[0],) * 8 + (twice,) * 8]
    assert not is_cut(static[0], twice) and is_switched(levels, 8)
    assert is_cut(static[0], static[1].flip(3)) and is_cut(static[0], static[1].flip(2))
    assert camera_shift(pan[0], pan[2]) == (0, -6) and camera_shift(static[0], static[1]) == (0, 0)
    black, one = torch.zeros(1, 3, *SIZE), torch.zeros(1, 3, 1, 1)
    assert not is_cut(black, black) and not is_cut(one, one)
    value = torch.tensor([0.3])
    assert torch.equal(follow(value, value, 0.1), value)


def write_clip(path: Path, frames: torch.Tensor, rotation: int = 0, full_range: bool = False, sound: bool = True):
    """H.264 in BT.709 with uneven time stamps, and a tone."""
    with av.open(str(path), "w") as file:
        file.metadata["title"] = "night"
        video = file.add_stream("libx264", rate=Fraction(30000, 1001), options={"crf": "12"})
        video.height, video.width, video.pix_fmt = *frames.shape[2:], "yuv420p"
        context = video.codec_context
        context.time_base = TICK
        context.color_primaries = context.color_trc = context.colorspace = 1
        context.color_range = 2 if full_range else 1
        if rotation:
            video.set_display_rotation(rotation)
        audio = file.add_stream("aac", rate=16000, layout="mono") if sound else None
        for i, frame in enumerate(frames):
            levels = (frame * 255).round().byte().permute(1, 2, 0).numpy()
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(levels))
            picture = picture.reformat(format="yuv420p", dst_colorspace=1, dst_color_range=context.color_range)
            picture.pts, picture.time_base = 1001 * (i + i // 3), TICK
            file.mux(video.encode(picture))
        file.mux(video.encode(None))
        if sound:
            tone = (np.sin(np.arange(4096) / 5) * 8000).astype(np.int16)[None]
            for start in range(0, 4096, 1024):
                part = av.AudioFrame.from_ndarray(tone[:, start : start + 1024], format="s16", layout="mono")
                part.sample_rate, part.pts, part.time_base = 16000, start, Fraction(1, 16000)
                file.mux(audio.encode(part))
            file.mux(audio.encode(None))


def read_clip(path: Path) -> tuple[dict, np.ndarray, list]:
    """What the file says, its last frame, and its sound packet by packet."""
    with av.open(str(path)) as file:
        video = file.streams.video[0]
        context = video.codec_context
        frames = list(file.decode(video))
        facts = {
            "size": (context.width, context.height), "codec": (context.name, context.pix_fmt),
            "colours": [context.color_range, context.colorspace, context.color_trc, context.color_primaries],
            "times": [(f.pts * f.time_base) for f in frames], "length": video.duration * video.time_base,
            "rotation": frames[0].rotation, "title": file.metadata.get("title"), "rate": video.average_rate,
        }  # fmt: skip
        last = frames[-1].to_ndarray(format="rgb24", src_colorspace=1, src_color_range=context.color_range)
    with av.open(str(path)) as file:
        packets = file.demux(file.streams.audio[0]) if file.streams.audio else ()
        return facts, last, [(p.pts * p.time_base, bytes(p)) for p in packets if p.dts is not None]


@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("rotation", [0, -90, 90] if clip_files._KEEPS_MATRIX else [0])
def test_all_but_the_pictures_stays(tmp_path, clips, rotation, full_range):
    source, target = tmp_path / "in.mp4", tmp_path / "out.mp4"
    write_clip(source, clips["pan"].truth, rotation, full_range)
    shapes = set()

    def look(frames):
        for frame in frames:
            shapes.add(tuple(frame.shape))
            yield frame

    report = rewrite_video(source, target, look)
    before, after = read_clip(source), read_clip(target)
    assert after[0] == before[0] and before[0]["rotation"] == rotation
    assert after[2] == before[2] and len(after[2]) > 4
    # H.264 takes its toll of so small a picture; wrong levels or a wrong matrix would shift the means.
    assert np.abs(after[1].astype(int) - before[1]).mean() < 4
    assert np.abs(after[1].mean((0, 1)) - before[1].mean((0, 1))).max() < 1
    assert (report.width, report.height, report.frames) == (*before[0]["size"], FRAMES)
    assert shapes == {(1, 3, *(SIZE[::-1] if rotation else SIZE))}  # upright, as the nets know the world


@pytest.mark.skipif(not clip_files._KEEPS_MATRIX, reason="this PyAV writes no rotation to test with")
def test_without_a_place_for_the_rotation_the_pictures_are_turned(tmp_path, clips, monkeypatch):
    source, target = tmp_path / "in.mp4", tmp_path / "out.mp4"
    write_clip(source, clips["pan"].truth, rotation=-90)
    monkeypatch.setattr(clip_files, "_KEEPS_MATRIX", False)  # as older releases of PyAV
    rewrite_video(source, target, lambda frames: frames)
    (before, stored, _), (after, upright, _) = read_clip(source), read_clip(target)
    assert after["rotation"] == 0 and after["size"] == before["size"][::-1] and after["times"] == before["times"]
    assert np.abs(upright.astype(int) - np.rot90(stored, -1)).mean() < 4


def test_damaged_files_and_failures_leave_nothing_behind(tmp_path, clips):
    source, target = tmp_path / "in.mp4", tmp_path / "out" / "in.mp4"
    target.parent.mkdir()
    write_clip(source, clips["static"].truth, sound=False)
    data = source.read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) // 2])
    (tmp_path / "text.mkv").write_text("no video")
    for name in ("cut.mp4", "text.mkv", "none.mov"):
        with pytest.raises(VideoFileError, match=name.replace(".", r"\.")):
            rewrite_video(tmp_path / name, target, lambda frames: frames)

    def fail(frames):
        yield next(frames)
        raise ValueError("cancelled")

    target.write_bytes(b"an older result")
    with pytest.raises(ValueError, match="cancelled"):
        rewrite_video(source, target, fail)
    assert [p.name for p in target.parent.iterdir()] == ["in.mp4"] and target.read_bytes() == b"an older result"
    with pytest.raises(VideoFileError, match=r"in\.gif: unknown suffix"):
        rewrite_video(source, tmp_path / "in.gif", lambda frames: frames)


def test_the_command_line_takes_clips(tmp_path, clips, nets, capsys):
    source, out = tmp_path / "night.mp4", tmp_path / "out"
    write_clip(source, clips["static"].dark[:6])
    command = ["enhance", str(source), "--output", str(out), "--segmenter", "none", "--steps", "1", "--device", "cpu"]
    assert main(command) == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["width"], record["height"], record["frames"]) == (96, 64, 6) and record["seconds"] > 0
    facts, smooth, sound = read_clip(out / "night.mp4")
    before, dark, tone = read_clip(source)
    assert facts == before and sound == tone and smooth.mean() > dark.mean() + 50
    assert main([*command, "--overwrite", "--independent-frames"]) == 0
    assert not np.array_equal(read_clip(out / "night.mp4")[1], smooth)


def test_the_node_smooths_clips_and_nothing_else(jores_pack_nodes, clips, nets):
    """Runs in a real ComfyUI. A single picture, or two that are unrelated, come out bit by bit the same."""
    node = jores_pack_nodes["JoReSEnhance"]
    schema = node.define_schema()
    assert next(slot for slot in schema.inputs if slot.id == "smooth_frames").default is True
    shown = {slot.id: slot.default for slot in schema.inputs if getattr(slot, "default", None) is not None}
    dials = shown | {"steps": 1, "semantic": False}

    def run(dark, **changed):
        with torch.inference_mode():
            return node.execute(image=dark.movedim(1, -1), **(dials | changed)).result[0].movedim(-1, 1)

    clip = clips["static"].dark[:4]
    unrelated = torch.cat([clip[:1], clip[:1].flip(3)])
    for picture in (clip[:1], unrelated):
        assert torch.equal(run(picture), run(picture, smooth_frames=False))
    single = torch.cat([run(picture) for picture in unrelated.split(1)])
    assert torch.equal(run(unrelated), single)
    boiling, smooth = run(clip, smooth_frames=False).std(0).mean(), run(clip).std(0).mean()
    assert smooth < boiling / 2
    expected = torch.cat(list(flat(enhance_frames)(clip.split(1), nets, steps=1)))
    torch.testing.assert_close(run(clip), expected, atol=1e-4, rtol=0)
