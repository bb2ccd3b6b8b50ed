"""Tables of tags, as in TIFF and EXIF, copied byte for byte: values of any type, and texts in any encoding.

Pillow decodes texts as ASCII and numbers by their type, which changes what other programs stored.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

EXIF, GPS, INTEROPERABILITY, MAKER_NOTE = 0x8769, 0x8825, 0xA005, 0x927C
BYTE, SHORT, LONG, RATIONAL, UNDEFINED = 1, 3, 4, 5, 7
_NESTED = (EXIF, GPS, INTEROPERABILITY)
_WIDTHS = {
    1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8, 129: 1,
}  # fmt: skip
_CLASSIC = {16: (4, "QI"), 17: (9, "qi"), 18: (13, "QI")}  # types that only BigTIFF has, and those that replace them
_BIG = (b"II+\0", b"MM\0+")
_HEADERS = (b"II*\0", b"MM\0*", *_BIG, b"IIRO", b"IIRS", b"MMOR", b"IIU\0")  # the last four: Olympus and Panasonic
_DEEPEST = 2  # a table in a table in the first one
_NEAR = 1 << 16  # how far into a block a maker note is moved for its offsets' sake


@dataclass(frozen=True)
class Field:
    """One tag. `data` are its bytes as stored, `at` their offset; `inner` is the table that the tag points to."""

    kind: int
    count: int
    data: bytes
    at: int = 0
    inner: dict[int, Field] | None = None


Table = dict[int, Field]


def read(data: bytes) -> tuple[str, Table]:
    """Byte order ("<" or ">") and first table of a TIFF, EXIF block or camera raw file, without what is damaged.

    Raises:
        ValueError: there is no such header.
    """
    order, first = _header(data)
    return order, _table(data, order, first, _DEEPEST)


def entries(block: bytes) -> tuple[str, dict[int, bytes]]:
    """Byte order, and the 12 bytes of each entry of the first table, of a TIFF that is no BigTIFF.

    Raises:
        ValueError: there is no such header.
    """
    order, first = _header(block)
    found: dict[int, bytes] = {}
    for at in _places(block, order, first):
        found.setdefault(struct.unpack_from(order + "H", block, at)[0], bytes(block[at : at + 12]))
    return order, found


def without_repeated(data: bytes) -> bytes:
    """The TIFF with each tag of its first table once: of two with the same number, the first."""
    order, first = _header(data)
    found = entries(data)[1]
    return extended(data, {}, found) if len(found) < sum(1 for _ in _places(data, order, first)) else data


def built(order: str, table: Table) -> bytes:
    """A TIFF of these tags, without a picture. A maker note keeps its offset, if it can: offsets in it count on it."""
    out, placed = bytearray((b"II*\0" if order == "<" else b"MM\0*") + bytes(4)), {}
    note = ((table[EXIF].inner or {}) if EXIF in table else {}).get(MAKER_NOTE)
    if note and len(note.data) > 4 and len(out) <= note.at <= _NEAR:
        out += bytes(note.at - len(out)) + note.data
        placed[MAKER_NOTE] = note.at
    struct.pack_into(order + "I", out, 4, _append(out, order, table, {}, placed))
    return bytes(out)


def extended(block: bytes, added: Table, kept: Iterable[int]) -> bytes:
    """The TIFF with another first table behind it: `added`, and its own entries of the tags `kept`.

    What the entries point to stays where it is.
    """
    order, old = entries(block)
    out, kept = bytearray(block), set(kept)
    raw = {tag: entry for tag, entry in old.items() if tag in kept and tag not in added}
    struct.pack_into(order + "I", out, 4, _append(out, order, added, raw, {}))
    return bytes(out)


def field(order: str, kind: int, *values: int) -> Field:
    """A field of whole numbers, of kind SHORT, LONG or RATIONAL (numerator, denominator)."""
    data = struct.pack(order + str(len(values)) + ("H" if kind == SHORT else "I"), *values)
    return Field(kind, len(data) // _WIDTHS[kind], data)


def _header(data: bytes) -> tuple[str, int]:
    """Byte order and offset of the first table."""
    if data[:4] not in _HEADERS or len(data) < 16 - 8 * (data[:4] not in _BIG):
        raise ValueError("it does not start with a TIFF header")
    order = "<" if data[:2] == b"II" else ">"
    return order, struct.unpack_from(order + "Q", data, 8)[0] if data[:4] in _BIG else _number(data, order, 4)


def _number(data: bytes, order: str, at: int) -> int:
    return struct.unpack_from(order + "I", data, at)[0]


def _places(data: bytes, order: str, table: int) -> Iterator[int]:
    """Offsets of the entries of a table, as far as the data go."""
    big = data[:4] in _BIG
    start, length = (table + 8, 20) if big else (table + 2, 12)
    if table < 8 or start > len(data):
        return
    (count,) = struct.unpack_from(order + ("Q" if big else "H"), data, table)
    yield from range(start, min(start + count * length, len(data) - length + 1), length)


def _table(data: bytes, order: str, at: int, depth: int) -> Table:
    found: Table = {}
    for place in _places(data, order, at):
        tag, one = _field(data, order, place, depth)
        if one is not None:
            found.setdefault(tag, one)
    return found


def _field(data: bytes, order: str, place: int, depth: int) -> tuple[int, Field | None]:
    """Tag and field of an entry; None for a damaged one, and for types whose size is not known."""
    big = data[:4] in _BIG
    tag, kind, count = struct.unpack_from(order + ("HHQ" if big else "HHI"), data, place)
    size, at, room = _WIDTHS.get(kind, 0) * count, place + (12 if big else 8), 8 if big else 4
    if size > room:
        (at,) = struct.unpack_from(order + ("Q" if big else "I"), data, at)
    body = data[at : at + size]
    if not size or len(body) != size:
        return tag, None
    one = _classic(order, Field(kind, count, body, at)) if kind in _CLASSIC else Field(kind, count, body, at)
    if tag not in _NESTED or one is None:
        return tag, one
    if one.kind not in (4, 13) or one.count != 1 or not depth:
        return tag, None
    inner = _table(data, order, _number(one.data, order, 0), depth - 1)
    return tag, replace(one, kind=LONG, inner=inner) if inner else None


def _classic(order: str, one: Field) -> Field | None:
    """A field of BigTIFF with a type that every TIFF has; None if its numbers are too large."""
    kind, (wide, narrow) = _CLASSIC[one.kind]
    numbers = struct.unpack(f"{order}{one.count}{wide}", one.data)
    try:
        return Field(kind, one.count, struct.pack(f"{order}{one.count}{narrow}", *numbers), one.at)
    except struct.error:
        return None


def _append(out: bytearray, order: str, table: Table, raw: dict[int, bytes], placed: dict[int, int]) -> int:
    """Appends a table and what it points to; returns its offset.

    Args:
        raw: further entries of 12 bytes.
        placed: offsets of values that are in `out` already, by tag.
    """
    made = dict(raw)
    for tag, one in table.items():
        start = struct.pack(order + "HHI", tag, one.kind, one.count)
        if one.inner is not None:
            made[tag] = start + struct.pack(order + "I", _append(out, order, one.inner, {}, placed))
        elif len(one.data) <= 4:
            made[tag] = start + one.data.ljust(4, b"\0")
        else:
            at = placed[tag] if tag in placed else _aligned(out)
            out += b"" if tag in placed else one.data
            made[tag] = start + struct.pack(order + "I", at)
    at = _aligned(out)
    out += struct.pack(order + "H", len(made)) + b"".join(made[tag] for tag in sorted(made)) + bytes(4)
    return at


def _aligned(out: bytearray) -> int:
    """The length, made even: offsets in a TIFF are."""
    out += bytes(len(out) % 2)
    return len(out)
