"""Damage of a video file: packets that cannot be decoded, frames that are missing, and an end that comes too early."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import av
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from .opening import VideoFileError, claims_alpha

LARGEST_LOSS = 0.1
"""Share of the pictures that may be unreadable in a video that is still worked on."""

_NEAR = 0.5  # seconds between a sign of damage and the missing pictures, which decoders return later than packets
_STRAY = 1000  # bytes between two packets of Matroska; headers of clusters and blocks take less than 100
_PLACES = 3  # places that are named
_SHORT = 0.25  # seconds that may be missing at the end
Span = tuple[float, float]


class Damage:
    """What is wrong with a video, gathered while it is read: give it every packet, every outcome and every frame.

    A pause between two frames alone is no damage, because many films have them: it counts where a packet next to it
    could not be read or is marked as corrupt, or where bytes of the file belong to no packet.

    Args:
        rate: frames per second, on average.
    """

    def __init__(self, path: Path, reader: InputContainer, video: VideoStream, rate: float) -> None:
        self.path, self.video, self.step, self.kind = path, video, 1 / rate, reader.format.name
        self.stored, self.due = _stored(video) if "mp4" in self.kind else 0, _due_end(reader, video, 1 / rate)
        self.whole_file = not ("matroska" in self.kind and _is_cut(path))
        self.expected = self.stored or (self.due or 0) * rate
        self.read, self.frames, self.part = 0, 0, 1
        self.failed: list[float] = []  # times of packets
        self.signs: list[Span] = []  # of damage, by packets
        self.joins: list[Span] = []
        self.gaps: list[Span] = []  # between frames
        self.start: float | None = None
        self.time, self.shown, self.end, self.end_of_any = 0.0, 0.0, 0.0, 0.0
        self.block, self.position, self.longest = 0, 0, self.step  # where the last packet's block begins, and it ends

    def packets(self, packets: Iterable[Packet]) -> Iterator[Packet]:
        """The packets as they are. An error in reading them becomes a VideoFileError that says where."""
        try:
            yield from packets
        except (av.FFmpegError, OSError) as error:
            reason = getattr(error, "strerror", None) or error
            raise VideoFileError(f"{self.path}: cannot be read on from {self.time:.1f} s: {reason}") from error

    def packet(self, packet: Packet, part: int) -> None:
        """Takes the next packet of any track, in the file's order; `part` of a joined recording is the present one."""
        stamp, tick = (packet.dts if packet.pts is None else packet.pts), packet.time_base
        if not packet.size or stamp is None or not tick:
            return
        time, before = float(stamp * tick), self.time
        is_video = packet.stream.index == self.video.index
        end = time + (float((packet.duration or 0) * tick) or (self.step if is_video else 0))
        stray, self.end_of_any = self._stray(packet), max(self.end_of_any, end)
        if part != self.part:
            self.joins.append((time, time))
            self.part = part
        if is_video:
            self.read += not packet.is_discard
            self.time, self.end = time, max(self.end, end)
        if stray > _STRAY or packet.is_corrupt:
            self.signs.append((min(before, time), max(before, time)))

    def _stray(self, packet: Packet) -> int:
        """Bytes of a Matroska file between the packet before and this one."""
        place = packet.pos or 0
        if "matroska" not in self.kind or claims_alpha(self.video):  # alpha lies between packets
            return 0
        stray = place - self.position if self.position and place != self.block else 0
        start = self.position if place == self.block else place  # packets of one block (lacing) share its place
        self.block, self.position = place, start + packet.size
        return stray

    def failure(self) -> None:
        """The last packet of the video cannot be decoded. Raises VideoFileError once too many cannot."""
        self.failed.append(self.time)
        if self.expected and len(self.failed) > LARGEST_LOSS * self.expected:
            self._refuse(len(self.failed), max(self.expected, self.read))

    def frame(self, time: float) -> None:
        """Takes the time of the next frame in seconds."""
        pause = time - self.shown if self.frames else 0
        if pause > 1.5 * self.step:
            self.gaps.append((self.shown, time))
        self.longest = max(self.longest, pause)
        self.start = time if self.start is None else self.start
        self.shown, self.frames = time, self.frames + 1

    def report(self) -> list[str]:
        """Descriptions of the damage, once all is read; none for a sound file.

        Raises:
            VideoFileError: more than `LARGEST_LOSS` of the stored pictures cannot be read.
        """
        lost = max(len(self.failed), min(self.read, self.stored) - self.frames)
        if lost > LARGEST_LOSS * (total := max(self.stored, self.read)):
            self._refuse(lost, total)
        early, last = self._ends_early(), self.shown + self.step
        signs = [*self.signs, *_spans(self.failed)]
        gaps = [gap for gap in self.gaps if _near_any(gap, signs) and not _near_any(gap, self.joins)]
        places = _joined([*gaps, *_spans(t for t in self.failed if not early or t < last - self.step / 2)])
        missing = max(len(self.failed), sum(round((b - a) / self.step) - 1 for a, b in gaps))
        lines = [f"damaged: about {missing} of its frames lost ({_shown(places)})"] if places else []
        if early:
            lines.append(f"damaged: {self.frames} frames, it ends at {last:.1f} s of {self.due:.1f} s")
        return lines

    def _ends_early(self) -> bool:
        if self.due is None or (self.stored and self.read >= self.stored):
            return False
        end = self.end - (self.start or 0) if self.stored else self.end
        if "matroska" in self.kind and not _own_duration(self.video):
            end = max(end, self.end_of_any)  # the duration is that of the longest track
        tolerance = 2 * self.step
        if not self.stored and self.whole_file:  # the last frame may be held as long as another one
            tolerance = max(_SHORT, tolerance, 2 * self.longest)
        return end < self.due - tolerance

    def _refuse(self, lost: int, total: float) -> None:
        places = _shown(_joined([*_spans(self.failed), *self.gaps]))
        raise VideoFileError(
            f"{self.path}: damaged, {lost} of its {round(total)} frames cannot be read ({places or 'all over'}): "
            "get the file again, or cut that part out first"
        )


