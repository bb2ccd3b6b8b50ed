"""Video files through PyAV: the pictures are worked on, everything else in the file stays as it is."""

from __future__ import annotations

import logging
import os
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from av.codec.codec import UnknownCodecError
from av.sidedata.sidedata import Type as SideData
from av.video.stream import VideoStream
from torch import Tensor

from .pictures import VIDEO_FORMATS

logger = logging.getLogger(__name__)

# Close to what the eye can tell from the original; encoders that are not named here get a bit rate.
_QUALITY = {
    "libx264": {"crf": "17"}, "libx265": {"crf": "19", "x265-params": "log-level=error"},
    "libvpx-vp9": {"crf": "22", "b": "0"}, "libsvtav1": {"crf": "22"}, "ffv1": {}, "prores_ks": {},
}  # fmt: skip
_BITS_PER_PIXEL = 0.3
_FULL_RANGE, _PQ = 2, 16  # AVColorRange, AVColorTransferCharacteristic
# AVColorSpace -> the number of the matrix in swscale; what has no tag is read and written as BT.601, for no change.
_MATRIX = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9, 10: 9}
_RGB = "gbrp16le"  # through packed RGB the luma loses a whole level on the way there and back
_KEEPS_MATRIX = hasattr(VideoStream, "set_display_matrix")  # newer releases of PyAV


class VideoFileError(ValueError):
    """A video file cannot be read or written. The message names the file and says what to do."""


@dataclass(frozen=True)
class VideoReport:
    """What was written: size as stored (not as turned for display), number of frames."""

    width: int
    height: int
    frames: int


