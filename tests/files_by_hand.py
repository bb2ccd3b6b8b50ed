"""Picture files that no library writes, made byte by byte for the tests."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import torch

from jores.files import png
from jores.files.pictures import Picture, read_image, write_image

SIZE = (12, 20)  # height, width


def levels(channels: int = 3, bits: int = 8) -> np.ndarray:
    found = np.random.default_rng(bits).integers(0, 2**bits // 4, (*SIZE, channels))
    return found.astype(np.uint8 if bits == 8 else np.uint16)


def written_again(path: Path) -> Path:
    target = path.with_name(f"again {path.name}")
    write_image(target, read_image(path))
    return target


def with_png_chunks(data: bytes, *extra: tuple[bytes, bytes]) -> bytes:
    made = b"".join(
        struct.pack(">I", len(b)) + n + b + struct.pack(">I", zlib.crc32(n + b)) for n, b in extra
    )  # fmt: skip
    return data[:33] + made + data[33:]


def png_of(array: np.ndarray, *extra: tuple[bytes, bytes], kind: int | None = None) -> bytes:
    """A PNG by hand, of uint8 or uint16 levels (H, W, C)."""
    height, width, channels = array.shape
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels] if kind is None else kind
    rows = b"".join(b"\0" + row.astype(array.dtype.newbyteorder(">")).tobytes() for row in array)
    header = struct.pack(">IIBBBBB", width, height, array.itemsize * 8, kind, 0, 0, 0)
    return with_png_chunks(
        png.SIGNATURE + struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header)),
        *extra, (b"IDAT", zlib.compress(rows)), (b"IEND", b""),
    )  # fmt: skip


def packed(values: np.ndarray, bits: int) -> bytes:
    """Rows of numbers, the highest bit first."""
    rows = values.reshape(len(values), -1)
    spread = (rows[..., None] >> np.arange(bits - 1, -1, -1)) & 1
    return np.packbits(spread.reshape(len(rows), -1).astype(np.uint8), axis=1).tobytes()


def tiff_of(pixels: bytes, bits: int, channels: int, *extra: tuple[int, int, int], order: str = "<") -> bytes:
    """A TIFF by hand, of one strip."""
    tags = {256: SIZE[1], 257: SIZE[0], 259: 1, 262: 2 if channels > 2 else 1, 273: 8, 277: channels, 278: SIZE[0],
            279: len(pixels)} | {tag: value for tag, _, value in extra}  # fmt: skip
    entries = [(tag, 4, 1, value) for tag, value in tags.items()]
    behind = 8 + len(pixels)
    where = behind + 2 + 12 * (len(entries) + 1) + 4
    entries.append((258, 3, channels, where if channels > 2 else bits if order == "<" else bits << 16))
    if channels == 2:
        entries[-1] = (258, 3, 2, bits | bits << 16)
    table = b"".join(struct.pack(order + "HHII", *entry) for entry in sorted(entries))
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", behind)
    depths = struct.pack(order + f"{channels}H", *[bits] * channels)
    return start + pixels + struct.pack(order + "H", len(entries)) + table + bytes(4) + depths


Tags = dict[int, tuple[int, bytes]]  # by tag: type, and bytes as stored
WIDTHS = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 7: 1}


def exif_of(order: str, first: Tags, inner: Tags | None = None, pixels: bytes = b"", note_at: int = 0) -> bytes:
    """A TIFF of tags by hand. `inner`: those of its EXIF table; `pixels` start at offset 8; `note_at`: a maker note."""
    out = bytearray((b"II*\0" if order == "<" else b"MM\0*") + bytes(4) + pixels)
    if inner and note_at:
        out += bytes(note_at - len(out)) + inner[0x927C][1]

    def table(tags: Tags) -> int:
        made = b""
        for tag, (kind, data) in sorted(tags.items()):
            at = note_at if tag == 0x927C and note_at else len(out)
            if len(data) > 4 and at == len(out):
                out.extend(data + bytes(len(data) % 2))
            value = data.ljust(4, b"\0") if len(data) <= 4 else struct.pack(order + "I", at)
            made += struct.pack(order + "HHI", tag, kind, len(data) // WIDTHS[kind]) + value
        out.extend(bytes(len(out) % 2))
        start = len(out)
        out.extend(struct.pack(order + "H", len(tags)) + made + bytes(4))
        return start

    pointer = {0x8769: (4, struct.pack(order + "I", table(inner)))} if inner else {}
    struct.pack_into(order + "I", out, 4, table(first | pointer))
    return bytes(out)


def photograph(order: str, bits: int, first: Tags, inner: Tags | None = None, note_at: int = 0) -> bytes:
    """A TIFF of three channels with these tags."""
    pixels = levels(3, bits).astype(f"{order}u{bits // 8}").tobytes()
    numbers = {256: SIZE[1], 257: SIZE[0], 259: 1, 262: 2, 273: 8, 277: 3, 278: SIZE[0], 279: len(pixels)}
    stored = {tag: (4, struct.pack(order + "I", number)) for tag, number in numbers.items()}
    stored[258] = 3, struct.pack(order + "3H", bits, bits, bits)
    return exif_of(order, stored | first, inner, pixels, note_at)


def tags_of(data: bytes, table: int = 0) -> dict[int, tuple[int, bytes, int]]:
    """Type, bytes and offset of each tag of the first table of a TIFF, or of the one that starts at `table`."""
    order = "<" if data[:2] == b"II" else ">"
    at = table or struct.unpack_from(order + "I", data, 4)[0]
    found = {}
    for place in range(at + 2, at + 2 + 12 * struct.unpack_from(order + "H", data, at)[0], 12):
        tag, kind, count = struct.unpack_from(order + "HHI", data, place)
        size = WIDTHS[kind] * count
        start = place + 8 if size <= 4 else struct.unpack_from(order + "I", data, place + 8)[0]
        found[tag] = kind, data[start : start + size], start
    return found


def inner_tags_of(data: bytes) -> dict[int, tuple[int, bytes, int]]:
    """As `tags_of`, of the EXIF table."""
    order = "<" if data[:2] == b"II" else ">"
    return tags_of(data, struct.unpack(order + "I", tags_of(data)[0x8769][1])[0])


def picture(path: Path, value: float = 0.1) -> Path:
    """A grey one of 12 x 9 pixels; returns `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(path, Picture(torch.full((3, 9, 12), value)))
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
