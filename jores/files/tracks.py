"""All tracks and metadata of a video besides the enhanced pictures: copied if the container can hold them.

What it cannot hold is reported.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import av.container
from av.stream import Stream

from . import transport
from .boxes import add, other_boxes
from .copying import ATTACHED_PICTURE, copy_of, copyable, flags_of, for_ffmpeg, is_cover, set_attribute, shown

_DEFAULT = 1  # AVDisposition
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


def muxer_options(reader: Any, container: str) -> dict[str, str]:
    """Options of the muxer that make the container keep the source's flags and tags."""
    if container in ("matroska", "webm"):
        return {"default_mode": "passthrough"}  # keeps the source's track flags, instead of guessing them
    if container in ("mp4", "mov") and {*user_metadata(reader.metadata)} - _PLAIN_TAGS:
        return {"movflags": "use_metadata_tags"}
    return transport.options(Path(reader.name)) if container == reader.format.name == "mpegts" else {}


def user_metadata(metadata: dict[str, str]) -> dict[str, str]:
    """The tags of people and cameras, without those that a muxer writes itself, such as statistics."""
    kept = {k: v for k, v in metadata.items() if k not in _CONTAINERS_OWN and not k.startswith("_STATISTICS")}
    kept = {k: v for k, v in kept.items() if k.split("-")[0] not in _CONTAINERS_OWN}
    return {k: v for k, v in kept.items() if (k, v) not in _SAYS_NOTHING}


_SAYS_NOTHING = {
    ("handler_name", "VideoHandler"), ("handler_name", "SoundHandler"), ("handler_name", "SubtitleHandler"),
    ("handler_name", "DataHandler"), ("handler_name", "TimeCodeHandler"), ("handler_name", ""), ("language", "und"),
}  # fmt: skip


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
        for index in {*trial} - copyable(self.path, trial, self.container, self.options):
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
                copy = self.copies[stream.index] = copy_of(writer, stream, self.path)
            elif way == "attach":
                self._attach(writer, stream)
                continue
            else:
                continue
            copy.metadata.update(user_metadata(stream.metadata))
            if self.container in ("mp4", "mov") and "name" in stream.metadata:  # the title is where it is read from
                copy.metadata.setdefault("title", stream.metadata["name"])
            set_attribute(copy, "disposition", flags_of(stream))
            if self.container == "mpegts":
                set_attribute(copy, "id", stream.id)
        writer.metadata.update(user_metadata(self.reader.metadata))
        if self.container == self.reader.format.name == "mpegts":
            writer.metadata.update(transport.tags(Path(self.path)))
        chapters = _chapters(self.reader)
        if chapters and self.container in _WITH_CHAPTERS and _sets_chapters():
            writer.set_chapters(chapters)
        return made

    def absent(self) -> set[int]:
        """Indices of source streams that need no copy in the target: already reported, or made by the muxer."""
        return {index for index, way in self.plan.items() if way in ("leave", "again")}

    def complete(self, written: Path) -> None:
        """Adds what the source holds besides tracks and tags to the written file, or says that it is left out."""
        if "mp4" in self.reader.format.name:
            found = other_boxes(Path(self.path))
            copied = self.container in ("mp4", "mov") and (not found.of_film + found.behind or add(written, found))
            self.left_out += found.report(copied)
        if self.reader.format.name == "mpegts":
            self.left_out += transport.lost(Path(self.path), written if self.container == "mpegts" else None)

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
            found += _lost_of(a, b, alone=len(before) == 1)
    kept = [_name(s) for s in theirs if s.type == "data"]
    for stream in (s for s in ours if s.type == "data"):  # the muxer adds some of its own
        if _name(stream) in kept:
            kept.remove(_name(stream))
        else:
            found.append(shown(stream))
    words = {k: v for k, v in user_metadata(source.metadata).items() if target.metadata.get(k) != v}
    folded = {k.lower(): v for k, v in target.metadata.items()}
    found += [f"the file's {k}" for k, v in words.items() if folded.get(k.lower()) != v]
    if len(_chapters(source)) > len(_chapters(target)):
        found.append("chapters")
    return found


def _lost_of(before: Stream, after: Stream, alone: bool) -> list[str]:
    folded = {k.lower(): v for k, v in after.metadata.items()}
    lost = [k for k, v in user_metadata(before.metadata).items() if folded.get(k.lower()) != v]
    flags = flags_of(before) ^ flags_of(after)
    if (
        flags & ~ATTACHED_PICTURE & ~(_DEFAULT if alone else 0)
    ):  # the only track of a kind is played without the default flag
        lost.append("flags")
    return [f"{shown(before)}: {word}" for word in lost]


def _cover(path: str, index: int) -> bytes:
    with av.open(for_ffmpeg(path)) as reader:
        return next(bytes(packet) for packet in reader.demux(reader.streams[index]) if packet.size)


def _name(stream: Stream) -> str | None:
    return getattr(stream, "name", None)


def _chapters(container: Any) -> list[Any]:
    return container.chapters() if hasattr(container, "chapters") else []


def _sets_chapters() -> bool:
    return hasattr(av.container.OutputContainer, "set_chapters")


def _is_chapter_text(stream: Any) -> bool:
    return _name(stream) == "bin_data"


def _is_timecode(stream: Any) -> bool:
    return "timecode" in stream.metadata


def packets_of(reader: Any, video: Any, others: Iterable[Any] = ()) -> Iterator[Any]:
    """Packets with data of `video` and `others`, and the empty last one of `video`, which flushes its decoder."""
    for packet in reader.demux([video, *others]):
        if packet.size or packet.stream.index == video.index:
            yield packet
