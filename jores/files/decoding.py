"""Decodes the bytes of a picture file to upright pixels and metadata.

Pillow reads pictures with 8 bits per channel; `codecs` and `tiff` read what Pillow cannot.
"""

from __future__ import annotations

import io
import logging
import struct
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from PIL import (
    BmpImagePlugin,
    ExifTags,
    Image,
    ImageCms,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)
from torch import Tensor

from . import exif as exif_blocks
from . import heif, ifd, left_out, metadata, png, raw, raw_notes, tiff
from .codecs import decode_16
from .metadata import Metadata
from .tone_curves import to_srgb

logger = logging.getLogger(__name__)


class _BigTiff(TiffImagePlugin.TiffImageFile):
    """A TIFF of any size: Pillow checks against its limit of 178 megapixels where it makes room for the pixels itself.

    That limit is a variable of its module, which protects other programs in the process and stays as they set it.
    """

    def load_prepare(self) -> None:
        if getattr(self, "_im", None) is None:
            self.im = Image.core.new(self.mode, getattr(self, "_tile_size", self.size))
        super().load_prepare()


_OPENERS = {
    "PNG": PngImagePlugin.PngImageFile, "JPEG": JpegImagePlugin.jpeg_factory, "WEBP": WebPImagePlugin.WebPImageFile,
    "TIFF": _BigTiff, "BMP": BmpImagePlugin.BmpImageFile,
}  # fmt: skip
_STARTS = {"PNG": (png.SIGNATURE,), "JPEG": (b"\xff\xd8\xff",), "TIFF": tiff.MAGIC, "BMP": (b"BM",)}
_ALWAYS_TRIED, _PIXELS_PER_BYTE = 1 << 24, 20_000  # no photograph has more pixels per byte
BROKEN_FILE = (*exif_blocks.BROKEN, OSError, EOFError, IndexError)


class NotAPictureError(Exception):
    """The file does not start like any supported format."""


@dataclass(frozen=True)
class Picture:
    """A picture with its metadata; `dataclasses.replace(picture, pixels=...)` keeps the metadata.

    Attributes:
        pixels: float32 (C, H, W) in [0, 1], upright. C is 3 (RGB), or 4 with straight (not premultiplied) alpha.
        bit_depth: bits per channel in the file, 8 or 16 (more than 8 count as 16).
        grey: the file has one colour channel (repeated in `pixels`), with alpha or without, and a result is written
            with one, too.
        icc_profile: colour profile of `pixels`; None means sRGB.
        exif: EXIF block with the orientation "upright" and without a thumbnail.
        metadata: all other metadata.
    """

    pixels: Tensor
    bit_depth: int = 8
    grey: bool = False
    icc_profile: bytes | None = None
    exif: bytes | None = None
    metadata: Metadata = field(default=Metadata())

    def stripped(self) -> Picture:
        """A copy without metadata on photographer, camera, place or editing; only what affects the colours is kept."""
        return replace(self, exif=None, metadata=self.metadata.stripped())


def decode(data: bytes, suffix: str) -> Picture:
    """Decodes a file's bytes. The format is found by content; only camera raw is found by its suffix (in lower case).

    Raises:
        NotAPictureError: the data does not start like any supported format.
        BROKEN_FILE (a tuple of exceptions): the data is damaged, or a variant that is not supported.
    """
    if suffix in raw.SUFFIXES:
        return _developed(data)
    if heif.is_heif(data):
        return _converted(data)
    return _read_plain(data)


def _read_plain(data: bytes) -> Picture:
    """PNG, JPEG, WebP, TIFF or BMP."""
    tags = tiff.tags_of(data)
    tiff.refuse_other_numbers(tags)
    if tiff.is_odd(data, tags):
        return _decode_odd(data, tags)
    shown = png.lean(data) if data.startswith(png.SIGNATURE) else data
    with _opened(shown) as image:
        return _decode(image, data, shown)


def _opened(data: bytes) -> Image.Image:
    """Opens data by Pillow's plugin for its format, because `Image.open` refuses more than 178 megapixels."""
    kind = next((kind for kind, starts in _STARTS.items() if data.startswith(starts)), None)
    if kind is None and data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        kind = "WEBP"
    if kind is None:
        raise NotAPictureError
    try:
        return _OPENERS[kind](io.BytesIO(data), "")
    except SyntaxError as error:
        if kind == "TIFF":
            raise ValueError("a variant of TIFF that is not supported; save it as RGB with 8 or 16 bits") from error
        raise NotAPictureError from error
    except (IndexError, TypeError, KeyError, EOFError, struct.error) as error:
        raise NotAPictureError from error


