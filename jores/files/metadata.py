"""Metadata of a picture file besides EXIF and the colour profile."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace

from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from . import exif, jpeg, png, xmp
from .tone_curves import power_of_png

Resolution = tuple[float, float]
_ROOM_FOR_XMP = jpeg.ROOM - len(jpeg.XMP)


@dataclass(frozen=True)
class Metadata:
    """Metadata of a picture file.

    Attributes:
        kind: Pillow's name of the source's format; "" for a picture that does not come from a file.
        xmp: XMP packet.
        resolution: horizontal and vertical dots per inch, if neither EXIF nor `chunks` hold them.
        chunks: of a PNG: texts, resolution, colour space.
        segments: of a JPEG: comments, captions.
        lossless: a WebP was compressed without loss.
        power: exponent of the file's tone curve (linear light = value ** power) if the pixels were converted to sRGB;
            None if they were not.
        left_out: descriptions of what else is in the file, such as further pictures, and is not written to a result.
    """

    kind: str = ""
    xmp: bytes | None = None
    resolution: Resolution | None = None
    chunks: tuple[png.Chunk, ...] = ()
    segments: tuple[jpeg.Segment, ...] = ()
    lossless: bool = False
    power: float | None = None
    left_out: tuple[str, ...] = ()

    def stripped(self) -> Metadata:
        """A copy with only the metadata that affects the colours."""
        colours = tuple(chunk for chunk in self.chunks if chunk[0] in png.COLOUR)
        return replace(self, xmp=None, resolution=None, chunks=colours, segments=())

    def upright(self, size: tuple[int, int], turned: bool) -> Metadata:
        """The metadata of the upright picture of `size` (width, height); `turned`: width and height were swapped."""
        packet = xmp.upright(self.xmp, size) if self.xmp else None
        if not turned:
            return replace(self, xmp=packet)
        resolution = self.resolution and self.resolution[::-1]
        return replace(self, xmp=packet, resolution=resolution, chunks=tuple(map(png.density_turned, self.chunks)))

    def lacking(self, kind: str) -> list[str]:
        """Descriptions of what a format (Pillow's name) cannot hold."""
        found = []
        if kind != "PNG" and any(name in png.TEXT for name, _ in self.chunks):
            found.append("text chunks (a workflow?)")
        if self.xmp and (kind == "BMP" or (kind == "JPEG" and len(self.xmp) > _ROOM_FOR_XMP)):
            found.append("XMP")
        return found


def of_file(image: Image.Image, data: bytes) -> tuple[Metadata, bytes | None]:
    """Metadata and colour profile of an opened picture, as stored (not upright). Raises ValueError for HDR.

    `data` is the complete file.
    """
    kind, profile = "JPEG" if image.format == "MPO" else image.format, image.info.get("icc_profile")
    if kind == "PNG":
        found = list(png.chunks(data))
        power = power_of_png(dict(found))
        return Metadata(kind, png.xmp_of(found), chunks=tuple(png.carried(found)), power=power), png.profile_of(found)
    if kind == "JPEG":
        found = list(jpeg.segments(data))
        density = image.info.get("dpi") if image.info.get("jfif_unit") in (1, 2) else None
        return Metadata(kind, jpeg.xmp_of(found), density, segments=tuple(jpeg.carried(found))), profile
    if kind == "BMP":
        return Metadata(kind, resolution=image.info.get("dpi")), profile
    if isinstance(image, TiffImageFile):
        return Metadata("TIFF", exif.xmp_of_tiff(data)), profile
    packet = image.info.get("xmp")
    return Metadata(kind or "", packet, lossless=kind == "WEBP" and _is_lossless(data)), profile


def _is_lossless(data: bytes) -> bool:
    """Whether a WebP is lossless (a VP8L chunk)."""
    at = 12
    while at + 8 <= len(data):
        name, length = data[at : at + 4], struct.unpack_from("<I", data, at + 4)[0]
        if name in (b"VP8L", b"VP8 "):
            return name == b"VP8L"
        at += 8 + length + length % 2
    return False
