"""Codecs, sampling, depth, alpha and fields of films: kept where an encoder can, told or refused where none can."""

from __future__ import annotations

import os

import av
import numpy as np
import pytest
import torch

from jores.files.clips import VideoFileError, rewrite_video
from jores.files.encoders import ordinary_threads
from jores.files.formats import losses, ranked
from tests.films import LENGTH, QUIET, frames_of, write_film


def kind(path):
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        frame = next(file.decode(stream))
        return stream.codec_context.codec.canonical_name, frame.format.name, frame.interlaced_frame


def alpha_of(path):
    """Alpha 0..255 of the first frame, by libvpx where FFmpeg's own decoder passes it over."""
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        name = {"vp9": "libvpx-vp9", "vp8": "libvpx"}.get(stream.codec_context.codec.canonical_name)
        decode = av.CodecContext.create(name, "r").decode if name else lambda packet: packet.decode()
        frame = next(frame for packet in file.demux(stream) for frame in decode(packet))
        return frame.to_ndarray(format="rgba64le")[..., 3] / 257


FORMATS = [
    ("prores_ks", "yuv422p10le", ".mov", {"profile": "lt"}), ("prores_ks", "yuv444p10le", ".mkv", {}),
    ("dnxhd", "yuv422p", ".mov", {"profile": "dnxhr_sq"}), ("dnxhd", "yuv444p10le", ".mov", {"profile": "dnxhr_444"}),
    ("mjpeg", "yuvj420p", ".avi", {}), ("mjpeg", "yuvj422p", ".mov", {}), ("mjpeg", "yuvj444p", ".mkv", {}),
    ("ffv1", "yuv422p10le", ".mkv", {}), ("ffv1", "bgr0", ".mkv", {}), ("ffv1", "gray", ".mkv", {}),
    ("huffyuv", "yuv422p", ".avi", {}), ("utvideo", "yuv444p", ".avi", {}), ("qtrle", "rgb24", ".mov", {}),
    ("png", "rgb48be", ".mov", {}), ("rawvideo", "bgr24", ".avi", {}), ("v210", "yuv422p10le", ".mov", {}),
    ("libx264", "yuv444p", ".mp4", {}), ("libx264", "yuv422p10le", ".mkv", {}), ("libx264rgb", "rgb24", ".mkv", {}),
    ("libx264", "gray", ".mp4", {}), ("libx265", "yuv444p12le", ".mkv", QUIET), ("libx265", "gbrp", ".mp4", QUIET),
    ("libvpx-vp9", "yuv444p", ".webm", {}), ("libvpx-vp9", "gbrp", ".webm", {}), ("libvpx", "yuv420p", ".webm", {}),
    ("libsvtav1", "yuv420p10le", ".mkv", {}), ("mpeg1video", "yuv420p", ".mkv", {"bf": "2"}),
    ("mpeg1video", "yuv420p", ".mp4", {}), ("mpeg2video", "yuv422p", ".mkv", {}), ("msmpeg4", "yuv420p", ".avi", {}),
    ("wmv2", "yuv420p", ".avi", {}), ("cfhd", "yuv422p10le", ".mov", {}), ("jpeg2000", "rgb24", ".mov", {}),
]  # fmt: skip


@pytest.mark.parametrize(("encoder", "pix_fmt", "suffix", "options"), FORMATS, ids=[f"{f[0]}-{f[1]}" for f in FORMATS])
def test_codec_sampling_and_depth_stay(tmp_path, encoder, pix_fmt, suffix, options):
    size = (128, 256) if encoder == "dnxhd" else (64, 96)
    source = write_film(tmp_path / f"in{suffix}", encoder, pix_fmt, options, count=3, size=size)
    target = tmp_path / f"out{suffix}"
    report = rewrite_video(source, target, lambda frames: frames)
    assert kind(source) == kind(target)
    deeper = "yuv444p10le" in pix_fmt and encoder == "prores_ks"  # read with 12 bits, which no encoder writes
    assert report.left_out == (("12 bits per channel (written with 10)",) if deeper else ())
    (before, seen), (after, made) = frames_of(source), frames_of(target)
    assert after == pytest.approx(before, abs=2e-3)
    assert max(np.abs(a - b).mean() for a, b in zip(seen, made, strict=True)) < 2
    if encoder == "prores_ks":
        with av.open(str(source)) as a, av.open(str(target)) as b:
            assert a.streams.video[0].profile == b.streams.video[0].profile