def _check_size(count: int, shown: str, data: bytes) -> None:
    if count > _ALWAYS_TRIED and count > len(data) * _PIXELS_PER_BYTE:  # a damaged header must not allocate gigabytes
        raise ValueError(f"its header claims {shown} pixels, but the file has only {len(data)} bytes: it is damaged")


def _decode(image: Image.Image, data: bytes, shown: bytes) -> Picture:
    """Decodes an opened image. `data` is the complete file, `shown` the part that `image` was opened from."""
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # an MPO is a JPEG of a phone, followed by a preview
        raise ValueError(f"it holds {frames} frames or pages; save them as single pictures")
    _check_size(image.width * image.height, f"{image.width}x{image.height}", data)
    notes, profile = metadata.of_file(image, data)
    notes = replace(notes, left_out=left_out.of_image(image, data))
    exif = exif_blocks.read(image)
    stored = exif.get(ExifTags.Base.Orientation, 1)
    image.load()  # also needed before PyAV, which accepts truncated files
    _scale_transparent_level(image, data)
    remaining = exif.get(
        ExifTags.Base.Orientation, 1
    )  # Pillow rotates a TIFF upright while loading, and removes the tag
    bit_depth = 16 if _bits(image, data) == 16 and image.mode != "CMYK" else 8
    if bit_depth == 16 and not image.mode.startswith("I"):
        levels, orientation = _colour_16(image, shown), stored
    elif bit_depth == 16:
        levels, orientation = np.asarray(image).astype(np.uint16), remaining
        if isinstance(image, TiffImagePlugin.TiffImageFile) and image.tag_v2.get(262) == 0:
            # WhiteIsZero, which Pillow inverts for 8 bits only
            levels = 65535 - levels
        if isinstance(key := image.info.get("transparency"), int):
            levels = np.dstack([levels, np.where(levels == key, 0, 65535).astype(np.uint16)])
    else:
        levels, orientation = np.asarray(_convert_to_8(image, profile)), remaining
    depth = tiff.depth_of(image.tag_v2) if isinstance(image, TiffImagePlugin.TiffImageFile) else bit_depth
    if bit_depth == 16:
        levels = tiff.in_16_bits(levels, depth)
    return _made(levels, notes, stored, orientation, profile, exif_blocks.block_of(image, data))


def _made(
    levels: np.ndarray,
    notes: Metadata,
    stored: int,
    orientation: int,
    profile: bytes | None = None,
    block: bytes | None = None,
) -> Picture:
    """Builds the picture from uint8 or uint16 levels (H, W) or (H, W, C); C is 2 for grey with alpha, 3 or 4.

    Args:
        stored: EXIF orientation in the file, which its metadata refer to.
        orientation: EXIF orientation that must still be applied to `levels`.
        block: EXIF bytes of the file.
    """
    bit_depth, grey = levels.itemsize * 8, levels.ndim == 2 or levels.shape[2] == 2
    pixels = torch.from_numpy(levels.astype(np.float32)).div_(2**bit_depth - 1)
    pixels = pixels.expand(3, -1, -1) if levels.ndim == 2 else pixels.permute(2, 0, 1)
    pixels = pixels[[0, 0, 0, 1]] if len(pixels) == 2 else pixels
    pixels = _upright(pixels, orientation).contiguous()
    if notes.power is not None:
        pixels = to_srgb(pixels, notes.power)
    size, turned = (pixels.shape[2], pixels.shape[1]), stored in (5, 6, 7, 8)
    space = (profile or b"")[16:20]
    kept = profile if space == b"RGB " or (grey and space == b"GRAY") else None  # some grey files have an RGB profile
    if space and not kept and space != b"CMYK":  # CMYK was converted by its profile
        message = f"its colour profile, which is not for RGB ({space.decode('ascii', 'replace').strip()})"
        notes = replace(notes, left_out=(*notes.left_out, message))
    upright = exif_blocks.rewritten(block, size, turned)
    return Picture(pixels, bit_depth, grey, kept, upright, notes.upright(size, turned))


