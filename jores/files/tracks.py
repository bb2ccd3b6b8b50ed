"""All tracks and metadata of a video besides the enhanced pictures: copied if the container can hold them.

What it cannot hold is reported.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import av
import av.container
from av.container import InputContainer
from av.stream import Stream

logger = logging.getLogger(__name__)

_LOOK = 2000  # packets that are read to find some of every track
_EACH = 3  # packets of each track that are written for a trial
_DEFAULT, _ATTACHED_PICTURE = 1, 1024  # AVDisposition
_PICTURE_KINDS = {"mjpeg": ("jpg", "image/jpeg"), "png": ("png", "image/png")}
_WITH_CHAPTERS = ("mp4", "mov", "matroska", "webm")
_CONTAINERS_OWN = {
    "major_brand", "minor_version", "compatible_brands", "encoder", "vendor_id", "DURATION", "ENCODER",
    "NUMBER_OF_FRAMES", "NUMBER_OF_BYTES", "BPS", "software",
}  # fmt: skip
_PLAIN_TAGS = {
    "title", "artist", "album_artist", "album", "composer", "date", "comment", "genre", "copyright", "description",
    "synopsis", "show", "episode_id", "network", "lyrics", "grouping", "keywords", "location", "location-eng",
    "creation_time", "timecode", "language", "media_type", "track", "disc", "compilation", "hd_video", "rating",
}  # fmt: skip
_REFUSALS = (av.FFmpegError, ValueError, OSError, OverflowError, NotImplementedError, TypeError)


def muxer_options(reader: Any, container: str) -> dict[str, str]:
    """Options of the muxer that make the container keep the source's flags and tags."""
    if container in ("matroska", "webm"):
        return {"default_mode": "passthrough"}  # keeps the source's track flags, instead of guessing them
    if container in ("mp4", "mov") and {*user_metadata(reader.metadata)} - _PLAIN_TAGS:
        return {"movflags": "use_metadata_tags"}
    return {}


def user_metadata(metadata: dict[str, str]) -> dict[str, str]:
    """The tags of people and cameras, without those that a muxer writes itself, such as statistics."""
    kept = {k: v for k, v in metadata.items() if k not in _CONTAINERS_OWN and not k.startswith("_STATISTICS")}
    kept = {k: v for k, v in kept.items() if k.split("-")[0] not in _CONTAINERS_OWN}
    return {k: v for k, v in kept.items() if (k, v) not in _SAYS_NOTHING}


_SAYS_NOTHING = {
    ("handler_name", "VideoHandler"), ("handler_name", "SoundHandler"), ("handler_name", "SubtitleHandler"),
    ("handler_name", "DataHandler"), ("handler_name", "TimeCodeHandler"), ("handler_name", ""), ("language", "und"),
}  # fmt: skip


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
    return stream.type == "video" and bool(flags_of(stream) & _ATTACHED_PICTURE)


def flags_of(stream: Stream) -> int:
    """The stream's AVDisposition as an int; older releases of PyAV wrap it in a class."""
    flags = getattr(stream, "disposition", 0)
    return int(getattr(flags, "value", flags))


@dataclass
class Tracks:
    """The tracks of a source file and their copies in a target file.

    Attributes:
        copies: for the index of each copied source stream, the stream in the target.
        left_out: descriptions of everything that is not copied.
    """

    path: str
    reader: Any
    container: str
    video: Any
    options: dict[str, str]
    copies: dict[int, Any] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.plan = {stream.index: self._way(stream) for stream in self.reader.streams}
        trial = [index for index, way in self.plan.items() if way == "copy"]
        for index in {*trial} - _copyable(self.path, trial, self.container, self.options):
            self.plan[index] = "leave"
        for stream in self.reader.streams:
            if self.plan[stream.index] == "leave":
                self.left_out.append(shown(stream))
        if _chapters(self.reader) and (self.container not in _WITH_CHAPTERS or not _sets_chapters()):
            self.left_out.append("chapters")

    def _way(self, stream: Any) -> str:
        """Way to handle a stream: "pictures" (enhanced), "copy", "attach", "leave" out, "again" (by the muxer)."""
        if stream.index == self.video.index:
            return "pictures"
        if stream.type == "attachment" or (is_cover(stream) and self.container in ("matroska", "webm")):
            fits = self.container == "matroska" and hasattr(av.container.OutputContainer, "add_attachment")
            return "attach" if fits else "leave"
        if is_cover(stream) and self.container not in ("mp4", "mov"):
            return "leave"
        if stream.type == "data":
            if self.container in ("mp4", "mov") and (_chapters(self.reader) and _is_chapter_text(stream)):
                return "again"
            if self.container in ("mp4", "mov") and "timecode" in self.video.metadata and _is_timecode(stream):
                return "again"
            return "copy"
        return "copy" if stream.codec_context is not None else "leave"

    def add_to(self, writer: Any, add_video: Any) -> Any:
        """Adds all tracks in the order of the source; returns the result of `add_video()`."""
        made = None
        for stream in self.reader.streams:
            way = self.plan[stream.index]
            if way == "pictures":
                made = copy = add_video()
            elif way == "copy":
                copy = self.copies[stream.index] = _copy_of(writer, stream, self.path)
            elif way == "attach":
                self._attach(writer, stream)
                continue
            else:
                continue
            copy.metadata.update(user_metadata(stream.metadata))
            if self.container in ("mp4", "mov") and "name" in stream.metadata:  # the title is where it is read from
                copy.metadata.setdefault("title", stream.metadata["name"])
            _set(copy, "disposition", flags_of(stream))
            if self.container == "mpegts":
                _set(copy, "id", stream.id)
        writer.metadata.update(user_metadata(self.reader.metadata))
        chapters = _chapters(self.reader)
        if chapters and self.container in _WITH_CHAPTERS and _sets_chapters():
            writer.set_chapters(chapters)
        return made

    def absent(self) -> set[int]:
        """Indices of source streams that need no copy in the target: already reported, or made by the muxer."""
        return {index for index, way in self.plan.items() if way in ("leave", "again")}

    def _attach(self, writer: Any, stream: Any) -> None:
        if not is_cover(stream):
            made = writer.add_attachment(
                stream.metadata.get("filename", f"attachment{stream.index}"),
                stream.metadata.get("mimetype", "application/octet-stream"), stream.data,
            )  # fmt: skip
            made.metadata.update(stream.metadata)
            return
        suffix, mimetype = _PICTURE_KINDS.get(stream.codec_context.name, ("jpg", "image/jpeg"))
        name = stream.metadata.get("filename", f"cover.{suffix}")
        made = writer.add_attachment(name, stream.metadata.get("mimetype", mimetype), _cover(self.path, stream.index))
        made.metadata.update(stream.metadata)


