"""The segments of a JPEG that speak of the picture, and how they are put back."""

from __future__ import annotations

import struct
from collections.abc import Iterator

XMP = b"http://ns.adobe.com/xap/1.0/\0"
LONG_XMP = b"http://ns.adobe.com/xmp/extension/\0"
EXIF = b"Exif\0\0"
ROOM = 65533  # bytes that a segment's body may have
_SCAN, _FILE_HEADER, _APP1, _APP13, _COMMENT = 0xDA, 0xE0, 0xE1, 0xED, 0xFE

Segment = tuple[int, bytes]


def segments(data: bytes) -> Iterator[Segment]:
    """Marker and body of each segment in front of the pixels."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # filling
            at += 1
            continue
        if marker == _SCAN:
            return
        (length,) = struct.unpack_from(">H", data, at + 2)
        yield marker, data[at + 4 : at + 2 + length]
        at += 2 + length


def carried(found: list[Segment]) -> list[Segment]:
    """Comments, captions (IPTC) and the second part of a long XMP, to be written again as they are."""
    return [
        (marker, body)
        for marker, body in found
        if marker in (_COMMENT, _APP13) or (marker == _APP1 and body.startswith(LONG_XMP))
    ]


def xmp_of(found: list[Segment]) -> bytes | None:
    return next((body[len(XMP) :] for marker, body in found if marker == _APP1 and body.startswith(XMP)), None)


def with_segments(data: bytes, exif: bytes, xmp: bytes, others: list[Segment]) -> bytes:
    """The file with EXIF, over several segments where one does not hold it, XMP, and what `carried` kept."""
    added: list[Segment] = []
    block, room = exif.removeprefix(EXIF), ROOM - len(EXIF)
    added += [(_APP1, EXIF + block[at : at + room]) for at in range(0, len(block), room)]
    if xmp:
        added.append((_APP1, XMP + xmp))
    written = b"".join(struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body for marker, body in (*added, *others))
    at = 2
    if data[3] == _FILE_HEADER:  # JFIF wants to be the first
        at += 2 + struct.unpack_from(">H", data, at + 2)[0]
    return data[:at] + written + data[at:]
