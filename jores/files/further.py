"""Further pictures in a file, which are not written to a result: previews, depth and gain maps, a short video."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from . import tiff

_FILM = re.compile(rb"\0\0\0[\x10-\x40]ftyp(?:mp4|isom|iso[2-6]|qt  |MSNV)")
_GAIN_MAPS = (b"hdrgm:Version", b"HDRGainMap", b"urn:iso:std:iso:ts:21496")


def of_image(image: Image.Image, data: bytes) -> tuple[str, ...]:
    """Descriptions of the further pictures in a file that Pillow opened; `data` is the complete file."""
    if isinstance(image, TiffImageFile):
        return named(tiff.sub_pictures(image.tag_v2))
    if image.format not in ("JPEG", "MPO"):
        return ()
    found = named(getattr(image, "n_frames", 1) - 1)
    if found and any(name in data for name in _GAIN_MAPS):
        found = (f"{found[0]}, with the gain map for HDR screens",)
    return (*found, "the film behind the picture (a motion photo)") if _FILM.search(data) else found


def of_heif(
    pictures: int, depth: Sequence[object] | None, auxiliary: Mapping[str, Sequence[object]] | None
) -> tuple[str, ...]:
    """Descriptions of the further pictures of a HEIC file.

    `pictures` is their number; `depth` and `auxiliary` are `depth_images` and `aux` of pillow-heif.
    """
    found = named(pictures - 1)
    maps = sum(len(ids) for name, ids in (auxiliary or {}).items() if "alpha" not in name)
    for count, kind in ((len(depth or ()), "depth map"), (maps, "auxiliary picture (a gain map?)")):
        found += (f"{count} {kind}",) if count else ()
    return found


def named(count: int) -> tuple[str, ...]:
    """Description of `count` further pictures; empty for none."""
    return (f"{count} further picture{'s' if count > 1 else ''} of the file",) if count > 0 else ()
