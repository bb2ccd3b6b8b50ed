"""Chooses an encoder for a video: with the source's codec, chroma sampling, bit depth and alpha, if possible.

Which combinations of encoder and container work is tested by encoding two frames in memory.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.codec.codec import UnknownCodecError

from .clock import repair_times
from .fields import BOTTOM_FIRST, FIELDS, PROGRESSIVE, Rows, marked
from .formats import has_alpha, losses, ranked

logger = logging.getLogger(__name__)

# Visually nearly lossless. Encoders that are not listed here get a bit rate.
_FINE = {"flags": "+qscale", "global_quality": str(2 * 118)}  # the second best of 31 levels
_QUALITY = {
    "libx264": {"crf": "17"}, "libx264rgb": {"crf": "17"}, "libx265": {"crf": "19", "x265-params": "log-level=error"},
    "libvpx-vp9": {"crf": "22", "b": "0"}, "libsvtav1": {"crf": "22"}, "libaom-av1": {"crf": "22", "b": "0"},
    "ffv1": {}, "prores_ks": {}, "dnxhd": {}, "mjpeg": _FINE, "huffyuv": {}, "ffvhuff": {}, "utvideo": {}, "qtrle": {},
    "png": {}, "rawvideo": {}, "v210": {}, "v410": {}, "r210": {}, "magicyuv": {}, "dvvideo": {}, "jpeg2000": {},
    "cfhd": {}, "zmbv": {}, "flashsv": {}, "cinepak": {}, "ljpeg": {}, "snow": _FINE,
}  # fmt: skip
_BITS_PER_PIXEL = 0.3
_ENCODERS = {
    "h264": ("libx264", "libx264rgb"), "hevc": ("libx265",), "vp9": ("libvpx-vp9",), "vp8": ("libvpx",),
    "av1": ("libsvtav1", "libaom-av1"), "prores": ("prores_ks",), "msmpeg4v3": ("msmpeg4",), "flv1": ("flv",),
}  # fmt: skip
_PRORES = {"apco": "proxy", "apcs": "lt", "apcn": "standard", "apch": "hq", "ap4h": "4444", "ap4x": "4444xq"}
_DNXHD_MEGABITS = (36, 45, 60, 75, 80, 90, 100, 110, 115, 120, 145, 175, 180, 185, 220, 240, 290, 350, 365, 390, 440)
_MPEG_RATES = [Fraction(rate, 1001) for rate in (24000, 24024, 25025, 30000, 30030, 50050, 60000, 60060)]
_IN_TRANSPORT_STREAMS = {"mpeg1video", "mpeg2video", "mpeg4", "h264", "hevc", "jpeg2000"}
_NOT_IN_MOV = {"av1", "vp8", "vp9"}
_INTERLACED = "+ildct+ilme"
_REFUSALS = (av.FFmpegError, ValueError, OSError, OverflowError, NotImplementedError, RuntimeError)


class NoEncoderError(ValueError):
    """No encoder in this build of PyAV can write the video. The message does not name the file."""


@dataclass(frozen=True)
class Film:
    """Properties of a source's video stream.

    Attributes:
        codec: FFmpeg's name.
        pix_fmt: FFmpeg's pixel format, without the "j" of full range.
        rate: mean frames per second, None if unknown.
        steady: nominal frames per second, without gaps; None if unknown.
        tick: unit of the time stamps in seconds.
        rows: see `fields.rows_in_time`.
        by_container: only the container says that the video is interlaced, the frames do not.
        profile, codec_tag, bit_rate: FFmpeg's values.
        aspect: aspect ratio of a pixel, None if unknown.
        tags: FFmpeg's numbers for primaries, transfer, matrix and range.
    """

    codec: str
    pix_fmt: str
    width: int
    height: int
    rate: Fraction | None
    steady: Fraction | None
    tick: Fraction
    rows: Rows = PROGRESSIVE
    by_container: bool = False
    profile: str | None = None
    codec_tag: str = ""
    bit_rate: int = 0
    aspect: Fraction | None = None
    tags: tuple[int, int, int, int] = (2, 2, 2, 0)


@dataclass(frozen=True)
class Encoding:
    """Settings of the encoder. `left_out` describes what of the source's format is lost."""

    encoder: str
    pix_fmt: str
    tick: Fraction
    options: dict[str, str] = field(default_factory=dict)
    bit_rate: int | None = None
    left_out: tuple[str, ...] = ()

    @property
    def yuv(self) -> bool:
        """Whether the pixel format has luma and chroma."""
        shown = av.VideoFormat(self.pix_fmt)
        return not shown.is_rgb and len(shown.components) > 2

    def add_to(self, writer: Any, film: Film) -> Any:
        """Adds a video stream to `writer` (PyAV) and returns it, opened for frames."""
        stream = writer.add_stream(self.encoder, rate=film.rate, options=dict(self.options))
        context = stream.codec_context
        context.width, context.height, context.pix_fmt = film.width, film.height, self.pix_fmt
        context.time_base = self.tick
        if film.aspect:
            context.sample_aspect_ratio = film.aspect
        if self.bit_rate:
            context.bit_rate = self.bit_rate
        if self.encoder == "libx265" and writer.format.name in ("mp4", "mov") and film.codec_tag == "hvc1":
            context.codec_tag = "hvc1"  # Apple's players need this tag
        if film.rows != PROGRESSIVE and hasattr(type(context), "field_order"):
            context.field_order = 3 if film.rows == BOTTOM_FIRST else 2
        context.color_primaries, context.color_trc, context.colorspace, context.color_range = film.tags
        with ordinary_threads():
            context.open()
        return stream