@pytest.mark.skipif(not hasattr(os, "sched_getscheduler"), reason="this system has one kind of scheduling")
@pytest.mark.parametrize("encoder", ["libsvtav1", "libaom-av1", "libx265", "libvpx-vp9"])
def test_no_encoder_makes_the_process_a_real_time_one(tmp_path, encoder):
    """SVT-AV1 does where it runs as root: every other program of the machine then waits for the enhancement."""
    with ordinary_threads():
        source = write_film(tmp_path / "in.mkv", encoder, count=3)
    before, during = os.sched_getscheduler(0), set()

    def watched(frames):
        for frame in frames:
            during.add(os.sched_getscheduler(0))
            yield frame

    rewrite_video(source, tmp_path / "out.mkv", watched)
    assert during == {before} and os.sched_getscheduler(0) == before


WITH_ALPHA = [
    ("prores_ks", "yuva444p10le", ".mov", {}), ("qtrle", "argb", ".mov", {}), ("png", "rgba", ".mov", {}),
    ("ffv1", "yuva420p", ".mkv", {}), ("ffv1", "bgra", ".mkv", {}), ("libvpx-vp9", "yuva420p", ".webm", {}),
    ("libvpx-vp9", "yuva420p", ".mkv", {}), ("huffyuv", "bgra", ".avi", {}), ("utvideo", "gbrap", ".avi", {}),
    ("cfhd", "gbrap12le", ".mov", {}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("encoder", "pix_fmt", "suffix", "options"), WITH_ALPHA, ids=[f"{f[0]}-{f[1]}" for f in WITH_ALPHA]
)
def test_alpha_stays_and_is_not_enhanced(tmp_path, encoder, pix_fmt, suffix, options):
    source = write_film(tmp_path / f"in{suffix}", encoder, pix_fmt, options, count=3, alpha=True)
    channels = set()

    def lighten(frames):
        for frame in frames:
            channels.add(frame.shape[1])
            yield torch.cat([frame[:, :3] * 2, frame[:, 3:]], 1)

    report = rewrite_video(source, tmp_path / f"out{suffix}", lighten)
    assert channels == {4} and "alpha" not in report.left_out
    before, after = alpha_of(source), alpha_of(tmp_path / f"out{suffix}")
    assert before.std() > 60 and np.abs(before - after).mean() < 1
    assert kind(source) == kind(tmp_path / f"out{suffix}")


@pytest.mark.parametrize(
    ("encoder", "pix_fmt", "source", "target", "lost"),
    [("qtrle", "argb", ".mov", ".ts", "alpha"), ("ffv1", "yuv444p16le", ".mkv", ".ts", "16 bits"),
     ("libx264", "yuv444p", ".mp4", ".webm", None), ("libx264rgb", "rgb24", ".mkv", ".ts", None)],
)  # fmt: skip
def test_what_another_container_cannot_hold_is_told(tmp_path, encoder, pix_fmt, source, target, lost):
    film = write_film(tmp_path / f"in{source}", encoder, pix_fmt, alpha=pix_fmt == "argb")
    report = rewrite_video(film, tmp_path / f"out{target}", lambda frames: frames)
    same = kind(film)[0] == kind(tmp_path / f"out{target}")[0]
    assert same or "the codec" in report.left_out[0]
    assert any(lost in told for told in report.left_out[1:]) if lost else not report.left_out[not same :]


def test_frames_that_carry_what_pyav_does_not_know_are_worked_on(tmp_path):
    """TIFF pictures in a film have EXIF beside them, which some releases of PyAV cannot name."""
    source = write_film(tmp_path / "in.mov", "tiff", "rgba", count=3, alpha=True)
    report = rewrite_video(source, tmp_path / "out.mov", lambda frames: frames)
    assert report.frames == 3 and "alpha" not in report.left_out
    with av.open(str(source)) as file:
        frame = next(file.decode(video=0))
    try:
        known = frame.side_data is not None
    except ValueError:
        known = False
    assert known or any("frames carry" in told for told in report.left_out)


FIELDS = [
    ("libx264", "yuv420p", ".mp4", "tff"), ("libx264", "yuv420p", ".ts", "bff"), ("libx264", "yuv422p", ".mkv", "tff"),
    ("mpeg2video", "yuv420p", ".ts", "tff"), ("mpeg2video", "yuv422p", ".mkv", "bff"),
    ("prores_ks", "yuv422p10le", ".mov", "tff"), ("mpeg4", "yuv420p", ".avi", "tff"),
    ("ffv1", "yuv420p", ".mkv", "tff"), ("libx264", "yuv420p", ".mp4", "bff"), ("libx264", "yuv420p", ".mkv", "bff"),
    ("libx264", "yuv420p", ".avi", "tff"), ("v210", "yuv422p10le", ".mov", "bff"),
]  # fmt: skip


@pytest.mark.parametrize(("encoder", "pix_fmt", "suffix", "order"), FIELDS, ids=["-".join(f) for f in FIELDS])
def test_fields_stay_apart_and_are_worked_on_apart(tmp_path, encoder, pix_fmt, suffix, order):
    """Even rows are light, odd ones dark: no picture may show both."""
    source = write_film(tmp_path / f"in{suffix}", encoder, pix_fmt, field_order=order)
    seen = []

    def look(frames):
        assert frames.rows[0] == slice(0 if order == "tff" else 1, None, 2)
        for frame in frames:
            seen.append((tuple(frame.shape[2:]), float(frame.mean())))
            yield frame * 1.5

    report = rewrite_video(source, tmp_path / f"out{suffix}", look)
    assert report.frames == LENGTH and [shape for shape, _ in seen] == [(32, 96)] * 2 * LENGTH
    light, dark = seen[0 if order == "tff" else 1][1], seen[1 if order == "tff" else 0][1]
    assert light > 4 * dark
    assert kind(tmp_path / f"out{suffix}") == kind(source) and kind(source)[2]
    made = frames_of(tmp_path / f"out{suffix}")[1][0]
    before = frames_of(source)[1][0]
    for row in (0, 1):
        assert made[row::2].mean() == pytest.approx(1.5 * before[row::2].mean(), rel=0.06)


def test_fields_that_nothing_can_keep_are_refused_before_the_work(tmp_path):
    source = write_film(
        tmp_path / "in.mkv", "libx265", options={"x265-params": "log-level=error:interlace=tff"}, field_order="tff"
    )
    if not kind(source)[2]:
        pytest.skip("this libx265 marks no fields")

    def work(frames):
        raise AssertionError("the work has begun")

    with pytest.raises(VideoFileError, match=r"in\.mkv.*interlaced.*deinterlace"):
        rewrite_video(source, tmp_path / "out.mkv", work)
    assert not (tmp_path / "out.mkv").exists()


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("encoder", ["libx264", "libx265", "libvpx-vp9"])
def test_films_of_a_frame_or_two(tmp_path, encoder, count):
    options = QUIET if encoder == "libx265" else {}
    source = write_film(tmp_path / "in.mp4", encoder, options=options, count=count)
    assert rewrite_video(source, tmp_path / "out.mp4", lambda frames: frames).frames == count
    assert len(frames_of(tmp_path / "out.mp4")[0]) == count


@pytest.mark.parametrize("damage", [b"avc1", b"stsd"])
def test_a_video_codec_that_nobody_knows_is_refused_by_name(tmp_path, damage):
    source = write_film(tmp_path / "in.mp4")
    data = source.read_bytes()
    source.write_bytes(data.replace(damage, b"zzz9"))
    with pytest.raises(VideoFileError, match=r"in\.mp4"):
        rewrite_video(source, tmp_path / "out.mp4", lambda frames: frames)
    assert not (tmp_path / "out.mp4").exists()


def test_pixel_formats_by_what_they_lose():
    assert losses("yuva444p12le", "yuv420p") == [
        "alpha", "4:4:4 colour sampling (written as 4:2:0)", "12 bits per channel (written with 8)"
    ]  # fmt: skip
    assert losses("yuv420p", "yuv444p10le") == [] and losses("gbrp", "yuv444p") == ["RGB (written as YUV)"]
    assert ranked("yuv422p10le", ["yuv420p", "yuv444p16le", "yuv422p", "gbrp10le"])[0] == "yuv444p16le"
    assert ranked("pal8", ["pal8", "monob", "rgb24", "rgba"])[0] == "rgba"


def test_what_hdr_says_of_displays_is_told(tmp_path):
    """HLG is worked on as it is; no encoder is told what its frames say besides."""
    display = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,1)"
    options = {"x265-params": f"log-level=error:master-display={display}:max-cll=1000,400"}
    source = write_film(tmp_path / "in.mp4", "libx265", "yuv420p10le", options, count=3)
    report = rewrite_video(source, tmp_path / "out.mp4", lambda frames: frames)
    assert report.left_out == ("the mastering display (HDR)", "the content light level (HDR)")
