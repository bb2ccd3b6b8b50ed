"""Metadata segments of a JPEG: reading them, and inserting them into a new file."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

XMP = b"http://ns.adobe.com/xap/1.0/\0"
LONG_XMP = b"http://ns.adobe.com/xmp/extension/\0"
EXIF = b"Exif\0\0"
ROOM = 65533  # largest body of a segment in bytes
_SCAN, _FILE_HEADER, _APP1, _APP13, _COMMENT = 0xDA, 0xE0, 0xE1, 0xED, 0xFE

_APPLICATION = 0xE0
_KNOWN = (
    XMP,
    LONG_XMP,
    EXIF,
    b"JFIF\0",
    b"JFXX\0",
    b"ICC_PROFILE\0",
    b"MPF\0",
    b"Adobe",
    b"Ducky",
    b"urn:iso:std:iso:ts:21496",
)  # the last one: a gain map's, which is named as a picture

Segment = tuple[int, bytes]


def segments(data: bytes) -> Iterator[Segment]:
    """Marker and body of each segment before the pixels."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # padding
            at += 1
            continue
        if marker == _SCAN:
            return
        (length,) = struct.unpack_from(">H", data, at + 2)
        yield marker, data[at + 4 : at + 2 + length]
        at += 2 + length


def carried(found: list[Segment]) -> list[Segment]:
    """The segments that are copied unchanged: comments, captions (IPTC) and extended XMP."""
    return [
        (marker, body)
        for marker, body in found
        if marker in (_COMMENT, _APP13) or (marker == _APP1 and body.startswith(LONG_XMP))
    ]


def dropped(found: Iterable[Segment]) -> list[str]:
    """Names of the application segments that are not carried over, without those that describe the storage."""
    others = (s for s in found if _APPLICATION <= s[0] < _APPLICATION + 16 and s[0] != _APP13)
    return sorted({f"APP{marker - _APPLICATION}" for marker, body in others if not body.startswith(_KNOWN)})


def xmp_of(found: list[Segment]) -> bytes | None:
    """The XMP packet, if there is one."""
    return next((body[len(XMP) :] for marker, body in found if marker == _APP1 and body.startswith(XMP)), None)


def with_segments(data: bytes, exif: bytes, xmp: bytes, others: list[Segment]) -> bytes:
    """A JPEG file with EXIF (split over several segments if needed), XMP and `others` (see `carried`) inserted."""
    added: list[Segment] = []
    block, room = exif.removeprefix(EXIF), ROOM - len(EXIF)
    added += [(_APP1, EXIF + block[at : at + room]) for at in range(0, len(block), room)]
    if xmp:
        added.append((_APP1, XMP + xmp))
    written = b"".join(struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body for marker, body in (*added, *others))
    at = 2
    if data[3] == _FILE_HEADER:  # the JFIF segment must stay first
        at += 2 + struct.unpack_from(">H", data, at + 2)[0]
    return data[:at] + written + data[at:]
