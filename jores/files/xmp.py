"""XMP of a picture that was rotated upright: updates its copies of the orientation and the size."""

from __future__ import annotations

import re

_ORIENTATION = re.compile(rb"""(tiff:Orientation(?:\s*=\s*["']|>\s*))[1-8]""")
_SIZES = tuple(
    (re.compile(rb"""((?:%s)(?:\s*=\s*["']|>\s*))\d+""" % names), axis)
    for names, axis in ((rb"tiff:ImageWidth|exif:PixelXDimension", 0), (rb"tiff:ImageLength|exif:PixelYDimension", 1))
)


def upright(xmp: bytes, size: tuple[int, int]) -> bytes:
    """The packet for the upright picture of `size` (width, height), in pixels. Changes fields, but adds none."""
    xmp = _ORIENTATION.sub(rb"\g<1>1", xmp)
    for pattern, axis in _SIZES:
        xmp = pattern.sub(rb"\g<1>%d" % size[axis], xmp)
    return xmp
