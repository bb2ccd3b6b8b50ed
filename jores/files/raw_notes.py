"""What a camera raw file says besides its pixels: EXIF, XMP and captions, wherever its format keeps them."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from . import exif, ifd, jpeg, left_out
from .boxes import XMP, Box
from .items import boxes, inside

_OF_THE_PREVIEW = (0x011A, 0x011B, 0x0128)  # resolutions and their unit
_DEVELOPING = {*range(1, 254), *range(280, 284), 33421, 33422, 37398, *range(50706, 52600)} - {50740}
_CANON = bytes.fromhex("85c0b687820f11e08111f4ce462b6a48")
_PREVIEWS_TRIED = 4


@dataclass(frozen=True)
class Notes:
    """EXIF block, EXIF orientation, XMP packet, and descriptions of what is not carried over."""

    exif: bytes | None = None
    orientation: int = 1
    xmp: bytes | None = None
    left_out: tuple[str, ...] = ()


def notes(data: bytes) -> Notes:
    """The notes of a camera raw file; without those that are damaged."""
    try:
        order, table = ifd.read(data)
    except ValueError:
        return _of_cr3(data) or _of_mrw(data) or _of_preview(data) or Notes(left_out=("its EXIF, which was not found",))
    lost = left_out.listed("tag", map(str, sorted(set(exif.dropped(table)) - _DEVELOPING)))
    return _made(order, table, exif.xmp_of_tiff(data), lost)


def _made(order: str, table: ifd.Table, xmp: bytes | None, left_out: tuple[str, ...] = ()) -> Notes:
    turn = table.get(0x0112)
    orientation = struct.unpack(order + "H", turn.data)[0] if turn and (turn.kind, turn.count) == (ifd.SHORT, 1) else 1
    block = exif.made(order, {tag: one for tag, one in table.items() if tag not in _OF_THE_PREVIEW})
    return Notes(block, orientation, xmp, left_out)


def _of_cr3(data: bytes) -> Notes | None:
    """Canon's CR3: a box each for the tables of the picture, of the exposure, of the maker and of the place."""
    if data[4:8] != b"ftyp":
        return None
    found = {box.name: data[box.body : box.end] for box in _canon(data)}
    try:
        order, table = ifd.read(found.get(b"CMT1", b""))
        for name, tag in ((b"CMT2", ifd.EXIF), (b"CMT4", ifd.GPS)):
            other, inner = ifd.read(found[name]) if name in found else (order, {})
            if inner and other == order:
                table[tag] = ifd.Field(ifd.LONG, 1, bytes(4), inner=inner)
    except ValueError:
        return None
    packets = (box for box in boxes(data) if _is(data, box, XMP))
    xmp = next((data[box.body + 16 : box.end] for box in packets), None)
    return _made(order, table, xmp, ("the maker's notes (CMT3)",) if b"CMT3" in found else ())


def _canon(data: bytes) -> Iterator[Box]:
    for box in inside(data, b"moov"):
        if _is(data, box, _CANON):
            yield from boxes(data, box.body + 16, box.end)


def _is(data: bytes, box: Box, kind: bytes) -> bool:
    return box.name == b"uuid" and data[box.body : box.body + 16] == kind


def _of_mrw(data: bytes) -> Notes | None:
    """Minolta's MRW: blocks, one of which is a TIFF."""
    at = 8 if data[:4] == b"\0MRM" else len(data)
    while at + 8 <= len(data):
        name, length = struct.unpack_from(">4sI", data, at)
        if name == b"\0TTW":
            try:
                return _made(*ifd.read(data[at + 8 : at + 8 + length]), None)
            except ValueError:
                return None
        at += 8 + length
    return None


def _of_preview(data: bytes) -> Notes | None:
    """Fujifilm's RAF and Sigma's X3F: EXIF and XMP are those of the preview, a JPEG."""
    at = 0
    for _ in range(_PREVIEWS_TRIED):
        at = data.find(b"\xff\xd8\xff", at)
        if at < 0:
            return None
        found = list(_segments(data, at))
        block = b"".join(body[len(jpeg.EXIF) :] for _, body in found if body.startswith(jpeg.EXIF))
        try:
            return _made(*ifd.read(block), jpeg.xmp_of(found))
        except ValueError:
            at += 3
    return None


def _segments(data: bytes, at: int) -> Iterator[jpeg.Segment]:
    """The segments of a JPEG inside a file; ends where they are damaged."""
    try:
        yield from jpeg.segments(data[at:])
    except struct.error:
        return