@contextlib.contextmanager
def ordinary_threads() -> Iterator[None]:
    """Restores the scheduling policy of this process's threads on exit; new threads get that of the caller.

    SVT-AV1 run as root, as in many containers, gives its own threads and the caller's real-time priority permanently,
    which would block all other programs.
    """
    if not hasattr(os, "sched_getscheduler"):  # SVT-AV1 does so on Linux only
        yield
        return
    before = {thread: _scheduling(thread) for thread in _threads()}
    own = _scheduling(0)
    try:
        yield
    finally:
        for thread in _threads():
            usual = before.get(thread) or own
            if usual and _scheduling(thread) not in (usual, None):
                os.sched_setscheduler(thread, usual[0], os.sched_param(usual[1]))


def _threads() -> list[int]:
    try:
        return [int(name) for name in os.listdir("/proc/self/task")]
    except OSError:  # the folder exists on Linux only
        return [0]


def _scheduling(thread: int) -> tuple[int, int] | None:
    """Policy and priority; None for a thread that has ended."""
    try:
        return os.sched_getscheduler(thread), os.sched_getparam(thread).sched_priority
    except ProcessLookupError:
        return None


def choose(film: Film, container: str, suffix: str, options: dict[str, str]) -> Encoding:
    """The best encoding of `film` for a container (FFmpeg's name) and options of its muxer.

    Raises:
        NoEncoderError: no encoder works, or none supports interlacing if the video is interlaced.
    """
    for name in _names(film, container):
        for encoding in _encodings(name, film, container):
            if _works(encoding, film, container, options):
                kind = av.Codec(name, "w").canonical_name
                changed = () if kind == film.codec else (f"the codec {film.codec} (written as {kind})",)
                return replace(encoding, left_out=(*changed, *losses(film.pix_fmt, encoding.pix_fmt)))
    if film.rows != PROGRESSIVE:
        fault = f"the video is interlaced, and no available encoder can write interlaced {film.codec} video to {suffix}"
        raise NoEncoderError(f"{fault}; deinterlace it first, for instance with ffmpeg -vf bwdif")
    raise NoEncoderError(f"no available encoder can write {film.width}x{film.height} {film.codec} video to {suffix}")


def _names(film: Film, container: str) -> Iterator[str]:
    """Encoders to try: those of the source's codec, then those of the container's default codec."""
    seen = set()
    with av.open(io.BytesIO(), "w", format=container) as writer:
        liked = "h264" if container == "mpegts" else writer.default_video_codec
    # Muxers accept more than players can play: a transport stream takes any codec as private data.
    playable = film.codec in _IN_TRANSPORT_STREAMS if container == "mpegts" else film.codec not in _NOT_IN_MOV
    codecs = [film.codec] if playable or container not in ("mpegts", "mov") else []
    for codec in (*codecs, *(() if film.rows != PROGRESSIVE and codecs else (liked, "h264", "mpeg4"))):
        for name in _ENCODERS.get(codec, (codec,)):
            try:
                name = av.Codec(name, "w").name
            except UnknownCodecError:
                logger.info("this build of FFmpeg has no encoder %s", name)
                continue
            if name not in seen:
                seen.add(name)
                yield name


