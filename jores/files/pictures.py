"""Picture files: what a photograph carries besides its pixels survives, and no file is ever left half-written.

Pillow reads and writes everything with 8 bits per channel; `codecs` does what Pillow cannot.
"""

from __future__ import annotations

import io
import logging
import os
import struct
import uuid
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image, ImageCms, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile
from torch import Tensor

from ..imaging.exposure import luma
from .codecs import decode_16, encode_png_16, encode_tiff

logger = logging.getLogger(__name__)

FORMATS = {
    ".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".tif": "TIFF", ".tiff": "TIFF", ".bmp": "BMP",
}  # fmt: skip
VIDEO_FORMATS = {
    ".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm", ".avi": "avi", ".ts": "mpegts",
}  # fmt: skip
"""Suffixes that are taken for video, and the container that FFmpeg writes for them: see `clips`."""

_UNDERSTOOD = "PNG, JPEG, WebP, TIFF or BMP"
_SAVE_OPTIONS = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"quality": 95}, "PNG": {}, "BMP": {}}
_ALWAYS_TRIED, _PIXELS_PER_BYTE = 1 << 24, 20_000  # no photograph is packed as tightly as that
_BROKEN_EXIF = (ValueError, TypeError, KeyError, OverflowError, SyntaxError, struct.error)
_BROKEN_FILE = (*_BROKEN_EXIF, OSError, EOFError, IndexError, Image.DecompressionBombError)

# The tags of a TIFF that speak of the photograph; the others describe how that one file stores its pixels.
_DESCRIPTIVE_TAGS = {
    ExifTags.Base.ImageDescription, ExifTags.Base.Make, ExifTags.Base.Model, ExifTags.Base.Software,
    ExifTags.Base.DateTime, ExifTags.Base.Artist, ExifTags.Base.Copyright, ExifTags.Base.XResolution,
    ExifTags.Base.YResolution, ExifTags.Base.ResolutionUnit, ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo,
}  # fmt: skip


class ImageFileError(ValueError):
    """A picture file cannot be read or written. The message names the file and says what to do."""


@dataclass(frozen=True)
class Picture:
    """A picture and what its file says about it; `dataclasses.replace(picture, pixels=...)` keeps the rest.

    Attributes:
        pixels: float32 (C, H, W) in [0, 1], upright. C is 3 (RGB), or 4 with straight (not premultiplied) alpha.
        bit_depth: bits per channel of the file, 8 or 16.
        grey: the file has one channel (repeated in `pixels`), and is written with one again.
        icc_profile: the colour profile that `pixels` are in; None means sRGB.
        exif: EXIF block whose orientation is "upright", without its thumbnail.
    """

    pixels: Tensor
    bit_depth: int = 8
    grey: bool = False
    icc_profile: bytes | None = None
    exif: bytes | None = None


def find_images(paths: Iterable[str | os.PathLike[str]], suffixes: Collection[str] = tuple(FORMATS)) -> list[Path]:
    """Expand folders into the pictures right inside them, sorted by name; files are taken as they are given.

    `suffixes`: what counts as a picture inside a folder; hidden files never do.

    Raises:
        ImageFileError: a folder holds no picture, or there is nothing at all.
    """
    found: dict[Path, None] = {}
    for path in map(Path, paths):
        if not path.is_dir():
            found[path] = None
            continue
        inside = sorted(
            p for p in path.iterdir() if p.suffix.lower() in suffixes and p.is_file() and not p.name.startswith(".")
        )
        if not inside:
            raise ImageFileError(f"{path}: no picture right inside this folder ({', '.join(suffixes)})")
        found.update(dict.fromkeys(inside))
    if not found:
        raise ImageFileError("no picture was given")
    return list(found)


