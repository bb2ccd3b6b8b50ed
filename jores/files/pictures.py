"""Picture files: finds, reads and writes them. Metadata is kept, and results are written atomically."""

from __future__ import annotations

import glob
import os
from collections.abc import Collection, Iterable
from pathlib import Path

from . import heif, raw
from .decoding import BROKEN_FILE, NotAPictureError, Picture, decode
from .encoding import encode, lost
from .saving import write_atomically
from .suffixes import DEVELOPED, FORMATS

__all__ = [
    "ImageFileError", "Picture", "check_fits", "expand", "find_images", "missing", "read_image", "readable",
    "write_image",
]  # fmt: skip

_UNDERSTOOD = "PNG, JPEG, WebP, TIFF, BMP, HEIC or AVIF"


class ImageFileError(ValueError):
    """A picture file cannot be read or written. The message names the file and says what to do."""


def expand(paths: Iterable[Path]) -> list[Path]:
    """The paths with patterns of * and ? replaced by what fits, sorted by name, as most shells but Windows' do.

    Brackets are no part of a pattern, because cameras and browsers write them into names.

    Raises:
        ImageFileError: nothing fits a pattern.
    """
    found: list[Path] = []
    for path in paths:
        if not set("*?") & set(str(path)) or os.path.lexists(path):
            found.append(path)
            continue
        fitting = sorted(map(Path, glob.glob(str(path).replace("[", "[[]"))))
        if not fitting:
            raise ImageFileError(f"no file fits {path}")
        found += fitting
    return found


def find_images(
    paths: Iterable[str | os.PathLike[str]],
    suffixes: Collection[str] = tuple(FORMATS),
    *,
    skipped: list[Path] | None = None,
    barren: list[Path] | None = None,
) -> list[Path]:
    """Expands folders to the pictures directly in them, sorted by name. Paths of files are returned unchanged.

    Args:
        suffixes: suffixes of pictures, in lower case. Camera raw, HEIC and AVIF are added if they can be read here.
            Hidden files are ignored.
        skipped: a list to which all other entries of the folders are added.
        barren: a list to which the folders without a picture are added, if another path gives one. None: one of them
            is enough for an error.

    Raises:
        ImageFileError: no path gives a picture, or a folder gives none and `barren` is None; or `paths` is empty.
    """
    found: dict[Path, None] = {}
    without: list[Path] = []
    for path in map(Path, paths):
        inside = _inside(path, suffixes, skipped) if path.is_dir() else [path]
        found.update(dict.fromkeys(inside))
        without += [] if inside else [path]
    if without and (barren is None or not found):
        folders = sum(p.is_dir() for p in without[0].iterdir() if not p.name.startswith("."))
        hint = f"; the {folders} folder(s) in it are not searched: name them" if folders else ""
        raise ImageFileError(f"{without[0]}: no picture directly in this folder ({readable(suffixes)}){hint}")
    if not found:
        raise ImageFileError("no picture was given")
    if barren is not None:
        barren += without
    return list(found)


def _inside(folder: Path, suffixes: Collection[str], skipped: list[Path] | None) -> list[Path]:
    everything = sorted(p for p in folder.iterdir() if not p.name.startswith("."))
    inside = {p: None for p in everything if _is_readable(p.suffix.lower(), suffixes) and p.is_file()}
    if skipped is not None:
        skipped += [p for p in everything if p not in inside]
    return list(inside)


def _is_readable(suffix: str, suffixes: Collection[str]) -> bool:
    return suffix in suffixes or (suffix in DEVELOPED and not missing(suffix))


def readable(suffixes: Collection[str]) -> str:
    """All that is read, for messages: `suffixes`, HEIC, AVIF and camera raw, and what must be installed for these."""
    optional = {"HEIC": heif.HEIC, "AVIF": heif.AVIF, "camera raw": raw.SUFFIXES}
    known = [f"{kind} ({', '.join(those)})" for kind, those in optional.items()]
    wanted = [needed for those in optional.values() if (needed := missing(those[0]))]
    return "; ".join([", ".join(suffixes), *known, *wanted])


def missing(suffix: str) -> str:
    """What must be installed to read files of this suffix; "" if nothing is missing or the suffix is not supported."""
    if suffix in raw.SUFFIXES:
        return "" if raw.available() else raw.WANTED
    if suffix in heif.SUFFIXES and not heif.available(suffix):
        return heif.HEIC_WANTED if suffix in heif.HEIC else heif.AVIF_WANTED
    return ""


def read_image(path: str | os.PathLike[str]) -> Picture:
    """Reads PNG, JPEG, WebP, TIFF or BMP with 1 to 16 bits per channel, and rotates it upright.

    Camera raw, HEIC and AVIF are read if the libraries for them are installed. The format is found by content, only
    camera raw by its suffix. Palettes, grey and CMYK become RGB (CMYK is converted to sRGB by its colour profile).
    Camera raw is developed with the camera's white balance and without brightening. PNGs with another tone curve (gAMA,
    cICP) are converted to that of sRGB.

    Raises:
        ImageFileError: the file is missing, damaged, not a picture, or has several frames, 32 bits per channel, signed
            values, or HDR.
    """
    try:
        data = Path(path).read_bytes()
        return decode(data, Path(path).suffix.lower())
    except NotAPictureError as error:
        message = "the file is empty" if not data else f"not a {_UNDERSTOOD} picture, or damaged at its start"
        raise ImageFileError(f"{path}: {message}") from error
    except BROKEN_FILE as error:
        reason = getattr(error, "strerror", None) or error
        raise ImageFileError(f"{path}: cannot be read: {reason}") from error


def write_image(path: str | os.PathLike[str], picture: Picture, *, replace: bool = True) -> None:
    """Writes a picture in the format of the suffix. An existing file is replaced only when the new one is complete.

    Values are rounded to the nearest level. PNG and TIFF keep 16 bits; the other formats have 8.

    Raises:
        FileExistsError: the file exists, and `replace` is false.
        ImageFileError: the suffix is unknown, the format cannot hold the picture's transparency, or the system reports
            an error (disk full, no permission). An existing file is not changed then.
    """
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise ImageFileError(f"{path}: unknown suffix; choose one of {', '.join(FORMATS)}")
    check_fits(path, picture)
    try:
        write_atomically(path, encode(picture, FORMATS[path.suffix.lower()]), replace=replace)
    except FileExistsError:
        raise
    except (ValueError, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ImageFileError(f"{path}: cannot be written: {reason}") from error


def check_fits(path: str | os.PathLike[str], picture: Picture) -> None:
    """Raises ImageFileError if the format of the suffix cannot hold this picture. Call it before expensive work."""
    kind, source = FORMATS.get(Path(path).suffix.lower(), ""), picture.metadata.kind
    if found := lost(picture, kind):
        where = f"the file is {source} by its content, and " if source not in ("", kind) else ""
        message = f"{where}{kind} cannot hold {', '.join(found)}; choose PNG, WebP or TIFF"
        raise ImageFileError(f"{path}: cannot be written: {message}")
