"""HEIC, read by pillow-heif (an optional dependency), and AVIF, read by newer releases of Pillow."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from PIL import ExifTags, Image, features

from . import icc, left_out
from .items import properties_of_picture
from .tone_curves import HDR, POWERS

HEIC, AVIF = (".heic", ".heif", ".hif"), (".avif",)
SUFFIXES = (*HEIC, *AVIF)
_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
_AVIF_BRANDS = {b"avif", b"avis"}
_UNSAID = icc.UNKNOWN
HEIC_WANTED = "HEIC needs pillow-heif: pip install pillow-heif"
AVIF_WANTED = "AVIF needs Pillow 11.3 or newer, or another build of it: pip install --upgrade pillow"


@dataclass(frozen=True)
class Decoded:
    """Levels (H, W, C), uint8 or uint16, and metadata. `orientation` (EXIF) must still be applied to the levels.

    `power`, `left_out`: as in `metadata.Metadata`.
    """

    levels: np.ndarray
    orientation: int = 1
    exif: bytes | None = None
    xmp: bytes | None = None
    icc_profile: bytes | None = None
    power: float | None = None
    left_out: tuple[str, ...] = ()


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
        levels = np.asarray(file)
    except (RuntimeError, ValueError, EOFError, SyntaxError) as error:
        raise ValueError(f"libheif cannot read it: {error}") from error
    info, nclx = file.info, file.info.get("nclx_profile") or {}  # libheif has rotated the pixels upright already
    kept = info.get("exif"), info.get("xmp"), info.get("icc_profile")
    coded = tuple(int(nclx.get(name, _UNSAID)) for name in ("color_primaries", "transfer_characteristics"))
    parts = left_out.of_heif(len(file), info.get("depth_images"), info.get("aux"), data)
    return _coloured(Decoded(levels, 1, *kept, left_out=parts), *coded)


def _coloured(found: Decoded, primaries: int, transfer: int) -> Decoded:
    """The picture with a profile of its primaries and the exponent of its tone curve (CICP), without its own profile.

    Raises:
        ValueError: HDR.
    """
    if transfer in HDR:
        raise ValueError(f"HDR ({HDR[transfer]}) is not supported; convert it to SDR first")
    if found.icc_profile:
        return found
    if found.levels.ndim == 2 or found.levels.shape[2] == 2:  # grey has no primaries
        return replace(found, power=POWERS.get(transfer))
    unknown = () if icc.is_known(primaries) else (f"its colour primaries (number {primaries})",)
    made = icc.profile_of(primaries)
    return replace(found, icc_profile=made, power=POWERS.get(transfer), left_out=(*found.left_out, *unknown))


def _decode_avif(data: bytes) -> Decoded:
    if not available(".avif"):
        raise ValueError(AVIF_WANTED)
    about = dict(reversed(properties_of_picture(data)))  # of two of a kind the first counts
    depth, grey = _avif_depth(about.get(b"av1C") or _configuration(data)), _is_grey(about)
    if depth > 8:
        raise ValueError(f"{depth} bits per channel in AVIF are read in 8 only; save it as PNG or TIFF")
    with Image.open(io.BytesIO(data), formats=["AVIF"]) as image:
        if getattr(image, "n_frames", 1) > 1:
            raise ValueError(f"it holds {image.n_frames} frames; save them as single pictures")
        image.load()
        mode = ("LA" if grey else "RGBA") if image.has_transparency_data else "L" if grey else "RGB"
        orientation, info = image.getexif().get(ExifTags.Base.Orientation, 1), image.info
        found = Decoded(np.asarray(image.convert(mode)), orientation, info.get("exif"), info.get("xmp"))
    found = replace(found, icc_profile=info.get("icc_profile"), left_out=left_out.of_film(data))
    return _coloured(found, *_nclx(data))


def _nclx(data: bytes) -> tuple[int, int]:
    """Numbers of the primaries and the transfer of the main picture."""
    for name, body in properties_of_picture(data):
        if name == b"colr" and body[:4] == b"nclx" and len(body) >= 8:
            return int.from_bytes(body[4:6], "big"), int.from_bytes(body[6:8], "big")
    return _UNSAID, _UNSAID


def _configuration(data: bytes) -> bytes:
    """The first configuration of a decoder (av1C) in the file: a picture of several tiles has none of its own."""
    at = data.find(b"av1C")
    return data[at + 4 : at + 8] if at >= 0 else b""


def _avif_depth(configuration: bytes) -> int:
    """Bits per channel, from flags in the third byte of av1C."""
    flags = configuration[2] if len(configuration) > 2 else 0
    return (12 if flags & 0x20 else 10) if flags & 0x40 else 8


def _is_grey(properties: Mapping[bytes, bytes]) -> bool:
    """Whether the main picture has one colour channel: by its own list of channels, or its own configuration."""
    if len(channels := properties.get(b"pixi", b"")) > 4:
        return channels[4] == 1
    configuration = properties.get(b"av1C", b"")
    return len(configuration) > 2 and bool(configuration[2] & 0x10)


def _brands(data: bytes) -> set[bytes]:
    length = min(int.from_bytes(data[:4], "big"), 256)
    return {data[8:12], *(data[at : at + 4] for at in range(16, length, 4))}
