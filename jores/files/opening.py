"""Opens a video: selects the video stream to enhance and its decoder, and inspects the first frames."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.sidedata.sidedata import SideDataContainer
from av.sidedata.sidedata import Type as SideData
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from .copying import for_ffmpeg, is_cover
from .fields import PROGRESSIVE, Rows, rows_in_time
from .tracks import packets_of

_PQ = 16  # AVColorTransferCharacteristic
_FRAMES_ASKED = 8  # frames that are inspected for interlacing and rotation


class VideoFileError(ValueError):
    """A video file cannot be read or written. The message names the file and says what to do."""


@dataclass(frozen=True)
class FirstFrames:
    """Properties of a video, from its first frames.

    Attributes:
        matrix: display matrix (9,), int32, or None.
        pix_fmt: FFmpeg's pixel format.
        rows: see `fields.rows_in_time`.
        size: width and height as stored.
        by_container: as in `encoders.Film`.
    """

    matrix: np.ndarray | None
    pix_fmt: str
    rows: Rows
    size: tuple[int, int]
    by_container: bool

    @property
    def turns(self) -> int:
        """See `quarter_turns`."""
        return quarter_turns(self.matrix)


def first_frames(path: Path) -> FirstFrames:
    """Inspects the first frames. Raises VideoFileError for a video that cannot be enhanced."""
    try:
        with av.open(for_ffmpeg(path)) as reader:
            stream = video_stream(path, reader)
            decode, frames, failure = decoder_of(stream), [], None
            for packet in packets_of(reader, stream):
                try:
                    frames += decode(packet)
                except av.FFmpegError as error:  # the next packets may be sound
                    failure = error
                if len(frames) >= _FRAMES_ASKED:
                    break
            if not frames and failure is not None:
                raise failure
            if not frames:
                raise VideoFileError(f"{path}: it has no frames; is the file damaged?")
            combed = next((frame for frame in frames if frame.interlaced_frame), frames[0])
            rows = rows_in_time(combed, getattr(stream.codec_context, "field_order", None))
    except (av.FFmpegError, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        raise VideoFileError(f"{path}: not a video that can be read, or damaged: {reason}") from error
    beside = side_data(frames[0])
    data = None if beside is None else beside.get(SideData.DISPLAYMATRIX)
    matrix = None if data is None else np.frombuffer(bytes(data), np.int32)
    if rows != PROGRESSIVE and (frames[0].height % 2 or quarter_turns(matrix)):
        message = "is rotated by a quarter turn" if quarter_turns(matrix) else "has an odd number of rows"
        raise VideoFileError(f"{path}: interlaced video that {message} is not supported; deinterlace it first")
    return FirstFrames(
        matrix, frames[0].format.name, rows, (frames[0].width, frames[0].height), not combed.interlaced_frame
    )


def video_stream(path: Path, reader: InputContainer) -> VideoStream:
    """FFmpeg's best video stream that is not cover art. Raises VideoFileError if there is none, or it is HDR (PQ)."""
    streams = [s for s in reader.streams.video if not is_cover(s)]
    known = [s for s in streams if s.codec_context is not None]
    if streams and not known:
        raise VideoFileError(f"{path}: its video is in a codec that FFmpeg does not know; convert it to H.264 first")
    best = reader.streams.best("video")
    stream = next((s for s in known if best is not None and s.index == best.index), next(iter(known), None))
    if stream is None:
        raise VideoFileError(f"{path}: holds no video")
    if stream.codec_context.color_trc == _PQ:
        raise VideoFileError(f"{path}: HDR video (PQ) is not supported; convert it to SDR first")
    return stream


def decoder_of(stream: VideoStream) -> Callable[[Any], list[Any]]:
    """A function from a packet to its frames. VP8 and VP9 with alpha need libvpx: FFmpeg's decoders ignore it."""
    name = {"vp8": "libvpx", "vp9": "libvpx-vp9"}.get(stream.codec_context.codec.canonical_name)
    if name and claims_alpha(stream) and name in av.codecs_available:
        decoder = av.CodecContext.create(name, "r")
        if isinstance(decoder, VideoCodecContext):
            return decoder.decode
    stream.thread_type = "NONE"  # with threads, an error names a later packet, and takes sound frames along at the end
    return lambda packet: packet.decode()


def side_data(frame: Any) -> SideDataContainer | None:
    """Side data of a frame; None if it has a type that this release of PyAV does not know (none is readable then)."""
    try:
        return frame.side_data
    except ValueError:
        return None


def claims_alpha(stream: VideoStream) -> bool:
    """Whether the tags of a stream say that it has alpha."""
    return {k.lower(): v for k, v in stream.metadata.items()}.get("alpha_mode") == "1"


def quarter_turns(matrix: np.ndarray | None) -> int:
    """Number of counter-clockwise quarter turns, 0..3, that rotate a stored frame upright; 0 for other angles."""
    if matrix is None:
        return 0
    angle = np.degrees(np.arctan2(float(matrix[1]), float(matrix[0])))
    turns = -angle / 90
    return round(turns) % 4 if abs(turns - round(turns)) < 0.01 else 0
