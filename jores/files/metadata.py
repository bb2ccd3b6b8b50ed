"""What a picture's file says besides pixels, EXIF and colour profile, and how it is written again."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace

from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from . import jpeg, png, xmp
from .light import power_of_png

Resolution = tuple[float, float]
_ROOM_FOR_XMP = jpeg.ROOM - len(jpeg.XMP)


@dataclass(frozen=True)
class Metadata:
    """Attributes:
    kind: the format that the picture was read from, as Pillow names it; "" for one that was not read.
    xmp: the XMP packet. resolution: dots per inch across and down, where neither EXIF nor `chunks` have them.
    chunks: of a PNG: texts, resolution, colours. segments: of a JPEG: comments, captions.
    lossless: a WebP's pixels were stored without loss.
    power: light = number ** power in the file, whose pixels were put onto the sRGB curve; None: nothing was changed.
    further: in words, what else the file shows besides its first picture, and what a result does not have.
    """

    kind: str = ""
    xmp: bytes | None = None
    resolution: Resolution | None = None
    chunks: tuple[png.Chunk, ...] = ()
    segments: tuple[jpeg.Segment, ...] = ()
    lossless: bool = False
    power: float | None = None
    further: tuple[str, ...] = ()

    def stripped(self) -> Metadata:
        """Only what the pixels need to be shown right."""
        colours = tuple(chunk for chunk in self.chunks if chunk[0] in png.COLOUR)
        return replace(self, xmp=None, resolution=None, chunks=colours, segments=())

    def upright(self, size: tuple[int, int], turned: bool) -> Metadata:
        """Of the picture that is `size` (width, height) pixels now. `turned`: its sides have changed places."""
        packet = xmp.upright(self.xmp, size) if self.xmp else None
        if not turned:
            return replace(self, xmp=packet)
        resolution = self.resolution and self.resolution[::-1]
        return replace(self, xmp=packet, resolution=resolution, chunks=tuple(map(png.density_turned, self.chunks)))

    def lacking(self, kind: str) -> list[str]:
        """What of this another format cannot hold."""
        found = []
        if kind != "PNG" and any(name in png.TEXT for name, _ in self.chunks):
            found.append("text chunks (a workflow?)")
        if self.xmp and (kind == "BMP" or (kind == "JPEG" and len(self.xmp) > _ROOM_FOR_XMP)):
            found.append("XMP")
        return found


def of_file(image: Image.Image, data: bytes) -> tuple[Metadata, bytes | None]:
    """Metadata and colour profile of an opened picture, as stored (not upright). Raises ValueError for HDR."""
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
        packet = image.tag_v2.get(700)
        return Metadata("TIFF", packet if isinstance(packet, bytes) else None), profile
    packet = image.info.get("xmp")
    return Metadata(kind or "", packet, lossless=kind == "WEBP" and _is_lossless(data)), profile


def _is_lossless(data: bytes) -> bool:
    """Whether a WebP's pixels are in a VP8L chunk."""
    at = 12
    while at + 8 <= len(data):
        name, length = data[at : at + 4], struct.unpack_from("<I", data, at + 4)[0]
        if name in (b"VP8L", b"VP8 "):
            return name == b"VP8L"
        at += 8 + length + length % 2
    return False
