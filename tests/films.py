"""Small films of any kind, made with PyAV for the tests."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

from jores.imaging.lookahead import summarise

LENGTH, RATE, SIZE = 12, 25, (64, 96)
Audio = tuple[str, dict[str, str], int]
QUIET = {"x265-params": "log-level=error"}


def picture(number: int, size: tuple[int, int] = SIZE, alpha: bool = False, fields: bool = False) -> np.ndarray:
    """(H, W, 4) in 16 bits: a dark slope that grows lighter; under `alpha` more opaque to the right; under `fields`
    light on even and dark on odd rows.
    """
    height, width = size
    levels = np.zeros((height, width, 4), np.uint16)
    levels[..., 0] = 3000 + 400 * (number % 50)
    levels[..., 1] = np.arange(width) * 9000 // width
    levels[..., 2] = 4000
    levels[..., 3] = np.arange(width) * 65535 // width if alpha else 65535
    if fields:
        levels[0::2, :, :3], levels[1::2, :, :3] = 14000, 2000
    return levels


def write_film(
    path: Path,
    encoder: str = "libx264",
    pix_fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
    *,
    count: int = LENGTH,
    size: tuple[int, int] = SIZE,
    rate: int = RATE,
    times: Sequence[int] | None = None,
    tick: Fraction | None = None,
    start: float = 0,
    alpha: bool = False,
    field_order: str | None = None,
    audio: Iterable[Audio] = (),
    subtitles: Iterable[Audio] = (),
    chapters: bool = False,
    cover: tuple[str, bytes] | None = None,
    attachments: Iterable[tuple[str, str, bytes]] = (),
    words: dict[str, str] | None = None,
    video_words: dict[str, str] | None = None,
    flags: int = 1,
    second_video: bool = False,
    muxer: dict[str, str] | None = None,
) -> Path:
    """Writes what is asked for, `start` seconds late; skips the test where this FFmpeg cannot."""
    container = {".ts": "mpegts", ".mkv": "matroska", ".m4v": "mp4"}.get(path.suffix)
    try:
        with av.open(str(path), "w", format=container, options=muxer or {}) as file:
            file.metadata.update(words or {})
            video = _video(file, encoder, pix_fmt, options, size, rate, tick, field_order)
            video.disposition = flags
            video.metadata.update(video_words or {})
            other = _video(file, encoder, pix_fmt, options, (32, 48), rate, tick, None) if second_video else None
            sounds = [_track(file.add_stream(kind, rate=48000), *rest) for kind, *rest in audio]
            texts = [(kind, _track(file.add_mux_stream(kind), *rest)) for kind, *rest in subtitles]
            picture_stream = _cover(file, *cover) if cover else None
            for name, mimetype, data in attachments:
                file.add_attachment(name, mimetype, data)
            if chapters:
                file.set_chapters([_chapter(i, title) for i, title in enumerate(("One", "Two"))])
            step = tick or Fraction(1, rate)
            for number in range(count):
                due = (number if times is None else times[number]) + round(start / step)
                for stream, shape in ((video, size), (other, (32, 48))):
                    if stream is not None:
                        levels = picture(number, shape, alpha, bool(field_order))
                        file.mux(stream.encode(_frame(levels, pix_fmt, field_order, due, step)))
            for stream in (video, other):
                if stream is not None:
                    file.mux(stream.encode(None))
            for sound in sounds:
                _tone(file, sound, count / rate, start)
            for kind, text in texts:
                _text(file, kind, text, start)
            if picture_stream is not None:
                _mux(file, picture_stream, cover[1], 0, Fraction(1, 90000))
    except (av.codec.codec.UnknownCodecError, av.FFmpegError, ValueError) as error:
        pytest.skip(f"this FFmpeg cannot make {encoder} with {pix_fmt} in {path.suffix}: {error}")
    return path


def _video(file, encoder, pix_fmt, options, size, rate, tick, field_order) -> Any:
    flags = {"flags": "+ildct+ilme"} if field_order and encoder not in ("ffv1", "mjpeg", "libx265") else {}
    stream = file.add_stream(encoder, rate=rate, options={**flags, **(options or {})})
    context = stream.codec_context
    context.height, context.width, context.pix_fmt = *size, pix_fmt
    if tick:
        context.time_base = tick
    if field_order:
        context.field_order = 2 if field_order == "tff" else 3
    return stream


def _track(stream: Any, words: dict[str, str], flags: int) -> Any:
    stream.metadata.update(words)
    stream.disposition = flags
    return stream


def _cover(file: Any, kind: str, data: bytes) -> Any:
    stream = file.add_stream(kind)
    stream.width = stream.height = 16
    stream.pix_fmt, stream.time_base = "yuvj420p" if kind == "mjpeg" else "rgb24", Fraction(1, 90000)
    stream.disposition = 1024
    return stream


def _chapter(number: int, title: str) -> dict[str, Any]:
    times = {"start": number * 200, "end": number * 200 + 200, "time_base": Fraction(1, 1000)}
    return {"id": number + 1, "metadata": {"title": title}, **times}


def _frame(levels: np.ndarray, pix_fmt: str, field_order: str | None, due: int, tick: Fraction) -> Any:
    frame = av.VideoFrame.from_ndarray(levels, format="rgba64le").reformat(format=pix_fmt)
    if field_order:
        graph = av.filter.Graph()
        source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=tick)
        mark, sink = graph.add("setfield", field_order), graph.add("buffersink")
        source.link_to(mark)
        mark.link_to(sink)
        graph.configure()
        graph.push(frame)
        frame = graph.pull()
    frame.pts, frame.time_base = due, tick
    return frame


def _tone(file: Any, stream: Any, seconds: float, start: float) -> None:
    for first in range(0, int(48000 * seconds), 1024):
        wave = (np.sin((first + np.arange(2048) // 2) / 9) * 9000).astype(np.int16)[None]
        part = av.AudioFrame.from_ndarray(wave, format="s16", layout="stereo")
        part.sample_rate, part.pts, part.time_base = 48000, first + round(48000 * start), Fraction(1, 48000)
        file.mux(stream.encode(part))
    file.mux(stream.encode(None))


def _text(file: Any, kind: str, stream: Any, start: float) -> None:
    body = b"\0\5Hello" if kind == "mov_text" else b"Hello"
    for number in range(2):
        _mux(file, stream, body, number * 200 + round(1000 * start), Fraction(1, 1000), 150)


def _mux(file: Any, stream: Any, data: bytes, due: int, tick: Fraction, duration: int = 0) -> None:
    packet = av.Packet(data)
    packet.stream, packet.time_base, packet.duration = stream, tick, duration
    packet.pts = packet.dts = due
    file.mux(packet)


def join(target: Path, *parts: Path) -> Path:
    """Transport streams one behind the other, as `cat` does it."""
    target.write_bytes(b"".join(part.read_bytes() for part in parts))
    return target


def frames_of(path: Path, pix_fmt: str = "gbrp16le") -> tuple[list[float], list[np.ndarray]]:
    """Times in seconds, and levels 0..255 of the frames."""
    with av.open(str(path)) as file:
        frames = list(file.decode(video=0))
        return [float(f.time) for f in frames], [f.to_ndarray(format=pix_fmt).astype(float) / 257 for f in frames]


def packets_of(path: Path, kind: str, number: int = 0) -> list[tuple[float | None, bytes]]:
    with av.open(str(path)) as file:
        stream = getattr(file.streams, kind)[number]
        packets = [p for p in file.demux(stream) if p.size]
        return [(None if p.pts is None else float(p.pts * p.time_base), bytes(p)) for p in packets]


def is_cut(before: torch.Tensor, after: torch.Tensor) -> bool:
    """Whether a film that goes from one frame to the other changes its scene there."""
    return summarise(summarise(None, before), after).cut
