"""Parts of a picture file that are not written to a result: previews, depth and gain maps, a short video, seals.

Parts that only describe how the file stores its pixels are not mentioned.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from . import exif, jpeg, png, tiff
from .items import boxes

_FILM = re.compile(rb"\0\0\0[\x10-\x40]ftyp(?:mp4|isom|iso[2-6]|qt  |MSNV)")
_MOTION = ("the film behind the picture (a motion photo)",)
_SEAL = "Content Credentials (C2PA), which are valid for the original only"
_SEALS: dict[str, str] = {"caBX": _SEAL, "APP11": _SEAL}
_GAIN_MAPS = (b"hdrgm:Version", b"HDRGainMap", b"urn:iso:std:iso:ts:21496")


def of_image(image: Image.Image, data: bytes) -> tuple[str, ...]:
    """Descriptions of the further pictures in a file that Pillow opened; `data` is the complete file."""
    if image.format == "PNG":
        return listed("chunk", [name.decode("ascii", "replace") for name in png.dropped(png.chunks(data))])
    if isinstance(image, TiffImageFile):
        return of_tiff(image.tag_v2, image.has_transparency_data)
    if image.format not in ("JPEG", "MPO"):
        return ()
    found = named(getattr(image, "n_frames", 1) - 1)
    if any(name in data for name in _GAIN_MAPS):  # it is not always among the pictures that a JPEG lists
        found = (f"{found[0]}, with the gain map for HDR screens" if found else "the gain map for HDR screens",)
    found += _MOTION if _FILM.search(data) else ()
    return (*found, *listed("segment", jpeg.dropped(jpeg.segments(data))))


def of_tiff(tags: tiff.Tags, alpha: bool) -> tuple[str, ...]:
    """Descriptions of the sub-images and unused channels of a TIFF; `alpha`: one of the channels is alpha."""
    count = tiff.unused_channels(tags, alpha)
    channels = (f"{count} extra channel{'s' if count > 1 else ''} of the file",) if count else ()
    return (*named(tiff.sub_pictures(tags)), *channels, *listed("tag", map(str, exif.dropped(tags))))


def of_heif(
    pictures: int, depth: Sequence[object] | None, auxiliary: Mapping[str, Sequence[object]] | None, data: bytes
) -> tuple[str, ...]:
    """Descriptions of the further pictures of a HEIC file.

    `pictures` is their number; `depth` and `auxiliary` are `depth_images` and `aux` of pillow-heif; `data` is the
    complete file.
    """
    found = named(pictures - 1)
    maps = sum(len(ids) for name, ids in (auxiliary or {}).items() if "alpha" not in name)
    for count, kind in ((len(depth or ()), "depth map"), (maps, "auxiliary picture (a gain map?)")):
        found += (f"{count} {kind}",) if count else ()
    return found + of_film(data)


def of_film(data: bytes) -> tuple[str, ...]:
    """Description of the film of a motion photo in a HEIC or AVIF file; empty for none."""
    return _MOTION if any(box.name == b"mpvd" for box in boxes(data)) else ()


def listed(kind: str, names: Iterable[str]) -> tuple[str, ...]:
    """Description of parts by their names in the format; those of Content Credentials are said in words."""
    names = dict.fromkeys(_SEALS.get(name, name) for name in names)
    words = ", ".join(name for name in names if name not in _SEALS.values())
    seals = tuple(name for name in names if name in _SEALS.values())
    return (*seals, *((f"the file's {kind}{'s' if ',' in words else ''} {words}",) if words else ()))


def named(count: int) -> tuple[str, ...]:
    """Description of `count` further pictures; empty for none."""
    return (f"{count} further picture{'s' if count > 1 else ''} of the file",) if count > 0 else ()
