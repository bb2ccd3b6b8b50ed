"""XMP after a picture was turned upright: it repeats the orientation and the size, and readers believe it."""

from __future__ import annotations

import re

_ORIENTATION = re.compile(rb"""(tiff:Orientation(?:\s*=\s*["']|>\s*))[1-8]""")
_SIZES = tuple(
    (re.compile(rb"""((?:%s)(?:\s*=\s*["']|>\s*))\d+""" % names), axis)
    for names, axis in ((rb"tiff:ImageWidth|exif:PixelXDimension", 0), (rb"tiff:ImageLength|exif:PixelYDimension", 1))
)


def upright(xmp: bytes, size: tuple[int, int]) -> bytes:
    """The packet of a picture that is upright now, of `size` (width, height) pixels. Only what is there is changed."""
    xmp = _ORIENTATION.sub(rb"\g<1>1", xmp)
    for pattern, axis in _SIZES:
        xmp = pattern.sub(rb"\g<1>%d" % size[axis], xmp)
    return xmp
