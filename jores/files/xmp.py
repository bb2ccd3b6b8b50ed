"""XMP of a result: the orientation and the size are those of the upright picture, and it promises no left-out parts."""

from __future__ import annotations

import re

_ORIENTATION = re.compile(rb"""(tiff:Orientation(?:\s*=\s*["']|>\s*))[1-8]""")
_SIZES = tuple(
    (re.compile(rb"""((?:%s)(?:\s*=\s*["']|>\s*))\d+""" % names), axis)
    for names, axis in ((rb"tiff:ImageWidth|exif:PixelXDimension", 0), (rb"tiff:ImageLength|exif:PixelYDimension", 1))
)
_PROMISES = (
    (b"http://ns.google.com/photos/1.0/camera/", rb"(?:MotionPhoto|MicroVideo)\w*"),
    (b"http://ns.google.com/photos/1.0/container/", rb"Directory"),
    (b"http://ns.adobe.com/hdr-gain-map/1.0/", rb"\w+"),
    (b"http://ns.apple.com/HDRGainMap/1.0/", rb"\w+"),
)
"""Namespace, and names in it, of entries on a motion photo's film and on gain maps, which are not carried over."""


def upright(xmp: bytes, size: tuple[int, int]) -> bytes:
    """The packet for the upright picture of `size` (width, height), in pixels. Fields change or go; none are added."""
    xmp = _ORIENTATION.sub(rb"\g<1>1", xmp)
    for pattern, axis in _SIZES:
        xmp = pattern.sub(rb"\g<1>%d" % size[axis], xmp)
    for space, names in _PROMISES:
        xmp = _without(xmp, space, names)
    return xmp


def _without(xmp: bytes, space: bytes, names: bytes) -> bytes:
    """The packet without attributes and elements of these names (a regular expression) in a namespace."""
    for prefix in set(re.findall(rb"""xmlns:([\w.-]+)\s*=\s*["']%s["']""" % re.escape(space), xmp)):
        name = rb"%s:%s" % (re.escape(prefix), names)
        xmp = re.sub(rb"""\s+%s\s*=\s*(?:"[^"]*"|'[^']*')""" % name, b"", xmp)
        inside = rb"""(?:\s(?:[^<>"']|"[^"]*"|'[^']*')*?)?"""
        xmp = re.sub(rb"<(%s)%s(?:/>|>.*?</\1\s*>)" % (name, inside), b"", xmp, flags=re.DOTALL)
        if not re.search(rb"[\s<]%s:" % re.escape(prefix), xmp):  # readers take the declaration alone for a promise
            xmp = re.sub(rb"""\s+xmlns:%s\s*=\s*["']%s["']""" % (re.escape(prefix), re.escape(space)), b"", xmp)
    return xmp