def differences(source: Any, target: Any, skipped: set[int]) -> list[str]:
    """Descriptions of all tracks, tags and flags of `source` that `target` lost; both are open PyAV containers.

    `skipped`: indices of source streams that are not compared.
    """
    found = []
    ours = [s for s in source.streams if s.index not in skipped]
    theirs = list(target.streams)
    kinds = ("video", "audio", "subtitle", "attachment")
    for kind in kinds:
        before, after = ([s for s in streams if s.type == kind] for streams in (ours, theirs))
        if kind == "video":  # the position of cover art may differ
            before, after = (sorted(streams, key=is_cover) for streams in (before, after))
        found += [shown(s) for s in before[len(after) :]]
        for a, b in zip(before, after, strict=False):
            found += _told(a, b, alone=len(before) == 1)
    words = {k: v for k, v in user_metadata(source.metadata).items() if target.metadata.get(k) != v}
    folded = {k.lower(): v for k, v in target.metadata.items()}
    found += [f"the file's {k}" for k, v in words.items() if folded.get(k.lower()) != v]
    if len(_chapters(source)) > len(_chapters(target)):
        found.append("chapters")
    return found


def _told(before: Stream, after: Stream, alone: bool) -> list[str]:
    folded = {k.lower(): v for k, v in after.metadata.items()}
    lost = [k for k, v in user_metadata(before.metadata).items() if folded.get(k.lower()) != v]
    flags = flags_of(before) ^ flags_of(after)
    if (
        flags & ~_ATTACHED_PICTURE & ~(_DEFAULT if alone else 0)
    ):  # the only track of a kind is played without the default flag
        lost.append("flags")
    return [f"{shown(before)}: {word}" for word in lost]


def _copyable(path: str, indices: list[int], container: str, options: dict[str, str]) -> set[int]:
    """Indices of those streams whose first packets can be written into the container."""
    if not indices:
        return set()
    with av.open(path) as reader:
        streams, samples = [reader.streams[i] for i in indices], {i: [] for i in indices}
        for number, packet in enumerate(reader.demux(streams)):
            if packet.size and len(samples[packet.stream.index]) < _EACH:
                samples[packet.stream.index].append(packet)
            if number > _LOOK or all(len(kept) == _EACH for kept in samples.values()):
                break
        return {s.index for s in streams if _takes(s, samples[s.index], container, options, path)}


def _takes(stream: Any, packets: list[Any], container: str, options: dict[str, str], path: str) -> bool:
    try:
        with av.open(io.BytesIO(), "w", format=container, options=dict(options)) as writer:
            copy = _copy_of(writer, stream, path)
            _set(copy, "disposition", flags_of(stream))
            writer.start_encoding()
            for number, packet in enumerate(packets):
                packet.stream = copy
                packet.pts = packet.dts = number * (packet.duration or 1)
                writer.mux(packet)
    except _REFUSALS as error:
        logger.info("%s cannot be stored in %s: %s", shown(stream), container, error)
        return False
    return True


def _copy_of(writer: Any, stream: Any, path: str) -> Any:
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
        with av.open(path) as source, av.open(file, "w", format="matroska") as writer:
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


def _set(stream: Any, name: str, value: Any) -> None:
    """Sets an attribute. Older releases of PyAV cannot; `differences` reports what is lost."""
    try:
        setattr(stream, name, value)
    except (AttributeError, TypeError, ValueError) as error:
        logger.info("this release of PyAV cannot set %s: %s", name, error)


def _cover(path: str, index: int) -> bytes:
    with av.open(path) as reader:
        return next(bytes(packet) for packet in reader.demux(reader.streams[index]) if packet.size)


def _chapters(container: Any) -> list[Any]:
    return container.chapters() if hasattr(container, "chapters") else []


def _sets_chapters() -> bool:
    return hasattr(av.container.OutputContainer, "set_chapters")


def _is_chapter_text(stream: Any) -> bool:
    return getattr(stream, "name", None) == "bin_data"


def _is_timecode(stream: Any) -> bool:
    return "timecode" in stream.metadata


def packets_of(reader: Any, video: Any, others: Iterable[Any] = ()) -> Iterator[Any]:
    """Packets with data of `video` and `others`, and the empty last one of `video`, which flushes its decoder."""
    for packet in reader.demux([video, *others]):
        if packet.size or packet.stream.index == video.index:
            yield packet
