"""Video files of other kinds than H.264 in MP4: each keeps its codec, and what its players look for."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from jores.imaging.video_files import VideoFileError, rewrite_video

RATE, COUNT = 25, 50


def write_clip(path: Path, codec: str, options: dict[str, str] | None = None, tag: str | None = None) -> None:
    """Two seconds of a grey that grows lighter."""
    try:
        encoder = av.Codec(codec, "w").name
    except av.codec.codec.UnknownCodecError:
        pytest.skip(f"this build of PyAV has no encoder for {codec}")
    with av.open(str(path), "w", format={".ts": "mpegts", ".mkv": "matroska"}.get(path.suffix)) as file:
        stream = file.add_stream(encoder, rate=RATE, options=options or {})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        if tag:
            stream.codec_context.codec_tag = tag
        for i in range(COUNT):
            frame = av.VideoFrame.from_ndarray(np.full((64, 96, 3), 40 + 4 * i, np.uint8)).reformat(format="yuv420p")
            frame.pts, frame.time_base = i, Fraction(1, RATE)
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


def test_a_trimmed_clip_is_not_a_damaged_one(tmp_path):
    """Phones trim by an edit list: all frames are stored, the first second is not shown."""
    whole, trimmed, target = tmp_path / "whole.mp4", tmp_path / "trimmed.mp4", tmp_path / "out.mp4"
    write_clip(whole, "h264", {"bf": "0", "g": "50"})
    with av.open(str(whole)) as reader, av.open(str(trimmed), "w", options={"avoid_negative_ts": "disabled"}) as writer:
        stream = writer.add_stream_from_template(reader.streams.video[0])
        for packet in reader.demux(video=0):
            if packet.dts is not None:
                packet.pts, packet.dts = (int(t - 1 / packet.time_base) for t in (packet.pts, packet.dts))
                packet.stream = stream
                writer.mux(packet)
    with av.open(str(trimmed)) as file:
        stored, shown = file.streams.video[0].frames, len(list(file.decode(video=0)))
    assert (stored, shown) == (COUNT, COUNT // 2)
    assert rewrite_video(trimmed, target, lambda frames: frames).frames == shown
    (tmp_path / "cut.mp4").write_bytes(moov_first(trimmed)[:-2000])
    with pytest.raises(VideoFileError, match=r"cut\.mp4"):
        rewrite_video(tmp_path / "cut.mp4", target, lambda frames: frames)


def moov_first(path: Path) -> bytes:
    """The file with its index in front, so that a cut takes frames only."""
    moved = path.with_name("moved.mp4")
    with av.open(str(path)) as reader, av.open(str(moved), "w", options={"movflags": "faststart"}) as writer:
        stream = writer.add_stream_from_template(reader.streams.video[0])
        for packet in reader.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                writer.mux(packet)
    return moved.read_bytes()
