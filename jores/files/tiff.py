"""Reads TIFFs that neither Pillow nor FFmpeg reads correctly: unusual bit depths, and grey with alpha."""

from __future__ import annotations

import io
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import TiffImagePlugin

_BIG, _BIG_MOTOROLA = b"II+\0", b"MM\0+"
MAGIC = (b"II*\0", b"MM\0*", _BIG, _BIG_MOTOROLA)
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER = 256, 257, 258, 259, 262, 266
_OFFSETS, _SAMPLES, _ROWS, _LENGTHS, _LARGEST, _PLANAR, _PREDICTOR = 273, 277, 278, 279, 281, 284, 317
_TILE, _EXTRA, _FORMAT = 322, 338, 339
_PLAIN, _DEFLATED = (1,), (8, 32946)
_SUB_PICTURES = 330
_SIGNED, _FLOATING = (2, 5), (3, 6)  # values of SampleFormat, for real and complex numbers
_ROWS_AT_ONCE = 256  # limits memory: unpacking needs a byte per bit

Tags = Mapping[int, Any]


def tags_of(data: bytes) -> Tags:
    """Tags of the first page; empty for other files. Damaged tags raise the exceptions of Pillow."""
    if data[:4] not in MAGIC:
        return {}
    if data[:4] == _BIG_MOTOROLA:
        raise ValueError("a BigTIFF in big-endian byte order is not supported; save it as TIFF")
    table = TiffImagePlugin.ImageFileDirectory_v2(data[: 16 if 43 in data[2:4] else 8])
    file = io.BytesIO(data)
    file.seek(table.next)
    table.load(file)
    return table


def pages(tags: Tags) -> int:
    """1 for a single page, 2 for several pages."""
    return 2 if getattr(tags, "next", 0) else 1


def sub_pictures(tags: Tags) -> int:
    """Number of sub-images of the first page (usually reduced copies)."""
    return len(_all(tags, _SUB_PICTURES, 0)) if _SUB_PICTURES in tags else 0


def refuse_other_numbers(tags: Tags) -> None:
    """Raises ValueError for floating-point and signed values: it is not defined which values are black and white."""
    kinds = _all(tags, _FORMAT, 1)
    if any(kind in _FLOATING for kind in kinds):
        raise ValueError("it has floating-point values; save it with 8 or 16 bits per channel")
    if any(kind in _SIGNED for kind in kinds):
        raise ValueError("it has signed values, and it is not defined which one is black; save it unsigned")


def depth_of(tags: Tags) -> int:
    """Bits per channel that are used.

    Of 16 bits they can be fewer: if MaxSampleValue is 2^n - 1, for example 1023 or 4095, the camera used n bits.
    """
    bits = max(_all(tags, _BITS, 1))
    largest = max(_all(tags, _LARGEST, 0))
    used = largest.bit_length()
    return used if bits == 16 and 8 < used < 16 and largest == 2**used - 1 else bits


def unused_channels(tags: Tags, alpha: bool) -> int:
    """Number of channels besides colours and, with `alpha`, one alpha channel: stored selections, for example."""
    return max(0, len(_all(tags, _EXTRA, 0)) - alpha) if _EXTRA in tags else 0


def is_odd(data: bytes, tags: Tags) -> bool:
    """Whether this TIFF must be read by `levels_16`. FFmpeg, which reads 16 bits, does not know BigTIFF."""
    bits, samples = set(_all(tags, _BITS, 1)), tags.get(_SAMPLES, 1)
    known = (1, 2, 4, 8) if samples == 1 else (8,)  # bit depths below 16 that Pillow reads
    planar = samples == 2 and tags.get(_PLANAR, 1) == 2
    big = data[:4] == _BIG and bits == {16} and samples > 1
    return any(n < 16 and n not in known for n in bits) or (bits == {16} and samples == 2) or planar or big


def levels_16(data: bytes, tags: Tags) -> np.ndarray:
    """uint16 levels (H, W) or (H, W, 2, 3 or 4), scaled to 16 bits, as stored (not upright), with straight alpha.

    Raises:
        ValueError: a variant that is not supported, or a truncated file.
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
        message = f"a TIFF with {depth} bits per channel in a variant that is not supported"
        raise ValueError(f"{message}; save it as PNG, or with 8 or 16 bits in strips, uncompressed or with deflate")
    planes = samples if tags.get(_PLANAR, 1) == 2 else 1
    parts = [_plane(data, tags, plane, (height, width, samples // planes), depth) for plane in range(planes)]
    levels = np.concatenate(parts, 2) if planes > 1 else parts[0]
    full = in_16_bits(levels, depth)
    if kind == 0:
        full[..., 0] = 65535 - full[..., 0]
    if samples in (2, 4) and 1 in _all(tags, _EXTRA, 0):  # premultiplied
        make_straight(full)
    if samples in (2, 4) and _all(tags, _EXTRA, 2)[0] == 0:  # no alpha, but a channel of another meaning
        full, samples = full[..., :-1], samples - 1
    return full[..., 0] if samples == 1 else full


def in_16_bits(levels: np.ndarray, depth: int) -> np.ndarray:
    """uint16 levels of `depth` bits, scaled so that the highest one is 65535."""
    if depth >= 16:
        return levels
    return np.minimum(np.rint(levels * (65535 / (2**depth - 1))), 65535).astype(np.uint16)


def make_straight(levels: np.ndarray) -> None:
    """Divides the colours of uint16 levels (H, W, 2 or 4) by their alpha, in place."""
    alpha = np.maximum(levels[..., -1:], 1) / 65535
    levels[..., :-1] = np.rint(np.minimum(levels[..., :-1] / alpha, 65535))


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
    """(rows, bytes) -> (rows, count): values of `depth` bits each, most significant bit first, in any byte order."""
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
