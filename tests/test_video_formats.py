"""Video files of other kinds than H.264 in MP4: each keeps its codec, and what its players look for."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from jores.files.clips import VideoFileError, rewrite_video

pytestmark = pytest.mark.slow

RATE, COUNT = 25, 50


def write_clip(
    path: Path, codec: str, options: dict[str, str] | None = None, tag: str | None = None, rate: Fraction | int = RATE,
    times: list[int] | None = None,
) -> None:  # fmt: skip
    """COUNT frames of a grey that grows lighter, at `rate` or at these milliseconds."""
    try:
        encoder = av.Codec(codec, "w").name
    except av.codec.codec.UnknownCodecError:
        pytest.skip(f"this build of PyAV has no encoder for {codec}")
    with av.open(str(path), "w", format={".ts": "mpegts", ".mkv": "matroska"}.get(path.suffix)) as file:
        stream = file.add_stream(encoder, rate=rate, options=options or {})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        tick = Fraction(1, 1000) if times else 1 / Fraction(rate)
        stream.codec_context.time_base = tick
        if tag:
            stream.codec_context.codec_tag = tag
        for i in range(COUNT):
            frame = av.VideoFrame.from_ndarray(np.full((64, 96, 3), 40 + 4 * i, np.uint8)).reformat(format="yuv420p")
            frame.pts, frame.time_base = times[i] if times else i, tick
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))


def facts(path: Path) -> tuple[str, list[float], list[float]]:
    """Codec, times from the first frame on, mean levels."""
    with av.open(str(path)) as file:
        frames = list(file.decode(video=0))
        times = [float(frame.time - frames[0].time) for frame in frames]
        means = [float(frame.to_ndarray(format="gray").mean()) for frame in frames]
        return file.streams.video[0].codec_context.codec.canonical_name, times, means


@pytest.mark.parametrize(
    ("codec", "suffix"),
    [("h264", ".ts"), ("hevc", ".ts"), ("mpeg2video", ".ts"), ("mpeg2video", ".mkv"), ("mpeg2video", ".mov"),
     ("mpeg4", ".avi"), ("vp9", ".webm"), ("av1", ".mp4"), ("hevc", ".mkv"), ("h264", ".mov")],
)  # fmt: skip
def test_codecs_stay_what_they_are(tmp_path, codec, suffix):
    source, target = tmp_path / f"in{suffix}", tmp_path / f"out{suffix}"
    write_clip(source, codec)
    assert rewrite_video(source, target, lambda frames: frames).frames == COUNT
    (kind, times, means), (kind_after, times_after, means_after) = facts(source), facts(target)
    assert kind_after == kind == codec
    assert times_after == pytest.approx(times, abs=2e-3) and means_after == pytest.approx(means, abs=4)


@pytest.mark.parametrize("tag", ["hvc1", "hev1"])
@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
def test_hevc_keeps_the_tag_that_apple_looks_for(tmp_path, tag, suffix):
    source, target = tmp_path / f"in{suffix}", tmp_path / f"out{suffix}"
    write_clip(source, "hevc", {"x265-params": "log-level=error"}, tag)
    rewrite_video(source, target, lambda frames: frames)
    with av.open(str(target)) as file:
        assert file.streams.video[0].codec_context.codec_tag == tag


@pytest.mark.parametrize(
    ("codec", "source", "target", "kind"),
    [("h264", ".mp4", ".webm", "vp9"), ("hevc", ".mp4", ".avi", "mpeg4"), ("hevc", ".mp4", ".mkv", "hevc"),
     ("vp9", ".webm", ".mov", "h264"), ("av1", ".mp4", ".mov", "h264"), ("vp9", ".webm", ".ts", "h264")],
)  # fmt: skip
def test_a_container_that_cannot_hold_the_codec_gets_another(tmp_path, codec, source, target, kind):
    source, target = tmp_path / f"in{source}", tmp_path / f"out{target}"
    write_clip(source, codec, tag="hvc1" if codec == "hevc" else None)
    assert rewrite_video(source, target, lambda frames: frames).frames == COUNT
    assert facts(target)[0] == kind


@pytest.mark.parametrize("suffix", [".ts", ".mkv", ".mp4"])
@pytest.mark.parametrize("rate", [Fraction(24000, 1001), Fraction(60000, 1001)])
def test_mpeg2_at_the_rates_of_film_and_television(tmp_path, rate, suffix):
    source, target = tmp_path / f"in{suffix}", tmp_path / f"out{suffix}"
    write_clip(source, "mpeg2video", rate=rate)
    rewrite_video(source, target, lambda frames: frames)
    assert facts(target)[1] == pytest.approx(facts(source)[1], abs=2e-3)


def test_mpeg2_with_frames_missing_keeps_its_times(tmp_path):
    whole, source, target = tmp_path / "whole.mp4", tmp_path / "in.mp4", tmp_path / "out.mp4"
    write_clip(whole, "mpeg2video", {"g": "1"})
    copy(whole, source, lambda number: number < 20 or number % 3 == 0)
    rewrite_video(source, target, lambda frames: frames)
    assert facts(target)[1] == pytest.approx(facts(source)[1], abs=2e-3)


EVEN = [i * 1000 // RATE for i in range(COUNT)]
SLOWER = [i * 20 if i < 25 else 500 + (i - 25) * 100 for i in range(COUNT)]


@pytest.mark.parametrize(("times", "start"), [(EVEN, Fraction(1)), (SLOWER, Fraction(1, 2))])
def test_a_trimmed_clip_is_not_a_damaged_one(tmp_path, times, start):
    """Phones trim by an edit list: all frames are stored, the first half of them is not shown."""
    whole, trimmed, target = tmp_path / "whole.mp4", tmp_path / "trimmed.mp4", tmp_path / "out.mp4"
    write_clip(whole, "h264", {"bf": "0", "g": "50"}, times=times)
    copy(whole, trimmed, start=start)
    with av.open(str(trimmed)) as file:
        stored, shown = file.streams.video[0].frames, len(list(file.decode(video=0)))
    assert (stored, shown) == (COUNT, COUNT // 2)
    assert rewrite_video(trimmed, target, lambda frames: frames).frames == shown


@pytest.mark.parametrize("start", [0, 1])
def test_a_truncated_clip_is_damaged_trimmed_or_not(tmp_path, start):
    whole, source, cut = tmp_path / "whole.mp4", tmp_path / "in.mp4", tmp_path / "cut.mp4"
    write_clip(whole, "h264", {"bf": "0", "g": "50"})
    copy(whole, source, start=Fraction(start), options={"movflags": "faststart"})
    data, due, told = source.read_bytes(), COUNT - RATE * start, []
    for lost in range(500, 2001, 300):  # the index comes first, so that frames alone are cut off
        cut.write_bytes(data[:-lost])
        try:
            report = rewrite_video(cut, tmp_path / "out.mp4", lambda frames: frames)
        except VideoFileError as error:  # the first frame was cut, or all that is shown
            assert "cut.mp4" in str(error)
        else:
            ends = f"{report.frames} frames, it ends at {report.frames / RATE:.1f} s of {due / RATE:.1f} s"
            assert report.frames < due and report.left_out == (f"damaged: {ends}",)
            told.append(ends)
    assert told


def copy(source, target, wanted=lambda number: True, start=Fraction(0), options=None) -> None:
    """The wanted packets as they are, `start` seconds earlier: what falls before 0 is stored and not shown."""
    with av.open(str(source)) as reader, av.open(str(target), "w", options=options or {}) as writer:
        stream = writer.add_stream_from_template(reader.streams.video[0])
        for number, packet in enumerate(reader.demux(video=0)):
            if packet.dts is not None and wanted(number):
                packet.pts, packet.dts = (int(t - start / packet.time_base) for t in (packet.pts, packet.dts))
                packet.stream = stream
                writer.mux(packet)
