"""Video files, by PyAV: the pictures are replaced, all other tracks are copied if the container can hold them."""

from __future__ import annotations

import os
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from av.sidedata.sidedata import Type as SideData
from av.video.frame import supported_np_pix_fmts
from av.video.stream import VideoStream
from torch import Tensor

from .clock import FrameTimes, MonotonicTimes, Timeline, repair_times
from .copying import for_ffmpeg
from .damage import Damage, decoded
from .encoders import Film, NoEncoderError, choose
from .fields import PROGRESSIVE, Rows, take_field, weave
from .formats import has_alpha
from .opening import FirstFrames, VideoFileError, claims_alpha, decoder_of, first_frames, side_data, video_stream
from .saving import rename_atomically
from .suffixes import VIDEO_FORMATS
from .tracks import Tracks, differences, muxer_options, packets_of

_FULL_RANGE = 2  # AVColorRange
_SMALL = 64  # px, longer side of the pictures of the second pass (see `Pictures.again`)
_CARRIED = {
    SideData.A53_CC: "closed captions inside the pictures", SideData.S12M_TIMECODE: "time codes inside the pictures",
    SideData.STEREO3D: "stereo 3D", SideData.SPHERICAL: "360 degree video's projection",
    SideData.DYNAMIC_HDR_PLUS: "HDR10+", SideData.DOVI_METADATA: "Dolby Vision", SideData.AFD: "active format",
    SideData.ICC_PROFILE: "the colour profile", SideData.MASTERING_DISPLAY_METADATA: "the mastering display (HDR)",
    SideData.CONTENT_LIGHT_LEVEL: "the content light level (HDR)",
}  # fmt: skip
# AVColorSpace -> number of the matrix in swscale. Without a tag, BT.601 is used for reading and writing.
_MATRIX = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9, 10: 9}
_RGB = "gbrp16le"  # packed RGB would change the luma by one level in a round trip
_RGBA = "gbrap16le" if "gbrap16le" in supported_np_pix_fmts else "rgba64le"
_KEEPS_MATRIX = hasattr(VideoStream, "set_display_matrix")  # newer releases of PyAV


@dataclass(frozen=True)
class VideoReport:
    """What was written: size as stored (not rotated), number of frames, and descriptions of what was lost."""

    width: int
    height: int
    frames: int
    left_out: tuple[str, ...] = ()


class Pictures:
    """Iterator over the pictures of a video, (1, 3 or 4, H, W) float32 in [0, 1]. Fields are separate pictures.

    Attributes:
        rows: rows of the frame that successive pictures hold: all rows, or for interlaced video the rows of each field.
        again: an independent second pass over the same pictures, much smaller, which may run ahead of the first.
    """

    def __init__(self, pictures: Iterator[Tensor], rows: Rows, again: Iterator[Tensor]) -> None:
        self.pictures, self.rows, self.again = pictures, rows, again

    def __iter__(self) -> Pictures:
        return self

    def __next__(self) -> Tensor:
        return next(self.pictures)


