"""TIFFs that neither Pillow nor FFmpeg reads right: odd numbers of bits per channel, grey with alpha, numbers that are
no levels."""

from __future__ import annotations

import io
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import TiffImagePlugin

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER = 256, 257, 258, 259, 262, 266
_OFFSETS, _SAMPLES, _ROWS, _LENGTHS, _LARGEST, _PLANAR, _PREDICTOR = 273, 277, 278, 279, 281, 284, 317
_TILE, _EXTRA, _FORMAT = 322, 338, 339
_PLAIN, _DEFLATED = (1,), (8, 32946)
_SUB_PICTURES = 330
_SIGNED, _FLOATING = (2, 5), (3, 6)  # SampleFormat, of plain and of complex numbers
_ROWS_AT_ONCE = 256  # a bit becomes a byte while they are sorted

Tags = Mapping[int, Any]


def tags_of(data: bytes) -> Tags:
    """The tags of the first page; empty where there are none. Raises what Pillow raises for damaged ones."""
    if data[:4] not in MAGIC:
        return {}
    table = TiffImagePlugin.ImageFileDirectory_v2(data[: 16 if 43 in data[2:4] else 8])
    file = io.BytesIO(data)
    file.seek(table.next)
    table.load(file)
    return table


def pages(tags: Tags) -> int:
    """1, or 2 for more."""
    return 2 if getattr(tags, "next", 0) else 1


def sub_pictures(tags: Tags) -> int:
    """How many pictures (reduced copies, usually) hang on the first page."""
    return len(_all(tags, _SUB_PICTURES, 0)) if _SUB_PICTURES in tags else 0


def refuse_other_numbers(tags: Tags) -> None:
    """Raises ValueError for floating-point and signed numbers: they do not say which of them is black, or white."""
    kinds = _all(tags, _FORMAT, 1)
    if any(kind in _FLOATING for kind in kinds):
        raise ValueError("it holds floating-point numbers (float); save it with 8 or 16 bits per channel")
    if any(kind in _SIGNED for kind in kinds):
        raise ValueError("it holds signed numbers, and does not say which of them is black; save it unsigned")


def depth_of(tags: Tags) -> int:
    """Bits of each channel that carry light. 16 may hold fewer: those whose largest value is said to be 1023, 4095 or
    another 2^n - 1 come from cameras of so many bits."""
    bits = max(_all(tags, _BITS, 1))
    largest = max(_all(tags, _LARGEST, 0))
    used = largest.bit_length()
    return used if bits == 16 and 8 < used < 16 and largest == 2**used - 1 else bits


def is_odd(tags: Tags) -> bool:
    """Whether `levels_16` must read it."""
    bits, samples = set(_all(tags, _BITS, 1)), tags.get(_SAMPLES, 1)
    known = (1, 2, 4, 8) if samples == 1 else (8,)  # Pillow's numbers of bits below 16
    planar = samples == 2 and tags.get(_PLANAR, 1) == 2
    return any(n < 16 and n not in known for n in bits) or (bits == {16} and samples == 2) or planar


def levels_16(data: bytes, tags: Tags) -> np.ndarray:
    """uint16 (H, W) or (H, W, 3 or 4) in the full range of 16 bits, as stored (not upright), alpha straight.

    Raises:
        ValueError: a form that is not understood, or not enough bytes.
    """
    height, width, samples = int(tags[_HEIGHT]), int(tags[_WIDTH]), int(tags.get(_SAMPLES, 1))
    bits, kind = set(_all(tags, _BITS, 1)), tags.get(_PHOTOMETRIC)
    unknown = (
        len(bits) != 1 or _TILE in tags or tags.get(_FILL_ORDER, 1) != 1 or kind not in (0, 1, 2)
        or tags.get(_COMPRESSION, 1) not in (*_PLAIN, *_DEFLATED) or samples > 4
        or samples not in ((3, 4) if kind == 2 else (1, 2))
    )  # fmt: skip
    depth = max(bits)
    predictor = tags.get(_PREDICTOR, 1)
    if unknown or predictor > 2 or (predictor == 2 and depth != 16):
        told = f"a TIFF of {depth} bits per channel in a form that is not understood"
        raise ValueError(f"{told}; save it with 8 or 16 bits, in strips, not compressed or deflated, or as PNG")
    planes = samples if tags.get(_PLANAR, 1) == 2 else 1
    parts = [_plane(data, tags, plane, (height, width, samples // planes), depth) for plane in range(planes)]
    levels = np.concatenate(parts, 2) if planes > 1 else parts[0]
    top = 2**depth - 1
    full = np.rint(levels * (65535 / top)).astype(np.uint16) if depth < 16 else levels
    if kind == 0:
        full[..., 0] = 65535 - full[..., 0]
    if samples in (2, 4) and 1 in _all(tags, _EXTRA, 0):  # premultiplied
        colours, alpha = full[..., :-1], np.maximum(full[..., -1:], 1) / 65535
        full[..., :-1] = np.rint(np.minimum(colours / alpha, 65535))
    if samples == 2:
        return full[..., [0, 0, 0, 1]]
    return full[..., 0] if samples == 1 else full


def _plane(data: bytes, tags: Tags, plane: int, shape: tuple[int, int, int], depth: int) -> np.ndarray:
    height, width, samples = shape
    rows = min(int(tags.get(_ROWS, height)), height)
    count = -(-height // rows)
    offsets, lengths = _all(tags, _OFFSETS, 0), _all(tags, _LENGTHS, len(data))
    stride = -(-width * samples * depth // 8)
    order = ">u2" if data[:2] == b"MM" else "<u2"
    found = np.empty(shape, np.uint16)
    for index in range(count):
        top = index * rows
        bottom, at = min(top + rows, height), offsets[plane * count + index]
        strip = data[at : at + lengths[plane * count + index]]
        wanted = stride * (bottom - top)
        if tags.get(_COMPRESSION, 1) in _DEFLATED:
            strip = zlib.decompressobj().decompress(strip, wanted)
        if len(strip) < wanted:
            raise ValueError("image file is truncated")
        packed = np.frombuffer(strip, np.uint8, wanted).reshape(-1, stride)
        part = packed.view(order).astype(np.uint16) if depth == 16 else _unpacked(packed, width * samples, depth)
        found[top:bottom] = part.reshape(-1, width, samples)
        if tags.get(_PREDICTOR, 1) == 2:
            np.cumsum(found[top:bottom], axis=1, dtype=np.uint16, out=found[top:bottom])
    return found


def _unpacked(packed: np.ndarray, count: int, depth: int) -> np.ndarray:
    """(rows, bytes) -> (rows, count): numbers of `depth` bits, the highest bit first, whatever the byte order."""
    weights = 1 << np.arange(depth - 1, -1, -1, dtype=np.uint16)
    found = np.empty((len(packed), count), np.uint16)
    for top in range(0, len(packed), _ROWS_AT_ONCE):
        some = packed[top : top + _ROWS_AT_ONCE]
        bits = np.unpackbits(some, axis=1, count=count * depth).reshape(len(some), count, depth)
        found[top : top + _ROWS_AT_ONCE] = bits @ weights
    return found


def _all(tags: Tags, tag: int, default: int) -> tuple[int, ...]:
    value = tags.get(tag, default)
    return tuple(value) if isinstance(value, tuple) and value else (default if isinstance(value, tuple) else value,)
