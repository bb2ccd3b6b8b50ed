"""Encodes a picture with its metadata to the bytes of a file."""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image

from ..imaging.exposure import luma
from . import jpeg, png
from .codecs import encode_bmp_alpha, encode_png_16, encode_tiff
from .decoding import Picture
from .tone_curves import from_srgb

_SAVE_OPTIONS = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"quality": 95}, "PNG": {}, "BMP": {}}
_HOLDS_16, _HOLDS_ALPHA, _HOLDS_GREY_ALPHA = ("PNG", "TIFF"), ("PNG", "TIFF", "WEBP", "BMP"), ("PNG", "TIFF")


def lost(picture: Picture, kind: str) -> list[str]:
    """Descriptions of what a format (Pillow's name) cannot hold of this picture."""
    source = picture.metadata.kind
    found = ["transparency"] if len(picture.pixels) == 4 and kind not in _HOLDS_ALPHA else []
    if source in ("", kind):
        return found
    # The suffix of the source does not match its content.
    found += ["16 bits per channel"] if picture.bit_depth == 16 and kind not in _HOLDS_16 else []
    found += ["EXIF or a colour profile"] if kind == "BMP" and (picture.exif or picture.icc_profile) else []
    return found + picture.metadata.lacking(kind)


def encode(picture: Picture, kind: str) -> bytes:
    """The bytes of a file; `kind` is PNG, JPEG, WEBP, TIFF or BMP. Raises ValueError, or OSError from Pillow."""
    pixels, notes = picture.pixels.float(), picture.metadata
    if picture.grey and (len(pixels) == 3 or kind in _HOLDS_GREY_ALPHA):
        pixels = torch.cat([luma(pixels[None, :3])[0], pixels[3:]])
    if notes.power is not None and kind == notes.kind:
        pixels = from_srgb(pixels, notes.power)
    deep = picture.bit_depth == 16 and kind in _HOLDS_16
    levels = (pixels.clamp(0, 1) * (65535 if deep else 255)).round().permute(1, 2, 0).cpu().numpy()
    levels = np.ascontiguousarray(levels, np.uint16 if deep else np.uint8)  # (H, W, 1 to 4)
    exif, profile, packet = picture.exif or b"", picture.icc_profile or b"", notes.xmp or b""
    if kind == "TIFF":
        return encode_tiff(levels, exif, profile, packet, notes.resolution)
    if kind == "BMP" and levels.shape[2] == 4:
        return encode_bmp_alpha(levels, notes.resolution)
    chunks = list(notes.chunks) + ([png.xmp_chunk(packet)] if packet else [])
    chunks += [png.density_chunk(notes.resolution)] if notes.resolution else []
    if deep:
        return png.with_chunks(encode_png_16(levels, exif, profile), chunks)
    options = {**_SAVE_OPTIONS[kind], "icc_profile": profile or None}
    if notes.resolution and kind in ("JPEG", "BMP"):
        options["dpi"] = tuple(round(x) for x in notes.resolution) if kind == "JPEG" else notes.resolution
    if kind == "WEBP":
        options |= {"exif": exif, "xmp": packet, **({"lossless": True, "exact": True} if notes.lossless else {})}
    elif kind == "PNG":
        options["exif"] = exif
    buffer = io.BytesIO()
    image = Image.fromarray(levels[..., 0] if levels.shape[2] == 1 else levels)
    image.save(buffer, kind, **options)
    if kind == "JPEG":
        return jpeg.with_segments(buffer.getvalue(), exif, packet, list(notes.segments))
    return png.with_chunks(buffer.getvalue(), chunks) if kind == "PNG" else buffer.getvalue()