def decoded(decode: Callable[[Packet], list[VideoFrame]], packet: Packet) -> list[VideoFrame] | None:
    """The frames of a packet; None if the decoder cannot read it. It can go on with the next packet."""
    try:
        return decode(packet)
    except av.FFmpegError as error:
        if isinstance(error, (MemoryError, OSError)):
            raise
        return None


def _stored(video: VideoStream) -> int:
    """Number of frames of an MP4 or MOV that are to be shown. Phones trim videos by hiding stored frames."""
    entries = getattr(video, "index_entries", None)  # newer releases of PyAV
    if entries:
        return min(video.frames, sum(not entry.is_discard for entry in entries))
    shown = float((video.duration or 0) * (video.time_base or 1) * (video.average_rate or 0))
    return min(video.frames, round(shown) or video.frames)


def _due_end(reader: InputContainer, video: VideoStream, step: float) -> float | None:
    """The end in seconds that the file claims for its video (MP4, MOV: its duration); None if it says nothing."""
    kind, tick = reader.format.name, float(video.time_base or 0)
    if "mp4" in kind:
        return (video.duration or 0) * tick or None
    if kind == "avi":  # the duration is shortened where the file is, the number of frames is not
        return video.frames * (tick or step) or None
    if "matroska" in kind:
        return _own_duration(video) or (reader.duration or 0) / av.time_base or None
    return None


def _own_duration(video: VideoStream) -> float | None:
    """The end of a Matroska track according to its tags."""
    for key, value in video.metadata.items():
        if key.split("-")[0] == "DURATION" and value.count(":") == 2:
            hours, minutes, seconds = value.split(":")
            try:
                return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
            except ValueError:
                return None
    return None


def _is_cut(path: Path) -> bool:
    """Whether a Matroska file is shorter than its segment says."""
    with open(path, "rb") as file:
        for _ in range(2):  # the head, then the segment
            element = _number(file.read(1), file, keeps_mark=True)
            size = _number(file.read(1), file)
            if element == 0x18538067:
                return size is not None and file.tell() + size > path.stat().st_size
            file.seek(size or 0, 1)
    return False


def _number(first: bytes, file: BinaryIO, keeps_mark: bool = False) -> int | None:
    """A number of EBML; None if it is unknown (all ones)."""
    length = 9 - first[0].bit_length() if first and first[0] else 9
    data = first + file.read(length - 1)
    ones = (1 << 7 * length) - 1
    value = int.from_bytes(data, "big")
    return value if keeps_mark else None if value & ones == ones else value & ones


def _spans(times: Iterable[float]) -> list[Span]:
    return [(time, time) for time in times]


def _near(a: Span, b: Span) -> bool:
    return a[0] <= b[1] + _NEAR and b[0] <= a[1] + _NEAR


def _near_any(span: Span, others: list[Span]) -> bool:
    return any(_near(span, other) for other in others)


def _joined(spans: list[Span]) -> list[Span]:
    """Spans that are near each other as one, in order."""
    found: list[Span] = []
    for span in sorted(spans):
        if found and _near(found[-1], span):
            found[-1] = found[-1][0], max(found[-1][1], span[1])
        else:
            found.append(span)
    return found


def _shown(spans: list[Span]) -> str:
    """Spans in words: "4.4 to 4.9 s, 8.1 s and 2 other places"."""
    words = [f"{a:.1f} s" if f"{a:.1f}" == f"{b:.1f}" else f"{a:.1f} to {b:.1f} s" for a, b in spans[:_PLACES]]
    return ", ".join(words) + (f" and {len(spans) - _PLACES} other places" if len(spans) > _PLACES else "")