def _encodings(name: str, film: Film, container: str) -> Iterator[Encoding]:
    """Settings for one encoder, the closest to the source first."""
    formats = [f.name for f in av.Codec(name, "w").video_formats or ()] or [film.pix_fmt, "yuv420p"]
    fitting = ranked(film.pix_fmt, formats)
    if name == "libx264" and film.pix_fmt.startswith(("gbr", "rgb", "bgr")) and not losses(film.pix_fmt, "bgr24"):
        return  # libx264rgb keeps RGB
    for pix_fmt in fitting[:3]:
        for tick in _ticks(name, film, container):
            for special, bit_rate in _special(name, film, pix_fmt):
                options = {**_QUALITY.get(name, {}), **special}
                if film.rows != PROGRESSIVE and not film.by_container:
                    options["flags"] = options.get("flags", "") + _INTERLACED
                if container == "avi":
                    options["bf"] = "0"  # no B-frames: AVI cannot store the times of reordered frames
                yield Encoding(name, pix_fmt, tick, options, bit_rate)


def _ticks(name: str, film: Film, container: str) -> list[Fraction]:
    rate = Fraction(film.steady or film.rate or 25).limit_denominator(1001)
    if name in ("mpeg1video", "mpeg2video"):  # these formats allow only certain rates; a frame may last several ticks
        return [1 / next((known for known in _MPEG_RATES if known > rate * 0.9995), _MPEG_RATES[-1])]
    steady = 1 / rate
    if container == "avi":
        return [steady]
    if name.startswith("mpeg") and film.tick.denominator > 65535:
        return [Fraction(1, 60000), steady]
    return [film.tick, steady]


def _special(name: str, film: Film, pix_fmt: str) -> list[tuple[dict[str, str], int | None]]:
    """Alternatives of options that depend on the source, each with a bit rate for encoders that need one."""
    if name == "prores_ks":
        alpha = {"alpha_bits": "16"} if has_alpha(pix_fmt) else {}
        known = {"profile": _PRORES[film.codec_tag]} if film.codec_tag in _PRORES else {}
        return [({"vendor": "apl0", **alpha, **known}, None), (alpha, None)]
    if name == "dnxhd":
        fine = {"yuv422p": "dnxhr_hq", "yuv422p10le": "dnxhr_hqx"}.get(pix_fmt, "dnxhr_444")
        wanted = (film.profile or "").lower().replace(" ", "_")
        fixed = film.bit_rate / 1e6
        old: list[tuple[dict[str, str], int | None]]
        old = [({"profile": "dnxhd"}, m * 10**6) for m in sorted(_DNXHD_MEGABITS, key=lambda m: abs(m - fixed))]
        scalable: list[tuple[dict[str, str], int | None]]
        scalable = [({"profile": p}, None) for p in dict.fromkeys((wanted, fine)) if p.startswith("dnxhr")]
        return scalable if wanted.startswith("dnxhr") else [*old, *scalable]
    if name in _QUALITY:
        return [({}, None)]
    return [({}, int(_BITS_PER_PIXEL * film.width * film.height * float(film.rate or 25)))]


def _works(encoding: Encoding, film: Film, container: str, options: dict[str, str]) -> bool:
    """Whether two black frames can be encoded, and are still marked as interlaced, if they should be, when decoded."""
    file = io.BytesIO()
    try:
        with av.open(file, "w", format=container, options=dict(options)) as writer:
            stream = encoding.add_to(writer, film)
            step = max(1, round(1 / Fraction(film.rate or 25) / encoding.tick))
            last = None
            for number in range(2):
                black = np.zeros((film.height, film.width, 3), np.uint8)
                frame = av.VideoFrame.from_ndarray(black).reformat(format=encoding.pix_fmt)
                frame = marked(frame, film.rows)
                frame.pts, frame.time_base = number * step, encoding.tick
                last = _mux(writer, stream.encode(frame), last)
            _mux(writer, stream.encode(None), last)
        if film.rows == PROGRESSIVE:
            return True
        with av.open(io.BytesIO(file.getvalue()), format=container) as reader:
            return _says_interlaced(reader, film.by_container)
    except _REFUSALS as error:
        logger.info("%s in %s with %s: %s", encoding.encoder, container, encoding.pix_fmt, error)
        return False


def _mux(writer: Any, packets: list[Any], before: int | None) -> int | None:
    before = repair_times(packets, before)
    writer.mux(packets)
    return before


def _says_interlaced(reader: Any, by_container: bool) -> bool:
    stream = reader.streams.video[0]
    frames = [frame for packet in reader.demux(stream) for frame in packet.decode()]
    said = by_container and getattr(stream.codec_context, "field_order", 0) in FIELDS
    return bool(frames) and (said or all(frame.interlaced_frame for frame in frames))
