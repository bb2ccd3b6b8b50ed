"""When packets and frames of a film are due, where its file does not say so plainly.

Recordings that were joined start their time stamps again, AVI has none but the order of its chunks, and some files
leave stamps out. Whatever comes out of here only ever rises.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from heapq import heappop, heappush
from typing import Any

BACK = Fraction(1, 10)  # seconds that a stream's stamps may go back without being a new beginning
AHEAD = 10  # seconds that a transport stream's stamps may leap without being one; elsewhere a leap is a pause
MOST_REORDERED = 3600  # seconds
RESTARTING = ("mpegts", "mpeg")


@dataclass
class _Track:
    epoch: int = 0
    first: Fraction | None = None  # as stored
    end: Fraction | None = None  # as corrected


@dataclass
class Timeline:
    """Lays the parts of a joined recording end to end: call it with every packet (of PyAV) in the file's order.

    All tracks of a part are moved by the same time, so that sound and pictures stay together.

    Args:
        container: FFmpeg's name of the source's format.
    """

    container: str
    shifts: list[Fraction] = field(default_factory=lambda: [Fraction(0)])
    tracks: dict[int, _Track] = field(default_factory=dict)

    def __call__(self, packet: Any) -> None:
        stamp = packet.pts if packet.dts is None else packet.dts
        if stamp is None or not packet.time_base:
            return
        time, track = stamp * packet.time_base, self.tracks.setdefault(packet.stream.index, _Track())
        if packet.dts is None and packet.stream.type == "video":  # its frames are shown in another order
            shift = self.shifts[track.epoch]
        elif packet.stream.type in ("video", "audio"):
            track.first = time if track.first is None else track.first
            self._settle(track, time)
            due = time + self.shifts[track.epoch] + (packet.duration or 0) * packet.time_base
            track.end = due if track.end is None else max(track.end, due)
            shift = self.shifts[track.epoch]
        else:  # rare, and their stamps say little: they belong to what the others show just now
            now = self._end()
            shift = min(self.shifts, key=lambda s: abs(time + s - now))
        if shift:
            ticks = round(shift / packet.time_base)
            packet.pts = None if packet.pts is None else packet.pts + ticks
            packet.dts = None if packet.dts is None else packet.dts + ticks

    def _settle(self, track: _Track, time: Fraction) -> None:
        """Moves the track into the next part if its time cannot be of the present one."""
        if track.end is None:
            return
        due = time + self.shifts[track.epoch]
        leaps = self.container in RESTARTING and due > self._end() + AHEAD
        if due >= track.end - BACK and not leaps:
            return
        if track.epoch + 1 == len(self.shifts):
            earliest = min(t.first for t in self.tracks.values() if t.first is not None)
            first = earliest if track.first is None else track.first
            self.shifts.append(self._end() - (time - (first - earliest)))  # as far behind the first as before
        track.epoch += 1

    def _end(self) -> Fraction:
        return max((t.end for t in self.tracks.values() if t.end is not None), default=Fraction(0))


@dataclass
class FrameTimes:
    """The stamps of a video's frames in the order in which they are shown.

    Args:
        step: ticks from one frame to the next where nothing else is known.
        stamped: False for containers such as AVI that number their chunks in the order of decoding. The frames, which
            come in the order of showing, then take the earliest number that is free.
    """

    step: int
    stamped: bool = True
    free: list[int] = field(default_factory=list)
    last: int | None = None

    def packet(self, packet: Any) -> None:
        if not self.stamped and packet.dts is not None:
            heappush(self.free, packet.dts)

    def frame(self, pts: int | None) -> int:
        """The stamp of the next frame, of which the decoder says `pts`."""
        if not self.stamped and self.free:
            pts = heappop(self.free)
        if pts is None:
            pts = 0 if self.last is None else self.last + self.step
        if self.last is not None:
            pts = max(pts, self.last + 1)
        self.last = pts
        return pts


@dataclass
class Rising:
    """Gives the packets of copied tracks decoding times that rise, without which muxers refuse them.

    Matroska says nothing of the decoding times of a video's first packets: they are held until one is known.
    """

    last: dict[int, Fraction] = field(default_factory=dict)
    held: dict[int, list[Any]] = field(default_factory=dict)

    def __call__(self, packet: Any) -> list[Any]:
        """The packets that can be written now, in order."""
        waiting = self.held.setdefault(packet.stream_index, [])
        waiting.append(packet)
        if packet.dts is None and packet.stream.type == "video" and packet.stream_index not in self.last:
            return []
        return self._settled(packet.stream_index)

    def rest(self) -> list[Any]:
        """At the end of the file: what never got a decoding time."""
        return [packet for index in self.held for packet in self._settled(index)]

    def _settled(self, index: int) -> list[Any]:
        packets, self.held[index] = self.held.get(index, []), []
        for number in reversed(range(len(packets) - 1)):
            packet, later = packets[number], packets[number + 1]
            if packet.dts is None and later.dts is not None:
                packet.dts = later.dts - max(1, packet.duration or 0)
        for packet in packets:
            self._raise(packet)
        return packets

    def _raise(self, packet: Any) -> None:
        last = self.last.get(packet.stream_index)
        if packet.dts is None:
            packet.dts = packet.pts
        if packet.dts is None:  # nothing is known of it: it follows the one before
            packet.dts = packet.pts = 0 if last is None else int(last / packet.time_base) + 1
        if last is not None and packet.dts * packet.time_base <= last:
            packet.dts = int(last / packet.time_base) + 1
        if packet.pts is not None:
            packet.pts = max(packet.pts, packet.dts)
        self.last[packet.stream_index] = packet.dts * packet.time_base


def in_order(packets: list[Any], before: int | None) -> int | None:
    """Mends decoding times of encoded packets that are later or an hour earlier than the pictures', or do not rise.

    libx265 makes such times, at random, for films of two or three frames.

    `before` is the last decoding time, None at the beginning; returns the last one now.
    """
    for packet in packets:
        if packet.pts is None:
            continue
        if packet.dts is None or not 0 <= (packet.pts - packet.dts) * packet.time_base < MOST_REORDERED:
            packet.dts = packet.pts
        if before is not None and packet.dts <= before:
            packet.dts = before + 1
            packet.pts = max(packet.pts, packet.dts)
        before = packet.dts
    return before
