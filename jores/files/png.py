"""Chunks of a PNG: which ones Pillow gets, which ones are copied unchanged, and colour profiles of any size."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator

SIGNATURE = b"\x89PNG\r\n\x1a\n"
TEXT = (b"tEXt", b"zTXt", b"iTXt")
COLOUR = (b"cHRM", b"gAMA", b"sRGB", b"cICP")
XMP_KEYWORD = b"XML:com.adobe.xmp"
_RAW_PROFILE = b"Raw profile type "  # EXIF as text, from before PNG had a chunk for it; Pillow reads it
_NEEDED = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"eXIf", b"acTL", b"fcTL", b"fdAT")
_STORAGE = (b"sBIT", b"bKGD", b"hIST", b"sPLT", b"tIME", b"iDOT")
_LARGEST_PROFILE = 1 << 26
_LARGEST_SHOWN = 1 << 16  # larger texts are not passed to Pillow

Chunk = tuple[bytes, bytes]


def chunks(data: bytes) -> Iterator[Chunk]:
    """Name and body of each complete chunk with a correct checksum."""
    at = len(SIGNATURE)
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        name, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        at += 12 + length
        if at <= len(data) and zlib.crc32(name + body) == struct.unpack_from(">I", data, at - 4)[0]:
            yield name, body


def lean(data: bytes) -> bytes:
    """The file without texts and profiles, of which Pillow refuses to read more than a megabyte.

    All other bytes stay unchanged, even damaged ones.
    """
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
    """Whether Pillow reads EXIF or XMP from this text, and it is small enough for Pillow after decompression."""
    if not body.startswith((_RAW_PROFILE, XMP_KEYWORD + b"\0")):
        return False
    return name == b"tEXt" or (name == b"iTXt" and body[len(XMP_KEYWORD) + 1 : len(XMP_KEYWORD) + 2] == b"\0") or (
        len(_inflated(body.partition(b"\0")[2][1:], 1 << 19) or b"") < 1 << 19
    )  # fmt: skip


def carried(found: list[Chunk]) -> list[Chunk]:
    """The chunks that are copied unchanged: texts, resolution and colour space, but not XMP and EXIF."""
    kept = (*TEXT, *COLOUR, b"pHYs", b"sTER")
    return [(name, body) for name, body in found if name in kept and not is_xmp(name, body) and not _is_exif(body)]


def dropped(found: Iterable[Chunk]) -> list[bytes]:
    """Names of the chunks that are not carried over, without those that describe how the file stores its pixels."""
    kept = {*_NEEDED, *TEXT, *COLOUR, *_STORAGE, b"pHYs", b"sTER", b"iCCP"}
    return sorted({name for name, _ in found} - kept)


def is_xmp(name: bytes, body: bytes) -> bool:
    """Whether a chunk holds XMP."""
    return name == b"iTXt" and body.startswith(XMP_KEYWORD + b"\0")


def _is_exif(body: bytes) -> bool:
    return body.startswith((_RAW_PROFILE + b"exif\0", _RAW_PROFILE + b"APP1\0", _RAW_PROFILE + b"icc\0"))


def xmp_of(found: list[Chunk]) -> bytes | None:
    """The XMP packet, if there is one that can be decompressed."""
    for name, body in found:
        if is_xmp(name, body):
            flag, rest = body[len(XMP_KEYWORD) + 1 : len(XMP_KEYWORD) + 2], body[len(XMP_KEYWORD) + 3 :]
            text = rest.partition(b"\0")[2].partition(b"\0")[2]  # after language and translated keyword
            return text if flag == b"\0" else _inflated(text, _LARGEST_PROFILE)
    return None


def xmp_chunk(xmp: bytes) -> Chunk:
    """The chunk for an XMP packet."""
    return b"iTXt", XMP_KEYWORD + b"\0\0\0\0\0" + xmp


def profile_of(found: list[Chunk]) -> bytes | None:
    """The colour profile, if there is one that can be decompressed."""
    for name, body in found:
        if name == b"iCCP":
            return _inflated(body.partition(b"\0")[2][1:], _LARGEST_PROFILE)
    return None


def density_turned(chunk: Chunk) -> Chunk:
    """A chunk after width and height were swapped: pHYs with its values swapped, others unchanged."""
    name, body = chunk
    return (name, body[4:8] + body[:4] + body[8:]) if name == b"pHYs" and len(body) == 9 else chunk


def density_chunk(resolution: tuple[float, float]) -> Chunk:
    """The pHYs chunk for horizontal and vertical dots per inch."""
    return b"pHYs", struct.pack(">IIB", *(round(dpi / 0.0254) for dpi in resolution), 1)


def with_chunks(data: bytes, extra: list[Chunk]) -> bytes:
    """The file with further chunks directly after its header. Its pHYs is removed: FFmpeg writes an arbitrary one."""
    first, *rest = (chunk for chunk in chunks(data) if chunk[0] != b"pHYs")
    return SIGNATURE + encoded((first, *extra, *rest))


def encoded(found: Iterable[Chunk]) -> bytes:
    """The bytes of chunks as in a file: length, name, body and checksum of each."""
    return b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in found
    )


def _inflated(data: bytes, largest: int) -> bytes | None:
    """Decompressed data; None if it is damaged or larger than `largest` bytes."""
    unpacker = zlib.decompressobj()
    try:
        found = unpacker.decompress(data, largest)
    except zlib.error:
        return None
    return found if unpacker.eof else None
