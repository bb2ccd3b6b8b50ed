"""The chunks of a PNG: what Pillow need not see, what is carried over as it is, and colour profiles of any size."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

SIGNATURE = b"\x89PNG\r\n\x1a\n"
TEXT = (b"tEXt", b"zTXt", b"iTXt")
COLOUR = (b"cHRM", b"gAMA", b"sRGB", b"cICP")
XMP_KEYWORD = b"XML:com.adobe.xmp"
_RAW_PROFILE = b"Raw profile type "  # how programs kept EXIF before there was a chunk for it; Pillow understands it
_NEEDED = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"eXIf", b"acTL", b"fcTL", b"fdAT")
_LARGEST_PROFILE = 1 << 26
_LARGEST_SHOWN = 1 << 16  # of the texts that Pillow is still shown

Chunk = tuple[bytes, bytes]


def chunks(data: bytes) -> Iterator[Chunk]:
    """Name and body of each whole chunk whose checksum is right."""
    at = len(SIGNATURE)
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        name, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        at += 12 + length
        if at <= len(data) and zlib.crc32(name + body) == struct.unpack_from(">I", data, at - 4)[0]:
            yield name, body


def lean(data: bytes) -> bytes:
    """The file without the texts and profiles that Pillow refuses to read past a megabyte; the rest byte by byte,
    damage included."""
    parts, at = [data[: len(SIGNATURE)]], len(SIGNATURE)
    while at + 8 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        name, end = data[at + 4 : at + 8], at + 12 + length
        known = name in _NEEDED or not name.isalpha() or not name[:1].islower()
        if known or (name in TEXT and length <= _LARGEST_SHOWN and _is_shown(name, data[at + 8 : at + 8 + length])):
            parts.append(data[at:end])
        at = end
    return b"".join(parts)


def _is_shown(name: bytes, body: bytes) -> bool:
    """Whether Pillow looks for the orientation in this text; no longer than it allows once it is unpacked."""
    if not body.startswith((_RAW_PROFILE, XMP_KEYWORD + b"\0")):
        return False
    return name == b"tEXt" or (name == b"iTXt" and body[len(XMP_KEYWORD) + 1 : len(XMP_KEYWORD) + 2] == b"\0") or (
        len(_inflated(body.partition(b"\0")[2][1:], 1 << 19) or b"") < 1 << 19
    )  # fmt: skip


def carried(found: list[Chunk]) -> list[Chunk]:
    """Texts, resolution and colours, to be written again as they are; XMP and EXIF are not among them."""
    kept = (*TEXT, *COLOUR, b"pHYs", b"sTER")
    return [(name, body) for name, body in found if name in kept and not is_xmp(name, body) and not _is_exif(body)]


def is_xmp(name: bytes, body: bytes) -> bool:
    return name == b"iTXt" and body.startswith(XMP_KEYWORD + b"\0")


def _is_exif(body: bytes) -> bool:
    return body.startswith((_RAW_PROFILE + b"exif\0", _RAW_PROFILE + b"APP1\0", _RAW_PROFILE + b"icc\0"))


def xmp_of(found: list[Chunk]) -> bytes | None:
    for name, body in found:
        if is_xmp(name, body):
            flag, rest = body[len(XMP_KEYWORD) + 1 : len(XMP_KEYWORD) + 2], body[len(XMP_KEYWORD) + 3 :]
            text = rest.partition(b"\0")[2].partition(b"\0")[2]  # behind language and translated keyword
            return text if flag == b"\0" else _inflated(text, _LARGEST_PROFILE)
    return None


def xmp_chunk(xmp: bytes) -> Chunk:
    return b"iTXt", XMP_KEYWORD + b"\0\0\0\0\0" + xmp


def profile_of(found: list[Chunk]) -> bytes | None:
    """The colour profile, if it can be unpacked."""
    for name, body in found:
        if name == b"iCCP":
            return _inflated(body.partition(b"\0")[2][1:], _LARGEST_PROFILE)
    return None


def density_turned(chunk: Chunk) -> Chunk:
    """pHYs after width and height changed places."""
    name, body = chunk
    return (name, body[4:8] + body[:4] + body[8:]) if name == b"pHYs" and len(body) == 9 else chunk


def density_chunk(resolution: tuple[float, float]) -> Chunk:
    """pHYs of dots per inch, across and down."""
    return b"pHYs", struct.pack(">IIB", *(round(dpi / 0.0254) for dpi in resolution), 1)


def with_chunks(data: bytes, extra: list[Chunk]) -> bytes:
    """The file with further chunks right behind its header, where all of them may be. A resolution that the encoder
    made up (FFmpeg does) goes."""
    first, *rest = (chunk for chunk in chunks(data) if chunk[0] != b"pHYs")
    written = (
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in (first, *extra, *rest)
    )
    return SIGNATURE + b"".join(written)


def _inflated(data: bytes, largest: int) -> bytes | None:
    """None: damaged, or larger than that."""
    unpacker = zlib.decompressobj()
    try:
        found = unpacker.decompress(data, largest)
    except zlib.error:
        return None
    return found if unpacker.eof else None
