"""Picture files: what a photograph carries besides its pixels survives, and no file is ever left half-written."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from pathlib import Path

from . import heif, raw
from .decoding import BROKEN_FILE, NotAPictureError, Picture, decode
from .encoding import encode, lost
from .saving import write_whole

__all__ = ["ImageFileError", "Picture", "check_fits", "find_images", "missing", "read_image", "write_image"]

FORMATS = {
    ".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".tif": "TIFF", ".tiff": "TIFF", ".bmp": "BMP",
    ".jfif": "JPEG", ".jpe": "JPEG", ".dib": "BMP",
}  # fmt: skip
DEVELOPED = (*raw.SUFFIXES, *heif.SUFFIXES)
"""Suffixes of what is read, where the library for it is there, and written as TIFF."""

VIDEO_FORMATS = {
    ".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm", ".avi": "avi", ".ts": "mpegts",
    ".mts": "mpegts", ".m2ts": "mpegts",
}  # fmt: skip
"""Suffixes that are taken for video, and the container that FFmpeg writes for them: see `clips`."""

_UNDERSTOOD = "PNG, JPEG, WebP, TIFF or BMP"


class ImageFileError(ValueError):
    """A picture file cannot be read or written. The message names the file and says what to do."""


def find_images(
    paths: Iterable[str | os.PathLike[str]],
    suffixes: Collection[str] = tuple(FORMATS),
    *,
    skipped: list[Path] | None = None,
) -> list[Path]:
    """Expand folders into the pictures right inside them, sorted by name; files are taken as they are given.

    Args:
        suffixes: what counts as a picture inside a folder, beside the camera raw, HEIC and AVIF that can be read here;
            hidden files never do.
        skipped: gets everything else that lies in the folders.

    Raises:
        ImageFileError: a folder holds no picture, or there is nothing at all.
    """
    found: dict[Path, None] = {}
    for path in map(Path, paths):
        if not path.is_dir():
            found[path] = None
            continue
        everything = sorted(p for p in path.iterdir() if not p.name.startswith("."))
        inside = [p for p in everything if _is_readable(p.suffix.lower(), suffixes) and p.is_file()]
        if skipped is not None:
            skipped += [p for p in everything if p not in set(inside)]
        if not inside:
            raise ImageFileError(f"{path}: no picture right inside this folder ({', '.join(suffixes)})")
        found.update(dict.fromkeys(inside))
    if not found:
        raise ImageFileError("no picture was given")
    return list(found)


def _is_readable(suffix: str, suffixes: Collection[str]) -> bool:
    return suffix in suffixes or (suffix in DEVELOPED and not missing(suffix))


def missing(suffix: str) -> str:
    """What must be installed to read files of this suffix; "" for nothing, and for suffixes that are never read."""
    if suffix in raw.SUFFIXES:
        return "" if raw.available() else raw.WANTED
    if suffix in heif.SUFFIXES and not heif.available(suffix):
        return heif.HEIC_WANTED if suffix in heif.HEIC else heif.AVIF_WANTED
    return ""


def read_image(path: str | os.PathLike[str]) -> Picture:
    """Read PNG, JPEG, WebP, TIFF or BMP with 8 to 16 bits per channel, turned upright; camera raw, HEIC and AVIF where
    the libraries for them are installed. What a file is its first bytes say; camera raw goes by its suffix.

    Palettes, grey, and CMYK become RGB (CMYK through its colour profile, into sRGB). Camera raw is developed with the
    camera's white balance and without brightening. PNGs of another curve (gAMA, cICP) come on that of sRGB.

    Raises:
        ImageFileError: missing, damaged, several frames, 32 bits per channel, signed, HDR, or not a picture.
    """
    try:
        data = Path(path).read_bytes()
        return decode(data, Path(path).suffix.lower())
    except NotAPictureError as error:
        told = "the file is empty" if not data else f"not a {_UNDERSTOOD} picture, or damaged at its start"
        raise ImageFileError(f"{path}: {told}") from error
    except BROKEN_FILE as error:
        reason = getattr(error, "strerror", None) or error
        raise ImageFileError(f"{path}: cannot be read: {reason}") from error


def write_image(path: str | os.PathLike[str], picture: Picture) -> None:
    """Write a picture in the format of the suffix, replacing an existing file only once everything is on disk.

    Values are rounded to the nearest level. 16 bits are kept by PNG and TIFF; the other formats hold 8.

    Raises:
        ImageFileError: unknown suffix, transparency that the format cannot hold, or the system's refusal (disk full,
            no permission). What was there before is untouched then.
    """
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise ImageFileError(f"{path}: unknown suffix; choose one of {', '.join(FORMATS)}")
    check_fits(path, picture)
    try:
        write_whole(path, encode(picture, FORMATS[path.suffix.lower()]))
    except (ValueError, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ImageFileError(f"{path}: cannot be written: {reason}") from error


def check_fits(path: str | os.PathLike[str], picture: Picture) -> None:
    """Raises ImageFileError if the format of the suffix cannot hold something that this picture has; before the work
    that it would be in vain."""
    kind, source = FORMATS.get(Path(path).suffix.lower(), ""), picture.metadata.kind
    if found := lost(picture, kind):
        where = f"the file is {source} by its content, and " if source not in ("", kind) else ""
        told = f"{where}{kind} cannot hold {', '.join(found)}; choose PNG, WebP or TIFF"
        raise ImageFileError(f"{path}: cannot be written: {told}")
