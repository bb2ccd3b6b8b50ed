"""EXIF of a picture that was rotated upright. The block is changed in place, so that offsets in maker notes stay valid.

A block starts with "Exif" and two zero bytes, as in Pillow; a TIFF without a picture follows.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from PIL import ExifTags, Image

from . import ifd

logger = logging.getLogger(__name__)

BROKEN = (ValueError, TypeError, KeyError, OverflowError, SyntaxError, struct.error)
PREFIX = b"Exif\0\0"
_ORIENTATION, _XMP = 0x0112, 700
_SIZES = {0x0100: 0, 0x0101: 1, 0xA002: 0, 0xA003: 1}  # ImageWidth, ImageLength, PixelXDimension, PixelYDimension
_ACROSS_AND_DOWN = ((0x011A, 0x011B), (0xA20E, 0xA20F))  # resolutions of the picture and of the focal plane
_THUMBNAIL_AT, _THUMBNAIL_LENGTH = 0x0201, 0x0202


# The tags of a TIFF that describe the photograph; the others describe how the file stores its pixels.
_DESCRIPTIVE_TAGS = {
    ExifTags.Base.ImageDescription, ExifTags.Base.Make, ExifTags.Base.Model, ExifTags.Base.Software,
    ExifTags.Base.DateTime, ExifTags.Base.Artist, ExifTags.Base.Copyright, ExifTags.Base.XResolution,
    ExifTags.Base.YResolution, ExifTags.Base.ResolutionUnit, ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo,
    ExifTags.Base.DocumentName, ExifTags.Base.PageName, ExifTags.Base.HostComputer, ExifTags.Base.Rating,
    ExifTags.Base.RatingPercent, ExifTags.Base.XPTitle, ExifTags.Base.XPComment, ExifTags.Base.XPAuthor,
    ExifTags.Base.XPKeywords, ExifTags.Base.XPSubject, 33723,  # the last one: captions (IPTC)
    # what TIFF/EP, the base of most camera raw, says of the exposure in its first table
    ExifTags.Base.ExposureTime, ExifTags.Base.FNumber, ExifTags.Base.ExposureProgram, ExifTags.Base.ISOSpeedRatings,
    ExifTags.Base.DateTimeOriginal, *range(37377, 37387), ExifTags.Base.PrintImageMatching,
}  # fmt: skip

# Tags of a TIFF that describe how it stores its pixels, or that are kept otherwise: orientation, profile, XMP.
_STORAGE_TAGS = {
    *range(254, 267), *range(273, 282), 284, *range(288, 294), 297, 301, *range(317, 326), 330, *range(332, 348),
    *range(512, 533), 700, ExifTags.Base.InterColorProfile, 59932,
}  # fmt: skip


def dropped(tags: Iterable[int]) -> list[int]:
    """The tags of a TIFF that are not carried over, without those that describe how the file stores its pixels."""
    return sorted(set(tags) - _STORAGE_TAGS - _DESCRIPTIVE_TAGS)


def of_the_photograph(tags: Iterable[int]) -> set[int]:
    """The tags of an EXIF block that a TIFF may have, whose own tags say how it stores its pixels."""
    return set(tags) - _STORAGE_TAGS | (set(tags) & {_XMP})


def of_tiff(data: bytes) -> bytes | None:
    """The EXIF block of a TIFF: the tags that describe the photograph."""
    try:
        return made(*ifd.read(data))
    except ValueError:
        return None


def made(order: str, table: ifd.Table) -> bytes | None:
    """The EXIF block with the tags of a table that describe the photograph; None if there are none."""
    kept = {tag: one for tag, one in table.items() if tag in _DESCRIPTIVE_TAGS}
    return PREFIX + ifd.built(order, kept) if kept else None


def xmp_of_tiff(data: bytes) -> bytes | None:
    """The XMP packet of a TIFF, whatever type it is stored with."""
    try:
        found = ifd.read(data)[1].get(_XMP)
    except ValueError:
        return None
    return found.data.rstrip(b"\0") or None if found else None


@dataclass(frozen=True)
class _Entry:
    tag: int
    kind: int
    at: int  # offset of the entry in the block


def upright(block: bytes, size: tuple[int, int], turned: bool) -> bytes:
    """The block for the upright picture of `size` (width, height) in pixels, without its thumbnail.

    Existing tags are changed and none are added, so that the block does not grow beyond its segment.

    Args:
        turned: whether width and height were swapped.

    Raises:
        ValueError: the block is damaged.
    """
    try:
        return PREFIX + _Block(block.removeprefix(PREFIX)).upright(size, turned)
    except (struct.error, IndexError, OverflowError) as error:
        raise ValueError(f"EXIF block damaged: {error}") from error


def read(image: Image.Image) -> Image.Exif:
    """EXIF as parsed by Pillow; empty if it is damaged."""
    try:
        return image.getexif()
    except BROKEN as error:
        logger.warning("EXIF is dropped, because it cannot be read: %s", error)
        return Image.Exif()


def block_of(image: Image.Image, data: bytes) -> bytes | None:
    """The EXIF block of an opened picture; `data` is the complete file."""
    if image.format == "TIFF":
        return of_tiff(data)
    if (found := image.info.get("exif")) is not None:
        return found
    text = str(image.info.get("Raw profile type exif", ""))  # as in PNGs from before there was a chunk for it
    try:
        return bytes.fromhex("".join(text.split("\n")[3:])) or None
    except ValueError:
        return None


def rewritten(block: bytes | None, size: tuple[int, int], turned: bool) -> bytes | None:
    """The EXIF block for a result: changed in place, or if it is damaged, made anew of what can be read of it.

    None if there is none, or nothing of it can be read: damaged EXIF must not prevent writing the picture.

    Args:
        size, turned: as in `upright`.
    """
    if not block:
        return None
    try:
        return upright(block, size, turned)
    except ValueError as error:
        logger.info("EXIF is written anew: %s", error)
    try:
        order, table = ifd.read(block.removeprefix(PREFIX))
        return upright(PREFIX + ifd.built(order, table), size, turned) if table else None
    except BROKEN as error:
        logger.warning("EXIF is dropped, because it is damaged: %s", error)
        return None


class _Block:
    def __init__(self, tiff: bytes) -> None:
        if tiff[:4] not in (b"II*\0", b"MM\0*"):
            raise ValueError("EXIF block damaged: it does not start with a TIFF header")
        self.data, self.order = bytearray(tiff), "<" if tiff[:2] == b"II" else ">"

    def upright(self, size: tuple[int, int], turned: bool) -> bytes:
        first = self._number("I", 4)
        tables = [list(self._entries(first))]
        for entry in tables[0]:
            if entry.tag == ifd.EXIF:
                tables.append(list(self._entries(self._number("I", entry.at + 8))))
        for entries in tables:
            for entry in entries:
                if entry.tag == _ORIENTATION:
                    self._set(entry, 1)
                elif entry.tag in _SIZES:
                    self._set(entry, size[_SIZES[entry.tag]])
            if turned:
                self._swap(entries)
        self._drop_thumbnail(first)
        return bytes(self.data)

    def _drop_thumbnail(self, first: int) -> None:
        """Removes the thumbnail, which shows the original: truncates the block, or overwrites it with zeros."""
        link = first + 2 + 12 * self._number("H", first)
        second = self._number("I", link)
        struct.pack_into(self.order + "I", self.data, link, 0)
        if not second:
            return
        found = {e.tag: self._number("I", e.at + 8) for e in self._entries(second) if e.kind == ifd.LONG}
        at, length = found.get(_THUMBNAIL_AT, 0), found.get(_THUMBNAIL_LENGTH, 0)
        if second < at and length and at + length <= len(self.data):
            if at + length == len(self.data):
                del self.data[at:]
            else:
                self.data[at : at + length] = bytes(length)

    def _entries(self, table: int) -> Iterator[_Entry]:
        for index in range(self._number("H", table)):
            at = table + 2 + 12 * index
            yield _Entry(self._number("H", at), self._number("H", at + 2), at)

    def _number(self, code: str, at: int) -> int:
        return struct.unpack_from(self.order + code, self.data, at)[0]

    def _set(self, entry: _Entry, value: int) -> None:
        if entry.kind in (ifd.SHORT, ifd.LONG):
            value = min(value, 0xFFFF) if entry.kind == ifd.SHORT else value
            struct.pack_into(self.order + ("H" if entry.kind == ifd.SHORT else "I"), self.data, entry.at + 8, value)

    def _swap(self, entries: list[_Entry]) -> None:
        places = {entry.tag: slice(entry.at + 8, entry.at + 12) for entry in entries}
        for pair in _ACROSS_AND_DOWN:
            if all(tag in places for tag in pair):
                across, down = (places[tag] for tag in pair)
                self.data[across], self.data[down] = self.data[down], self.data[across]
