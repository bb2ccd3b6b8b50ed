"""What MPEG transport streams hold that PyAV does not show: the size of their packets, programs and services."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

_LOOK = 1 << 22  # bytes of the file that are read; services are announced every two seconds
_MARK = 0x47  # first byte of a packet
_IDENTIFIER = 0x1FFF  # bits of a packet's second and third byte
_IN_A_ROW = 8  # packets whose first bytes must be right
_PROGRAMS, _SERVICES = 0x00, 0x11  # packet identifiers of the tables
_SERVICE = 0x48  # descriptor
_OF_FFMPEG = ("FFmpeg", "Service01")  # names it gives where it is told none


class Service(NamedTuple):
    """A service (channel) of a transport stream, with the number of its program."""

    number: int
    provider: str
    name: str


def options(path: Path) -> dict[str, str]:
    """Options of FFmpeg's muxer for a stream like this one."""
    numbers = programs(path)
    number = {"mpegts_service_id": str(*numbers)} if len(numbers) == 1 else {}
    return number | ({"mpegts_m2ts_mode": "1"} if _size(_start(path))[0] == 192 else {})  # as AVCHD and Blu-ray discs


def tags(path: Path) -> dict[str, str]:
    """Tags that make FFmpeg's muxer give the program the names it has here."""
    found = services(path)
    words = {"service_name": found[0].name, "service_provider": found[0].provider} if len(found) == 1 else {}
    return {} if "\ufffd" in "".join(words.values()) else words


def lost(path: Path, written: Path | None) -> list[str]:
    """Descriptions of programs and names of services that a result lost; None for one that is no transport stream."""
    found, kept, count = services(path), services(written) if written else [], len(programs(path))
    if count > 1:
        names = ", ".join(service.name for service in found)
        return [f"the division into {count} programs" + (f" ({names})" if names else "")]
    return [f"the name of the service, {service.name}" for service in found if service not in kept]


def programs(path: Path) -> set[int]:
    """Numbers of the programs whose tracks are in the stream; recordings often list those of all channels."""
    data, found = _start(path), set()
    present = {identifier for identifier, _ in _packets(data)}
    for table in _tables(data, _PROGRAMS, 0x00):
        pairs = [struct.unpack_from(">HH", table, at) for at in range(8, len(table) - 7, 4)]
        found |= {number for number, place in pairs if number and place & _IDENTIFIER in present}
    return found


def services(path: Path) -> list[Service]:
    """The named services whose programs are in the stream, without names that FFmpeg made up."""
    found = {}
    for table in _tables(_start(path), _SERVICES, 0x42):
        at = 11
        while at + 5 <= len(table) - 4:
            number, _, length = struct.unpack_from(">HBH", table, at)
            at, end = at + 5, min(at + 5 + (length & 0xFFF), len(table) - 4)
            while at + 2 <= end:
                kind, body = table[at], table[at + 2 : at + 2 + table[at + 1]]
                if kind == _SERVICE and len(body) > 2 and len(body) > 2 + body[1]:
                    found[number] = _service(number, body)
                at += 2 + table[at + 1]
            at = end
    named = {number for number, service in found.items() if {*service[1:]} - {*_OF_FFMPEG, ""}}
    return [found[number] for number in sorted(named & programs(path))]


def _service(number: int, body: bytes) -> Service:
    provider, rest = body[2 : 2 + body[1]], body[2 + body[1] :]
    return Service(number, _text(provider), _text(rest[1 : 1 + rest[0]]))


def _text(data: bytes) -> str:
    """A name; letters in alphabets that FFmpeg does not write become U+FFFD."""
    if data[:1] == b"\x15":
        return data[1:].decode("utf-8", "replace")
    return data.decode("ascii", "replace") if data[:1] >= b" " else "\ufffd" * bool(data)


def _start(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(_LOOK)


def _size(data: bytes) -> tuple[int, int]:
    """Size of the packets, and the place of the first one's mark; (188, 0) if there are none."""
    for size in (188, 192, 204):
        for first in range(size):
            marks = data[first : first + size * _IN_A_ROW : size]
            if marks and set(marks) == {_MARK}:
                return size, first
    return 188, 0


def _packets(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The packets, of 188 bytes, with their identifiers."""
    size, first = _size(data)
    for at in range(first, len(data) - 187, size):
        if data[at] == _MARK:
            yield struct.unpack_from(">H", data, at + 1)[0] & _IDENTIFIER, data[at : at + 188]


def _tables(data: bytes, wanted: int, kind: int) -> Iterator[bytes]:
    """The tables in packets with an identifier, in one piece; damaged ones are passed over."""
    section = b""
    for identifier, packet in _packets(data):
        if identifier != wanted or not packet[3] & 0x10:
            continue
        body = packet[5 + packet[4] if packet[3] & 0x20 else 4 :]
        if packet[1] & 0x40 and body:  # a table begins
            section = body[1 + body[0] :]
        elif section:
            section += body
        length = 3 + (int.from_bytes(section[1:3], "big") & 0xFFF)
        if len(section) >= length > 12 and section[0] == kind:
            if _checksum(section[:length]) == 0:
                yield section[:length]
            section = b""


@lru_cache(64)  # tables come again and again
def _checksum(table: bytes) -> int:
    """CRC-32 as in MPEG-2; 0 for a whole table, which ends with its own."""
    value = 0xFFFFFFFF
    for byte in table:
        value ^= byte << 24
        for _ in range(8):
            value = (value << 1 ^ (0x04C11DB7 if value >> 31 else 0)) & 0xFFFFFFFF
    return value