def read_image(path: str | os.PathLike[str]) -> Picture:
    """Read PNG, JPEG, WebP, TIFF or BMP with 8 or 16 bits per channel, turned upright.

    Palettes, grey, and CMYK become RGB (CMYK through its colour profile, into sRGB).

    Raises:
        ImageFileError: missing, damaged, several frames, 32 bits per channel, or not a picture.
    """
    try:
        data = Path(path).read_bytes()
        with Image.open(io.BytesIO(data), formats=sorted(set(FORMATS.values()))) as image:
            return _decode(image, data)
    except UnidentifiedImageError as error:
        raise ImageFileError(f"{path}: not a {_UNDERSTOOD} picture, or damaged at its start") from error
    except _BROKEN_FILE as error:
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
    try:
        write_whole(path, _encode(picture, FORMATS[path.suffix.lower()]))
    except (ValueError, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ImageFileError(f"{path}: cannot be written: {reason}") from error


def write_whole(path: Path, data: bytes) -> None:
    """Write a file of any kind under a temporary name next to `path`, then give it its name. Raises OSError."""
    temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _decode(image: Image.Image, data: bytes) -> Picture:
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # an MPO is a phone's JPEG with a preview behind it
        raise ValueError(f"it holds {frames} frames or pages; save them as single pictures")
    count = image.width * image.height
    if count > _ALWAYS_TRIED and count > len(data) * _PIXELS_PER_BYTE:  # or a few wrong bytes would take a gigabyte
        raise ValueError(f"it claims {image.width}x{image.height} pixels in {len(data)} bytes, so it is damaged")
    exif = _read_exif(image)
    stored = exif.get(ExifTags.Base.Orientation, 1)
    image.load()  # also before PyAV, which forgives truncated files
    remaining = exif.get(ExifTags.Base.Orientation, 1)  # Pillow turns a TIFF while it loads it, and clears the tag
    profile = image.info.get("icc_profile")
    bit_depth = 16 if _bits(image, data) == 16 and image.mode != "CMYK" else 8
    if bit_depth == 16 and not image.mode.startswith("I"):
        levels, orientation = _colour_16(image, data), stored
    elif bit_depth == 16:
        levels, orientation = np.asarray(image).astype(np.uint16), remaining
        if isinstance(image, TiffImageFile) and image.tag_v2.get(262) == 0:
            # WhiteIsZero, which Pillow turns for 8 bits only
            levels = 65535 - levels
    else:
        levels, orientation = np.asarray(_convert_to_8(image, profile)), remaining
    grey = levels.ndim == 2
    pixels = torch.from_numpy(levels.astype(np.float32)) / (2**bit_depth - 1)
    pixels = pixels.expand(3, -1, -1) if grey else pixels.permute(2, 0, 1)
    kept = profile if profile and profile[16:20] == (b"GRAY" if grey else b"RGB ") else None
    return Picture(_upright(pixels, orientation).contiguous(), bit_depth, grey, kept, _upright_exif(exif, image.format))


def _bits(image: Image.Image, data: bytes) -> int:
    if image.format == "PNG":
        return data[24]  # IHDR is always the first chunk
    if isinstance(image, TiffImageFile):
        return max(image.tag_v2.get(258, (1,)))  # BitsPerSample
    return 8


def _colour_16(image: Image.Image, data: bytes) -> np.ndarray:
    """uint16 (H, W, 3), or (H, W, 4) with straight alpha, as stored (not upright)."""
    tags = image.tag_v2 if isinstance(image, TiffImageFile) else {}
    if 322 in tags:  # TileWidth; FFmpeg mixes the tiles up without a word
        raise ValueError("a tiled TIFF with 16 bits per channel is not supported; save it in strips or as PNG")
    levels = decode_16(data, "png" if image.format == "PNG" else "tiff", image.has_transparency_data)
    if tags.get(338) == (1,):  # ExtraSamples: premultiplied alpha
        alpha = np.maximum(levels[..., 3:], 1) / 65535
        levels[..., :3] = np.rint(np.minimum(levels[..., :3] / alpha, 65535))
    return levels


def _convert_to_8(image: Image.Image, profile: bytes | None) -> Image.Image:
    if image.mode in ("I", "F"):
        raise ValueError("32 bits per channel are not supported; save it with 8 or 16")
    if image.has_transparency_data:
        return image.convert("RGBA")
    if image.mode in ("1", "L"):
        return image.convert("L")
    if image.mode == "CMYK" and profile:
        try:
            srgb = ImageCms.createProfile("sRGB")
            converted = ImageCms.profileToProfile(image, io.BytesIO(profile), srgb, outputMode="RGB")
            return converted or image.convert("RGB")
        except ImageCms.PyCMSError as error:
            logger.warning("CMYK converted without its colour profile, which cannot be used: %s", error)
    return image.convert("RGB")


def _upright(x: Tensor, orientation: int) -> Tensor:
    """Apply an EXIF orientation (1..8) to (C, H, W)."""
    if orientation in (5, 6, 7, 8):
        x = x.mT
    flips = [axis for axis, codes in ((1, (3, 4, 7, 8)), (2, (2, 3, 6, 7))) if orientation in codes]
    return x.flip(flips)


def _read_exif(image: Image.Image) -> Image.Exif:
    try:
        return image.getexif()
    except _BROKEN_EXIF as error:
        logger.warning("EXIF block dropped, it cannot be read: %s", error)
        return Image.Exif()


def _upright_exif(exif: Image.Exif, kind: str | None) -> bytes | None:
    """The block to write back. One that cannot be written again is no reason to lose the picture."""
    if kind == "TIFF":
        for tag in set(exif) - _DESCRIPTIVE_TAGS:
            del exif[tag]
    if not len(exif):
        return None
    exif[ExifTags.Base.Orientation] = 1
    try:
        return exif.tobytes()
    except _BROKEN_EXIF as error:
        logger.warning("EXIF block dropped, it is damaged: %s", error)
        return None


def _encode(picture: Picture, kind: str) -> bytes:
    pixels = picture.pixels.float()
    if len(pixels) == 4 and kind in ("JPEG", "BMP"):
        raise ValueError(f"{kind} cannot hold transparency; choose PNG, WebP or TIFF")
    if picture.grey and len(pixels) == 3:
        pixels = luma(pixels[None])[0]
    deep = picture.bit_depth == 16 and kind in ("PNG", "TIFF")
    levels = (pixels.clamp(0, 1) * (65535 if deep else 255)).round().permute(1, 2, 0).cpu().numpy()
    levels = np.ascontiguousarray(levels, np.uint16 if deep else np.uint8)                      # (H, W, 1, 3 or 4)
    exif, profile = picture.exif or b"", picture.icc_profile or b""
    if kind == "TIFF":
        return encode_tiff(levels, exif, profile)
    if deep:
        return encode_png_16(levels, exif, profile)
    buffer = io.BytesIO()
    image = Image.fromarray(levels[..., 0] if levels.shape[2] == 1 else levels)
    image.save(buffer, kind, exif=exif, icc_profile=profile or None, **_SAVE_OPTIONS[kind])
    return buffer.getvalue()