def rewrite_video(
    source: str | os.PathLike[str], target: str | os.PathLike[str], work: Callable[[Iterator[Tensor]], Iterator[Tensor]]
) -> VideoReport:
    """Write `source` again as `target`, in the container of its suffix, with other pictures.

    Sound and subtitles are copied packet by packet. Time stamps (constant or not), colour tags and levels, rotation,
    pixel shape and the names in the file are kept; so are codec and pixel format where there is an encoder for them.
    The target gets its name once everything is on disk.

    Args:
        work: frames in, as many of the same size out: (1, 3, H, W) float32 in [0, 1], upright. Called once; frames are
            read and written one by one as its iterator goes on.

    Raises:
        VideoFileError: missing, damaged, not a video, PQ (HDR), or the system's or FFmpeg's refusal.
    """
    source, target = Path(source), Path(target)
    if target.suffix.lower() not in VIDEO_FORMATS:
        raise VideoFileError(f"{target}: unknown suffix; choose one of {', '.join(VIDEO_FORMATS)}")
    temporary = target.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        matrix = _first_frame(source)
        with (
            av.open(str(source)) as reader,
            av.open(str(temporary), "w", format=VIDEO_FORMATS[target.suffix.lower()]) as writer,
        ):
            report = _Rewriter(source, reader, writer, matrix).run(work)
        os.replace(temporary, target)
    except (av.FFmpegError, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        raise VideoFileError(f"{source}: cannot be turned into {target}: {reason}") from error
    finally:
        temporary.unlink(missing_ok=True)
    return report


def _first_frame(path: Path) -> np.ndarray | None:
    """The display matrix (9,), which only frames carry. Raises VideoFileError for what cannot be worked on."""
    try:
        with av.open(str(path)) as reader:
            frame = next(reader.decode(_video_stream(path, reader)), None)
    except (av.FFmpegError, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        raise VideoFileError(f"{path}: not a video that can be read, or damaged: {reason}") from error
    if frame is None:
        raise VideoFileError(f"{path}: there is not a single frame in it; is the file damaged?")
    data = frame.side_data.get(SideData.DISPLAYMATRIX)
    return None if data is None else np.frombuffer(bytes(data), np.int32)


def _video_stream(path: Path, reader: Any) -> VideoStream:
    stream = reader.streams.best("video")
    if stream is None:
        raise VideoFileError(f"{path}: holds no video")
    if stream.codec_context.color_trc == _PQ:
        raise VideoFileError(f"{path}: HDR video (PQ) is not supported; convert it to SDR first")
    return stream


class _Rewriter:
    """One file on its way from `reader` to `writer` (PyAV containers)."""

    def __init__(self, path: Path, reader: Any, writer: Any, matrix: np.ndarray | None) -> None:
        self.path, self.reader, self.writer = path, reader, writer
        self.video = _video_stream(path, reader)
        self.video.thread_type = "AUTO"
        self.turns = _quarter_turns(matrix)
        self.times: deque[tuple[int | None, Fraction, int]] = deque()
        self.last = 0
        self.copies = {}
        for stream in (*reader.streams.audio, *reader.streams.subtitles):
            self.copies[stream.index] = writer.add_stream_from_template(stream)
            self.copies[stream.index].metadata.update(stream.metadata)
        self.encoded = self._add_video(matrix)
        names = {k: v for k, v in reader.metadata.items() if k not in _CONTAINERS_OWN}
        writer.metadata.update(names)

    def run(self, work: Callable[[Iterator[Tensor]], Iterator[Tensor]]) -> VideoReport:
        count, packets = 0, []
        for pixels in work(self._frames()):
            packets += self.encoded.encode(self._picture(pixels))
            self.writer.mux(packets[:-1])
            packets = packets[-1:]
            count += 1
        packets += self.encoded.encode(None)
        if packets and self.last:  # how long the last frame stays, which encoders forget
            packets[-1].duration = self.last
        self.writer.mux(packets)
        if count < 0.9 * (expected := self._expected()):
            raise VideoFileError(f"{self.path}: damaged, only {count} of its {expected} frames can be read")
        return VideoReport(self.encoded.width, self.encoded.height, count)

    def _expected(self) -> int:
        """How many frames the file says it shows; 0 where it does not say. Phones trim by hiding what they store."""
        if "mp4" not in self.reader.format.name:  # other containers' counts are estimates
            return 0
        entries = getattr(self.video, "index_entries", None)  # newer releases of PyAV
        if entries:
            return min(self.video.frames, sum(not entry.is_discard for entry in entries))
        shown = float((self.video.duration or 0) * self.video.time_base * (self.video.average_rate or 0))
        return min(self.video.frames, round(shown) or self.video.frames)

    def _frames(self) -> Iterator[Tensor]:
        """Decoded frames; what is not video goes straight to the target."""
        tags = {"src_colorspace": self.matrix, "src_color_range": self.range}
        for packet in self.reader.demux([self.video, *(self.reader.streams[i] for i in self.copies)]):
            if packet.stream.index == self.video.index:
                for frame in packet.decode():
                    self.times.append((frame.pts, frame.time_base, getattr(frame, "duration", None) or 0))
                    levels = frame.to_ndarray(format=_RGB, interpolation="BICUBIC", **tags)
                    pixels = torch.from_numpy(levels.astype(np.float32)).permute(2, 0, 1)[None] / 65535
                    yield pixels.rot90(self.turns, (2, 3))
            elif packet.dts is not None:  # the last one of each stream is empty
                packet.stream = self.copies[packet.stream.index]
                self.writer.mux(packet)

    def _picture(self, pixels: Tensor) -> av.VideoFrame:
        if _KEEPS_MATRIX:
            pixels = pixels.rot90(-self.turns, (2, 3))
        levels = (pixels[0].clamp(0, 1) * 65535).round().permute(1, 2, 0).cpu().numpy().astype(np.uint16)
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(levels), format=_RGB)
        context, tags = self.encoded.codec_context, {"dst_colorspace": self.matrix, "dst_color_range": self.range}
        frame = frame.reformat(format=context.pix_fmt, interpolation="AREA", **tags)
        frame.colorspace, frame.color_range = self.video.codec_context.colorspace, self.range
        frame.pts, tick, duration = self.times.popleft()
        frame.time_base = tick
        if duration:  # unknown in some containers, and to older releases of PyAV
            frame.duration = duration
        self.last = int(duration * tick / (context.time_base or tick))
        return frame

    def _add_video(self, matrix: np.ndarray | None) -> VideoStream:
        source, rate = self.video.codec_context, self.video.average_rate or self.video.guessed_rate
        encoder = _encoder(source.codec.canonical_name, self.writer)
        stored = source.pix_fmt or "yuv420p"
        pix_fmt = stored.replace("yuvj", "yuv")
        self.range = _FULL_RANGE if stored != pix_fmt or source.color_range == _FULL_RANGE else 1
        self.matrix = _MATRIX.get(source.colorspace, 5)
        formats = sorted(f.name for f in encoder.video_formats or ())
        if formats and pix_fmt not in formats:
            deep = source.format is not None and source.format.components[0].bits > 8
            likely = ["yuv420p10le"] * deep + ["yuv420p"]
            pix_fmt = next(name for name in (*likely, *formats) if name in formats)
        stream = self.writer.add_stream(encoder.name, rate=rate, options=dict(_QUALITY.get(encoder.name, {})))
        context = stream.codec_context
        turned = self.turns % 2 and not _KEEPS_MATRIX
        context.width, context.height = (source.height, source.width) if turned else (source.width, source.height)
        context.pix_fmt = pix_fmt
        if self.video.sample_aspect_ratio:
            context.sample_aspect_ratio = self.video.sample_aspect_ratio
        context.time_base = self.video.time_base
        if encoder.name not in _QUALITY:
            context.bit_rate = int(_BITS_PER_PIXEL * source.width * source.height * float(rate or 25))
        if encoder.name == "mpeg2video":
            context.time_base = _mpeg2_tick(self.video.guessed_rate or rate or Fraction(25))
        elif encoder.name.startswith("mpeg") and (context.time_base or Fraction(1)).denominator > 65535:
            context.time_base = Fraction(1, 60000)
        if encoder.name == "libx265" and self.writer.format.name in ("mp4", "mov") and source.codec_tag == "hvc1":
            context.codec_tag = "hvc1"  # or Apple's players refuse the file
        context.color_primaries, context.color_trc = source.color_primaries, source.color_trc
        context.colorspace, context.color_range = source.colorspace, source.color_range
        if matrix is not None and _KEEPS_MATRIX:
            stream.set_display_matrix(matrix.tolist())
        stream.metadata.update({k: v for k, v in self.video.metadata.items() if k not in _CONTAINERS_OWN})
        return stream


_MPEG2_RATES = [Fraction(rate, 1001) for rate in (24000, 24024, 25025, 30000, 30030, 50050, 60000, 60060)]
_CONTAINERS_OWN = {
    "major_brand", "minor_version", "compatible_brands", "encoder", "vendor_id", "handler_name", "DURATION", "ENCODER",
}  # fmt: skip


def _encoder(codec: str, writer: Any) -> av.Codec:
    """An encoder for the source's own codec, or else for what the container likes best."""
    listed, liked = writer.supported_codecs, writer.default_video_codec
    if writer.format.name == "mpegts":  # FFmpeg's list leaves out what is used most
        listed, liked = {*listed, "h264", "hevc", "mpeg2video"}, "h264"
    elif writer.format.name == "mov":  # on the list, but refused when it comes to writing
        listed = {*listed} - {"av1", "vp8", "vp9"}
    for name in (codec, liked, "libx264", "mpeg4"):
        try:
            if name in listed or name == "libx264":
                return av.Codec(name, "w")
        except UnknownCodecError:
            logger.info("this FFmpeg has no encoder for %s", name)
    raise VideoFileError(f"this build of PyAV has no video encoder for {writer.format.name}")


def _mpeg2_tick(rate: Fraction) -> Fraction:
    """The time base for MPEG-2, which knows these constant rates only; a frame may stay for several ticks."""
    return 1 / next((known for known in _MPEG2_RATES if known > rate * 0.9995), _MPEG2_RATES[-1])


def _quarter_turns(matrix: np.ndarray | None) -> int:
    """Counter-clockwise quarter turns that put a stored frame upright; 0 for other angles."""
    if matrix is None:
        return 0
    angle = np.degrees(np.arctan2(float(matrix[1]), float(matrix[0])))
    turns = -angle / 90
    return round(turns) % 4 if abs(turns - round(turns)) < 0.01 else 0
