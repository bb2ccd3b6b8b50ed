"""Repairs missing and inconsistent time stamps of packets and frames.

Joined recordings restart their time stamps, AVI has only the order of its chunks, and some files omit time stamps. The
repaired time stamps of each track increase.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from heapq import heapify, heappop, heappush
from math import ceil, floor
from typing import Any

from av.packet import Packet

BACK = Fraction(1, 10)  # seconds; time stamps that go back further start a new part
AHEAD = 10  # seconds; larger jumps in a transport stream start a new part, in other formats they are pauses
MOST_REORDERED = 3600  # seconds; largest plausible difference of presentation and decoding time
RESTARTING = ("mpegts", "mpeg")


@dataclass
class _Track:
    epoch: int = 0
    first: Fraction | None = None  # first time stamp in the file, in seconds
    end: Fraction | None = None  # end of the last packet after correction, in seconds


@dataclass
class Timeline:
    """Concatenates the parts of a joined recording. Call it with every packet (of PyAV) in the order of the file.

    It changes the time stamps of the packet. All tracks of a part are shifted by the same time, so that sound and
    pictures stay synchronous.

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
        if packet.dts is None and packet.stream.type == "video":  # reordered frames: presentation times do not increase
            shift = self.shifts[track.epoch]
        elif packet.stream.type in ("video", "audio"):
            track.first = time if track.first is None else track.first
            self._settle(track, time)
            due = time + self.shifts[track.epoch] + (packet.duration or 0) * packet.time_base
            track.end = due if track.end is None else max(track.end, due)
            shift = self.shifts[track.epoch]
        else:  # other tracks have few packets: use the shift that brings the packet closest to the present time
            now = self._end()
            shift = min(self.shifts, key=lambda s: abs(time + s - now))
        if shift:
            ticks = round(shift / packet.time_base)
            packet.pts = None if packet.pts is None else packet.pts + ticks
            packet.dts = None if packet.dts is None else packet.dts + ticks

    def _settle(self, track: _Track, time: Fraction) -> None:
        """Moves the track to the next part if this time does not continue the present one."""
        if track.end is None:
            return
        due = time + self.shifts[track.epoch]
        leaps = self.container in RESTARTING and due > self._end() + AHEAD
        if due >= track.end - BACK and not leaps:
            return
        if track.epoch + 1 == len(self.shifts):
            earliest = min(t.first for t in self.tracks.values() if t.first is not None)
            first = earliest if track.first is None else track.first
            self.shifts.append(
                self._end() - (time - (first - earliest))
            )  # keeps the track's offset from the first track
        track.epoch += 1

    def _end(self) -> Fraction:
        return max((t.end for t in self.tracks.values() if t.end is not None), default=Fraction(0))


@dataclass
class FrameTimes:
    """Time stamps of a video's frames, in presentation order.

    Args:
        step: default distance of two frames in ticks.
        stamped: False for containers such as AVI, which number chunks in decoding order. Decoded frames come in
            presentation order, and each takes the smallest number that is not used yet.
    """

    step: int
    stamped: bool = True
    free: list[int] = field(default_factory=list)
    last: int | None = None

    def packet(self, packet: Any) -> None:
        """Registers a packet before it is decoded."""
        if not self.stamped and packet.dts is not None:
            heappush(self.free, packet.dts)

    def failed(self, packet: Packet) -> None:
        """Forgets a packet that cannot be decoded, so that the frames after it keep their times."""
        if packet.dts in self.free:
            self.free.remove(packet.dts)
            heapify(self.free)

    def frame(self, pts: int | None) -> int:
        """Time stamp of the next frame, in ticks; `pts` is the one from the decoder."""
        if not self.stamped and self.free:
            pts = heappop(self.free)
        if pts is None:
            pts = 0 if self.last is None else self.last + self.step
        if self.last is not None:
            pts = max(pts, self.last + 1)
        self.last = pts
        return pts


@dataclass
class MonotonicTimes:
    """Makes the decoding times of copied packets increase, as muxers require.

    Matroska has no decoding times for a video's first packets: these are held back until one is known. Packets shorter
    than its millisecond (TrueHD) share their times. Where the target allows that, they stay so; elsewhere such a packet
    is moved by one of the target's ticks, which are finer, so that the sound does not become longer.

    Args:
        strict: the target allows no equal times.
    """

    strict: bool = True
    last: dict[int, Fraction] = field(default_factory=dict)
    held: dict[int, list[Any]] = field(default_factory=dict)

    def __call__(self, packet: Any) -> list[Any]:
        """Takes the next packet; returns the packets that can be written now, in order."""
        waiting = self.held.setdefault(packet.stream_index, [])
        waiting.append(packet)
        if packet.dts is None and packet.stream.type == "video" and packet.stream_index not in self.last:
            return []
        return self._settled(packet.stream_index)

    def rest(self) -> list[Any]:
        """The packets that are still held back; call it at the end of the file."""
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
        if packet.dts is None:  # no time at all: directly after the previous packet
            packet.dts = packet.pts = 0 if last is None else int(last / packet.time_base) + 1
        time = packet.dts * packet.time_base
        if last is not None and (time < last or (self.strict and time == last)):
            if self.strict:
                _refine(packet)
            packet.dts = floor(last / packet.time_base) + 1 if self.strict else ceil(last / packet.time_base)
        if packet.pts is not None:
            packet.pts = max(packet.pts, packet.dts)
        self.last[packet.stream_index] = packet.dts * packet.time_base


def _refine(packet: Packet) -> None:
    """Gives a packet of a copy the ticks of its target, if they are finer."""
    tick, own = getattr(packet.stream, "time_base", None), packet.time_base
    if not tick or tick >= own:
        return
    packet.pts = None if packet.pts is None else round(packet.pts * own / tick)
    packet.dts = None if packet.dts is None else round(packet.dts * own / tick)
    packet.duration = round((packet.duration or 0) * own / tick)
    packet.time_base = tick


def repair_times(packets: list[Any], before: int | None) -> int | None:
    """Repairs decoding times of encoded packets: later than the presentation time, an hour earlier, or not increasing.

    libx265 produces such times at random for videos of two or three frames.

    `before` is the last decoding time in ticks, None at the start. Returns the new last one.
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
