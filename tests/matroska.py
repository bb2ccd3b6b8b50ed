"""Rewrites Matroska files in ways that PyAV cannot: several packets in one block (lacing), as mkvmerge does."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

SEGMENT, INFO, TRACKS, CLUSTER = 0x18538067, 0x1549A966, 0x1654AE6B, 0x1F43B675
TIME, SIMPLE_BLOCK, GROUP, BLOCK = 0xE7, 0xA3, 0xA0, 0xA1
KEY, XIPH_LACING = 0x80, 0x02


def laced(source: Path, target: Path, track: int, count: int) -> Path:
    """`source` with `count` packets of `track` in each of its blocks."""
    data = source.read_bytes()
    head, segment = list(_elements(data, 0, len(data)))[:2]
    body, blocks, waiting = b"", [], []
    for element, start, inside, end in _elements(data, *segment[2:]):
        body += data[start:end] if element in (INFO, TRACKS) else b""
        blocks += _blocks(data, inside, end) if element == CLUSTER else []
    laces = []
    for time, number, content in sorted(blocks):
        if number != track:
            laces.append((time, number, [content]))
            continue
        waiting.append((time, content))
        if len(waiting) == count:
            laces.append((waiting[0][0], number, [part for _, part in waiting]))
            waiting = []
    for second in range(max(time for time, *_ in laces) // 1000 + 1):
        here = [_block(time - 1000 * second, *rest) for time, *rest in sorted(laces) if time // 1000 == second]
        body += _element(CLUSTER, _element(TIME, struct.pack(">I", 1000 * second)) + b"".join(here))
    target.write_bytes(data[head[1] : head[3]] + _element(SEGMENT, body))
    return target


def _block(time: int, track: int, parts: list[bytes]) -> bytes:
    flags = KEY | (XIPH_LACING if len(parts) > 1 else 0)
    sizes = b"".join(b"\xff" * (len(part) // 255) + bytes([len(part) % 255]) for part in parts[:-1])
    lace = bytes([len(parts) - 1]) + sizes if len(parts) > 1 else b""
    return _element(SIMPLE_BLOCK, bytes([0x80 | track]) + struct.pack(">hB", time, flags) + lace + b"".join(parts))


def _blocks(data: bytes, start: int, end: int) -> Iterator[tuple[int, int, bytes]]:
    """(time, track, content) of the blocks of a cluster; times are in milliseconds."""
    base = 0
    for element, _, inside, after in _elements(data, start, end):
        if element == TIME:
            base = int.from_bytes(data[inside:after], "big")
        if element == GROUP:
            inside, after = next((i, e) for kind, _, i, e in _elements(data, inside, after) if kind == BLOCK)
        if element in (SIMPLE_BLOCK, GROUP):
            track, time = data[inside] & 0x7F, struct.unpack(">h", data[inside + 1 : inside + 3])[0]
            yield base + time, track, data[inside + 4 : after]


def _elements(data: bytes, at: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """(name, start, start of its content, end) of the elements one after the other."""
    while at < end:
        name, after_name = _number(data, at, marked=True)
        size, inside = _number(data, after_name)
        yield name, at, inside, inside + size
        at = inside + size


def _number(data: bytes, at: int, marked: bool = False) -> tuple[int, int]:
    length = 9 - data[at].bit_length()
    value = int.from_bytes(data[at : at + length], "big")
    return value if marked else value & ((1 << 7 * length) - 1), at + length


def _element(name: int, content: bytes) -> bytes:
    return name.to_bytes((name.bit_length() + 7) // 8, "big") + struct.pack(">Q", 1 << 56 | len(content)) + content