def _decode_odd(data: bytes, tags: tiff.Tags) -> Picture:
    """A TIFF that Pillow reads wrongly or not at all."""
    if tiff.pages(tags) > 1:
        raise ValueError("it holds several frames or pages; save them as single pictures")
    width, height = int(tags[256]), int(tags[257])
    _check_size(width * height, f"{width}x{height}", data)
    levels, orientation = tiff.levels_16(data, tags), int(tags.get(274, 1))
    has_alpha = levels.ndim == 3 and levels.shape[2] in (2, 4)
    behind = left_out.of_tiff(tags, has_alpha)
    notes = Metadata("TIFF", exif_blocks.xmp_of_tiff(data), left_out=behind)
    return _made(levels, notes, orientation, orientation, tags.get(34675), exif_blocks.of_tiff(data))


def _developed(data: bytes) -> Picture:
    """Camera raw."""
    levels, found = raw.develop(data), raw_notes.notes(data)
    notes = Metadata("TIFF", found.xmp, left_out=found.left_out)
    return _made(levels, notes, found.orientation, 1, block=found.exif)


def _converted(data: bytes) -> Picture:
    """HEIC or AVIF."""
    found = heif.decode(data)
    notes, turn = Metadata("HEIF", found.xmp, power=found.power, left_out=found.left_out), found.orientation
    return _made(found.levels, notes, turn, turn, found.icc_profile, found.exif)


def _scale_transparent_level(image: Image.Image, data: bytes) -> None:
    """Scales the transparent level (tRNS) of a grey PNG with 2 or 4 bits to 0..255, as Pillow does with its pixels."""
    level = image.info.get("transparency")
    if image.format == "PNG" and data[24] in (2, 4) and data[25] == 0 and isinstance(level, int):
        image.info["transparency"] = level * 255 // (2 ** data[24] - 1)


def _bits(image: Image.Image, data: bytes) -> int:
    if image.format == "PNG":
        return data[24]  # IHDR is always the first chunk
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return max(image.tag_v2.get(258, (1,)))  # BitsPerSample
    return 8


def _colour_16(image: Image.Image, data: bytes) -> np.ndarray:
    """uint16 levels (H, W, 3), or with straight alpha (H, W, 2 or 4), as stored (not upright)."""
    tags = image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else {}
    if 322 in tags:  # TileWidth; FFmpeg silently reads tiles in a wrong order
        raise ValueError("a tiled TIFF with 16 bits per channel is not supported; save it in strips or as PNG")
    if image.format == "TIFF":  # FFmpeg refuses one with two descriptions
        data = ifd.without_repeated(data)
    levels = decode_16(data, "png" if image.format == "PNG" else "tiff", image.has_transparency_data)
    if image.format == "PNG" and data[25] == 4:  # grey with alpha
        levels = levels[..., [0, 3]]
    if tags.get(338) == (1,):  # ExtraSamples: premultiplied alpha
        tiff.make_straight(levels)
    return levels


def _convert_to_8(image: Image.Image, profile: bytes | None) -> Image.Image:
    if image.mode in ("I", "F"):
        raise ValueError("32 bits per channel are not supported; save it with 8 or 16")
    if image.has_transparency_data:
        return image.convert("LA" if image.mode in ("1", "L", "LA", "La") else "RGBA")
    if image.mode in ("1", "L"):
        return image.convert("L")
    if image.mode == "CMYK" and profile:
        try:
            srgb = ImageCms.createProfile("sRGB")
            converted = ImageCms.profileToProfile(image, io.BytesIO(profile), srgb, outputMode="RGB")
            return converted or image.convert("RGB")
        except ImageCms.PyCMSError as error:
            logger.warning(
                "CMYK is converted without its colour profile, because the profile cannot be used: %s", error
            )
    return image.convert("RGB")


def _upright(x: Tensor, orientation: int) -> Tensor:
    """Rotates and flips (C, H, W) upright, given its EXIF orientation (1..8)."""
    if orientation in (5, 6, 7, 8):
        x = x.mT
    flips = [axis for axis, codes in ((1, (3, 4, 7, 8)), (2, (2, 3, 6, 7))) if orientation in codes]
    return x.flip(flips)
