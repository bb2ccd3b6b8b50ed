"""Boxes in memory of HEIC, AVIF and Canon's CR3, and the properties of the main picture of the first two."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator

from .boxes import Box
from .boxes import boxes as boxes_of_file


def boxes(data: bytes, start: int = 0, end: int | None = None) -> Iterator[Box]:
    """The boxes between two offsets, as far as they are whole."""
    return boxes_of_file(io.BytesIO(data), start, len(data) if end is None else end)


def inside(data: bytes, name: bytes) -> Iterator[Box]:
    """The boxes in the first box of this name."""
    found = next((box for box in boxes(data) if box.name == name), None)
    if found is not None:
        yield from boxes(data, found.body, found.end)


def properties_of_picture(data: bytes) -> list[tuple[bytes, bytes]]:
    """Name and body of each property of the main picture of a HEIC or AVIF; empty if the file is damaged."""
    try:
        return _properties(data)
    except (struct.error, StopIteration, IndexError, KeyError):
        return []


def _properties(data: bytes) -> list[tuple[bytes, bytes]]:
    meta = next(box for box in boxes(data) if box.name == b"meta")
    within = {box.name: box for box in boxes(data, meta.body + 4, meta.end)}
    main, about = within[b"pitm"], within[b"iprp"]
    (number,) = struct.unpack_from(">I" if data[main.body] else ">H", data, main.body + 4)
    parts = {box.name: box for box in boxes(data, about.body, about.end)}
    known = list(boxes(data, parts[b"ipco"].body, parts[b"ipco"].end))
    chosen = [known[index - 1] for index in _indices(data, parts[b"ipma"].body, number) if 0 < index <= len(known)]
    return [(box.name, data[box.body : box.end]) for box in chosen]


def _indices(data: bytes, at: int, number: int) -> list[int]:
    """Indices, from 1, of the properties of an item: the body of an ipma box starts at `at`."""
    version, wide = data[at], data[at + 3] & 1
    (count,) = struct.unpack_from(">I", data, at + 4)
    at += 8
    for _ in range(count):
        (item,) = struct.unpack_from(">I" if version else ">H", data, at)
        at += 4 if version else 2
        length, at = data[at], at + 1
        if item == number:
            found = struct.unpack_from(f">{length}{'H' if wide else 'B'}", data, at)
            return [index & (0x7FFF if wide else 0x7F) for index in found]
        at += length * (2 if wide else 1)
    return []
