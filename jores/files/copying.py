"""Copies of tracks: which of them a container can hold, tried in memory, and how messages call them."""

from __future__ import annotations

import contextlib
import io
import itertools
import logging
import os
from collections.abc import Iterator
from typing import Any

import av
from av.container import InputContainer
from av.stream import Stream

from .boxes import is_described

logger = logging.getLogger(__name__)

_LOOK = 2000  # packets that are read to find some of every track
_EACH = 3  # packets of each track that are written for a trial
ATTACHED_PICTURE = 1024  # AVDisposition
_REFUSALS = (av.FFmpegError, ValueError, OSError, OverflowError, NotImplementedError, TypeError)


def for_ffmpeg(path: str | os.PathLike[str]) -> str:
    """The absolute path, because FFmpeg takes a name like "12:30.mp4" for the address of a protocol "12"."""
    return os.path.abspath(path)


def shown(stream: Any) -> str:
    """Description of a track for messages: kind, number in the file, language, title and codec."""
    try:
        codec = getattr(stream.codec_context, "name", None) or stream.name
    except (AttributeError, RuntimeError):
        codec = None
    kind = "cover art" if is_cover(stream) else {"data": "data track"}.get(stream.type, f"{stream.type} track")
    about = [w for w in (stream.metadata.get("language"), stream.metadata.get("title"), codec or "unknown codec") if w]
    return f"{kind} {stream.index + 1} ({', '.join(about)})"


def is_cover(stream: Any) -> bool:
    """Whether a video stream is cover art."""
    return stream.type == "video" and bool(flags_of(stream) & ATTACHED_PICTURE)


def flags_of(stream: Stream) -> int:
    """The stream's AVDisposition as an int; older releases of PyAV wrap it in a class."""
    flags = getattr(stream, "disposition", 0)
    return int(getattr(flags, "value", flags))


def copyable(path: str, indices: list[int], container: str, options: dict[str, str]) -> set[int]:
    """Indices of those streams whose first packets can be written into the container."""
    if not indices:
        return set()
    with av.open(for_ffmpeg(path)) as reader:
        streams, samples = [reader.streams[i] for i in indices], {i: [] for i in indices}
        for number, packet in enumerate(reader.demux(streams)):
            if packet.size and len(samples[packet.stream.index]) < _EACH:
                samples[packet.stream.index].append(packet)
            if number > _LOOK or all(len(kept) == _EACH for kept in samples.values()):
                break
        return {s.index for s in streams if _takes(s, samples[s.index], container, options, path)}


def _takes(stream: Any, packets: list[Any], container: str, options: dict[str, str], path: str) -> bool:
    file = io.BytesIO()
    try:
        with av.open(file, "w", format=container, options=dict(options)) as writer:
            copy = copy_of(writer, stream, path)
            set_attribute(copy, "disposition", flags_of(stream))
            writer.start_encoding()
            for number, packet in enumerate(packets):
                packet.stream = copy
                packet.pts = packet.dts = number * (packet.duration or 1)
                writer.mux(packet)
    except _REFUSALS as error:
        logger.info("%s cannot be stored in %s: %s", shown(stream), container, error)
        return False
    return container not in ("mp4", "mov") or is_described(file.getvalue())


def copy_of(writer: Any, stream: Any, path: str) -> Any:
    """A stream like that of the file `path`, for its packets."""
    if writer.format.name == stream.container.format.name == "avi" and stream.type == "audio":
        with _without_block_size(path, stream.index) as reader:
            if reader is not None:
                return writer.add_stream_from_template(reader.streams[0], opaque=True)
    return writer.add_stream_from_template(stream, opaque=True)


@contextlib.contextmanager
def _without_block_size(path: str, index: int) -> Iterator[InputContainer | None]:
    """A stream's first packets, opened from a Matroska file in memory; None if Matroska does not hold its codec.

    AVI gives AC-3 and AAC a block size, which Matroska does not store. With it, FFmpeg's AVI muxer counts the sound in
    bytes instead of packets, so that five packets have the time of one.
    """
    file = io.BytesIO()
    try:
        with av.open(for_ffmpeg(path)) as source, av.open(file, "w", format="matroska") as writer:
            stream = source.streams[index]
            copy = writer.add_stream_from_template(stream, opaque=True)
            for packet in itertools.islice((p for p in source.demux(stream) if p.size), _EACH):
                packet.stream = copy
                writer.mux(packet)
        reader = av.open(io.BytesIO(file.getvalue()), "r")
    except _REFUSALS as error:
        logger.info("track %d keeps its block size: %s", index + 1, error)
        yield None
        return
    with reader:
        yield reader


def set_attribute(stream: Any, name: str, value: Any) -> None:
    """Sets an attribute. Older releases of PyAV cannot; `differences` reports what is lost."""
    try:
        setattr(stream, name, value)
    except (AttributeError, TypeError, ValueError) as error:
        logger.info("this release of PyAV cannot set %s: %s", name, error)
