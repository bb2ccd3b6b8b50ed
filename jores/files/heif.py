"""HEIC, read by pillow-heif (an optional dependency), and AVIF, read by newer releases of Pillow."""

from __future__ import annotations

import importlib.util
import io
from dataclasses import dataclass

import numpy as np
from PIL import ExifTags, Image, features

from . import further
from .light import HDR

HEIC, AVIF = (".heic", ".heif", ".hif"), (".avif",)
SUFFIXES = (*HEIC, *AVIF)
_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
_AVIF_BRANDS = {b"avif", b"avis"}
HEIC_WANTED = "HEIC needs pillow-heif: pip install pillow-heif"
AVIF_WANTED = "AVIF needs Pillow 11.3 or newer, or another build of it: pip install --upgrade pillow"


@dataclass(frozen=True)
class Decoded:
    """Levels (H, W, C), uint8 or uint16, and metadata. `orientation` (EXIF) must still be applied to the levels.

    `further`: as in `metadata.Metadata`.
    """

    levels: np.ndarray
    orientation: int = 1
    exif: bytes | None = None
    xmp: bytes | None = None
    icc_profile: bytes | None = None
    further: tuple[str, ...] = ()


def available(suffix: str) -> bool:
    """Whether files of this suffix can be read here."""
    if suffix in AVIF:
        return bool(features.check("avif"))
    return importlib.util.find_spec("pillow_heif") is not None


def is_heif(data: bytes) -> bool:
    """Whether the data is HEIC or AVIF."""
    return data[4:8] == b"ftyp" and bool(_brands(data) & (_HEIC_BRANDS | _AVIF_BRANDS))


def decode(data: bytes) -> Decoded:
    """The main picture of a HEIC or AVIF file.

    Raises:
        ValueError: the library is missing, HDR, or the file is damaged.
    """
    if _brands(data) & _AVIF_BRANDS:
        return _decode_avif(data)
    try:
        import pillow_heif
    except ImportError as error:
        raise ValueError(HEIC_WANTED) from error
    try:
        file = pillow_heif.open_heif(io.BytesIO(data), convert_hdr_to_8bit=False)
        transfer = int((file.info.get("nclx_profile") or {}).get("transfer_characteristics", 2))
        levels = np.asarray(file)
    except (RuntimeError, ValueError, EOFError, SyntaxError) as error:
        raise ValueError(f"libheif cannot read it: {error}") from error
    if transfer in HDR:
        raise ValueError(f"HDR ({HDR[transfer]}) is not supported; convert it to SDR first")
    info = file.info  # libheif has rotated the pixels upright already
    kept = info.get("exif"), info.get("xmp"), info.get("icc_profile")
    return Decoded(levels, 1, *kept, further.of_heif(len(file), info.get("depth_images"), info.get("aux")))


def _decode_avif(data: bytes) -> Decoded:
    if not available(".avif"):
        raise ValueError(AVIF_WANTED)
    depth = _avif_depth(data)
    if depth > 8:
        raise ValueError(f"{depth} bits per channel in AVIF are read in 8 only; save it as PNG or TIFF")
    with Image.open(io.BytesIO(data), formats=["AVIF"]) as image:
        if getattr(image, "n_frames", 1) > 1:
            raise ValueError(f"it holds {image.n_frames} frames; save them as single pictures")
        image.load()
        levels = np.asarray(image.convert("RGBA" if image.has_transparency_data else "RGB"))
        orientation, info = image.getexif().get(ExifTags.Base.Orientation, 1), image.info
        return Decoded(levels, orientation, info.get("exif"), info.get("xmp"), info.get("icc_profile"))


def _avif_depth(data: bytes) -> int:
    """Bits per channel, from flags in the third byte of the decoder's configuration (av1C)."""
    at = data.find(b"av1C")
    if at < 0 or at + 7 > len(data):
        return 8
    flags = data[at + 6]
    return (12 if flags & 0x20 else 10) if flags & 0x40 else 8


def _brands(data: bytes) -> set[bytes]:
    length = min(int.from_bytes(data[:4], "big"), 256)
    return {data[8:12], *(data[at : at + 4] for at in range(16, length, 4))}