def rewrite_video(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    work: Callable[[Pictures], Iterator[Tensor]],
    *,
    replace: bool = True,
) -> VideoReport:
    """Writes a copy of the video `source` with other pictures to `target`, in the container of its suffix.

    Codec, pixel format, alpha, interlacing, time stamps (constant or not), colour tags and range, rotation and pixel
    aspect are kept if there is an encoder for them. All other tracks are copied packet by packet with their flags and
    names, and so are chapters, attachments and cover art. The report lists what the container cannot hold. Parts of a
    joined recording, whose time stamps restart, are concatenated. An existing target is replaced only when the new file
    is complete.

    Args:
        work: maps the pictures to as many results of the same size: (1, 3, H, W) float32 in [0, 1], upright, or (1, 4,
            H, W) with straight alpha. It is called once; pictures are read and written one by one as its iterator
            advances.

    Raises:
        FileExistsError: the target exists, and `replace` is false.
        VideoFileError: the file is missing, damaged, not a video, in an unknown codec or HDR (PQ), it is interlaced and
            no encoder supports that, or the system or FFmpeg reports an error.
    """
    source, target = Path(source), Path(target)
    if target.suffix.lower() not in VIDEO_FORMATS:
        raise VideoFileError(f"{target}: unknown suffix; choose one of {', '.join(VIDEO_FORMATS)}")
    container = VIDEO_FORMATS[target.suffix.lower()]
    temporary = target.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        first = first_frames(source)
        with av.open(for_ffmpeg(source)) as reader:
            rewriter = _Rewriter(source, reader, container, target.suffix, first)
            options = rewriter.tracks.options
            with av.open(for_ffmpeg(temporary), "w", format=container, options=dict(options)) as writer:
                rewriter.begin(writer)
                report = rewriter.run(work)
            report = rewriter.compared(temporary, report)
        rename_atomically(temporary, target, replace=replace)
    except FileExistsError:
        raise
    except (av.FFmpegError, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        raise VideoFileError(f"{source}: cannot be turned into {target}: {reason}") from error
    finally:
        temporary.unlink(missing_ok=True)
    return report


class _Rewriter:
    """Rewrites one file from `reader` (PyAV) to a container, given by FFmpeg's name."""

    def __init__(self, path: Path, reader: Any, container: str, suffix: str, first: FirstFrames) -> None:
        self.path, self.reader, self.container, self.first = path, reader, container, first
        self.video = video_stream(path, reader)
        self.decode = decoder_of(self.video)
        self.turns = first.turns
        self.times: deque[tuple[int, Fraction, int]] = deque()
        self.last, self.sent, self.decoded = 0, None, None
        self.lost: dict[str, None] = {}  # each once, in the order in which it was found
        full = "yuvj" in first.pix_fmt or self.video.codec_context.color_range == _FULL_RANGE
        self.range = _FULL_RANGE if full else 1
        self.film = self._film()
        self.damage = Damage(path, reader, self.video, float(self.film.rate or 25))
        self.alpha = has_alpha(self.film.pix_fmt)
        self.matrix = _MATRIX.get(self.video.codec_context.colorspace, 5)
        try:
            self.tracks = Tracks(str(path), reader, container, self.video, muxer_options(reader, container))
            self.encoding = choose(self.film, container, suffix, self.tracks.options)
        except NoEncoderError as error:
            raise VideoFileError(f"{path}: {error}") from error
        if self.encoding.yuv and self.film.tags[2] == 0:  # 0 means RGB
            tags = (*self.film.tags[:2], 2, self.film.tags[3])
            self.film = replace(self.film, tags=tags)
        if not self.alpha and claims_alpha(self.video):
            self.lost["alpha"] = None

    def _film(self) -> Film:
        """The film as an encoder needs to know it."""
        source, pix_fmt = self.video.codec_context, self.first.pix_fmt.replace("yuvj", "yuv")
        turned = self.turns % 2 and not _KEEPS_MATRIX
        width, height = self.first.size[::-1] if turned else self.first.size
        stated = self.range if self.range == _FULL_RANGE else source.color_range  # an unknown one stays unknown
        tags = source.color_primaries, source.color_trc, source.colorspace, stated
        rate, steady = self.video.average_rate or self.video.guessed_rate, self.video.guessed_rate
        return Film(
            source.codec.canonical_name, pix_fmt, width, height, rate, steady, self.video.time_base or Fraction(1),
            self.first.rows, self.first.by_container, source.profile, source.codec_tag, source.bit_rate or 0,
            self.video.sample_aspect_ratio or None, tags,
        )  # fmt: skip

    def begin(self, writer: Any) -> None:
        self.writer = writer
        self.encoded = self.tracks.add_to(writer, self._add_video)

    def _add_video(self) -> VideoStream:
        stream = self.encoding.add_to(self.writer, self.film)
        if self.first.matrix is not None and _KEEPS_MATRIX:
            stream.set_display_matrix(self.first.matrix.tolist())
        return stream

    def run(self, work: Callable[[Pictures], Iterator[Tensor]]) -> VideoReport:
        count, packets, fields = 0, [], []
        for pixels in work(Pictures(self._pictures(), self.film.rows, self._small())):
            fields.append(self._levels(pixels))
            if len(fields) < len(self.film.rows):
                continue
            packets += self._encode(self._frame(fields))
            self.writer.mux(packets[:-1])
            packets, fields = packets[-1:], []
            count += 1
        packets += self._encode(None)
        if packets and self.last:  # encoders lose the duration of the last frame
            packets[-1].duration = self.last
        self.writer.mux(packets)
        return VideoReport(self.encoded.width, self.encoded.height, count)

    def _encode(self, frame: av.VideoFrame | None) -> list[Any]:
        packets = self.encoded.encode(frame)
        self.decoded = repair_times(packets, self.decoded)
        return packets

    def compared(self, written: Path, report: VideoReport) -> VideoReport:
        """The report with a description of everything that the written file lost."""
        self.tracks.complete(written)
        lost = [*self.damage.report(), *self.encoding.left_out, *self.tracks.left_out, *self.lost]
        with av.open(for_ffmpeg(written), format=self.container) as target:
            lost += differences(self.reader, target, self.tracks.absent())
        return replace(report, left_out=tuple(dict.fromkeys(lost)))

    def _pictures(self) -> Iterator[Tensor]:
        """Decoded pictures; packets of other tracks are written to the target immediately."""
        timeline = Timeline(self.reader.format.name)
        monotonic = MonotonicTimes(strict=self.container not in ("matroska", "webm"))
        tick = self.video.time_base or Fraction(1)
        step = max(1, round(1 / Fraction(self.film.rate or 25) / tick))
        times = FrameTimes(step, stamped=self.reader.format.name != "avi")
        copies, damage = self.tracks.copies, self.damage
        for packet in damage.packets(packets_of(self.reader, self.video, self.reader.streams)):
            is_video = packet.stream.index == self.video.index
            if is_video or packet.stream.index in copies:
                timeline(packet)
            damage.packet(packet, len(timeline.shifts))
            if is_video:
                times.packet(packet)
                if (frames := decoded(self.decode, packet)) is None:
                    times.failed(packet)
                    damage.failure()
                for frame in frames or ():
                    duration = getattr(frame, "duration", None) or 0
                    self.times.append((times.frame(frame.pts), tick, duration))
                    damage.frame(float(self.times[-1][0] * tick))
                    yield from self._read(frame)
            elif packet.stream.index in copies:
                packet.stream = copies[packet.stream.index]
                self.writer.mux(monotonic(packet))
        self.writer.mux(monotonic.rest())

    def _small(self) -> Iterator[Tensor]:
        """The second pass: as `_pictures`, but small, (1, 3, h, w), and not rotated upright."""
        with av.open(for_ffmpeg(self.path)) as reader:
            video = reader.streams[self.video.index]
            decode, shrink = decoder_of(video), max(1.0, max(self.first.size) / _SMALL)
            size = {"width": round(self.first.size[0] / shrink) or 1, "height": round(self.first.size[1] / shrink) or 1}
            tags = {"src_colorspace": self.matrix, "src_color_range": self.range, "interpolation": "AREA"}
            for packet in self.damage.packets(packets_of(reader, video)):
                for frame in decoded(decode, packet) or ():
                    levels = frame.reformat(**size, format=_RGB, **tags).to_ndarray().astype(np.float32)
                    for _ in self.film.rows:
                        yield torch.from_numpy(levels).permute(2, 0, 1)[None] / 65535

    def _read(self, frame: Any) -> Iterator[Tensor]:
        """The picture of a frame, or its two fields."""
        sizes = self.first.size, (frame.width, frame.height)
        if sizes[0] != sizes[1]:
            shown = " and ".join("{}x{}".format(*size) for size in sizes)
            raise VideoFileError(
                f"{self.path}: the size of its pictures changes ({shown}); split it into one video per size"
            )
        beside = side_data(frame)
        if beside is None:
            self.lost["what its frames carry besides their pictures (EXIF?)"] = None
        for kind, name in _CARRIED.items():
            if beside is not None and beside.get(kind) is not None:
                self.lost[name] = None
        if frame.interlaced_frame and self.film.rows == PROGRESSIVE:
            self.lost["interlacing of frames in a film that begins without"] = None
        tags = {"src_colorspace": self.matrix, "src_color_range": self.range}
        for rows in self.film.rows:
            field = frame if self.film.rows == PROGRESSIVE else take_field(frame, rows)
            levels = field.to_ndarray(format=_RGBA if self.alpha else _RGB, interpolation="BICUBIC", **tags)
            pixels = torch.from_numpy(levels.astype(np.float32)).permute(2, 0, 1)[None] / 65535
            yield pixels.rot90(self.turns, (2, 3))

    def _levels(self, pixels: Tensor) -> av.VideoFrame:
        """Converts a picture to a frame in the pixel format of the target."""
        if _KEEPS_MATRIX:
            pixels = pixels.rot90(-self.turns, (2, 3))
        levels = (pixels[0].clamp(0, 1) * 65535).round().permute(1, 2, 0).cpu().numpy().astype(np.uint16)
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(levels), format=_RGBA if self.alpha else _RGB)
        tags = {"dst_colorspace": self.matrix, "dst_color_range": self.range}
        frame = frame.reformat(format=self.encoding.pix_fmt, interpolation="AREA", **tags)
        frame.colorspace, frame.color_range = self.film.tags[2], self.range
        return frame

    def _frame(self, fields: list[av.VideoFrame]) -> av.VideoFrame:
        """The frame for the encoder, with its time stamp in the encoder's ticks."""
        frame = fields[0] if self.film.rows == PROGRESSIVE else weave(fields, self.film.rows)
        pts, tick, duration = self.times.popleft()
        pts = round(pts * tick / self.encoding.tick)
        self.sent = pts if self.sent is None else max(pts, self.sent + 1)
        self.last = int(duration * tick / self.encoding.tick)
        frame.pts, frame.time_base = self.sent, self.encoding.tick
        if duration:  # unknown in some containers and older releases of PyAV
            frame.duration = self.last
        return frame
