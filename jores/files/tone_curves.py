"""Conversion between other tone curves (gAMA and cICP of PNG files) and that of sRGB, which the nets expect."""

from __future__ import annotations

import struct
from collections.abc import Mapping

import torch
from torch import Tensor

from ..imaging.srgb import decode_srgb, encode_srgb

AS_SRGB = 0.1  # exponents that differ less from 2.2 count as sRGB, as in every viewer
HDR = {16: "PQ", 18: "HLG"}
POWERS = {8: 1.0, 5: 2.8}
_DISPLAY = (1, 2, 4, 6, 7, 11, 12, 13, 14, 15)  # cICP transfers of SDR displays, which differ little from sRGB


def power_of_png(chunks: Mapping[bytes, bytes]) -> float | None:
    """The exponent p of linear light = value ** p; None for the tone curve of sRGB or of a colour profile.

    The order of precedence is cICP, iCCP, sRGB, gAMA, as in the PNG standard.

    Raises:
        ValueError: HDR, or another coding that is not supported.
    """
    if len(code := chunks.get(b"cICP", b"")) == 4:
        return _power_of_cicp(*code)
    if b"iCCP" in chunks or b"sRGB" in chunks or len(chunks.get(b"gAMA", b"")) != 4:
        return None
    (gamma,) = struct.unpack(">I", chunks[b"gAMA"])
    if not 10_000 <= gamma <= 1_000_000:  # not a plausible value
        return None
    power = 100_000 / gamma
    return None if abs(power - 2.2) <= AS_SRGB else power


def _power_of_cicp(_primaries: int, transfer: int, matrix: int, full_range: int) -> float | None:
    if transfer in HDR:
        raise ValueError(f"HDR ({HDR[transfer]}, by its cICP chunk) is not supported; convert it to SDR first")
    if matrix != 0 or full_range != 1 or transfer not in (*_DISPLAY, *POWERS):
        raise ValueError(
            f"its cICP chunk names a coding that is not supported (transfer {transfer}, matrix {matrix}, full range "
            f"{full_range}); save it as sRGB"
        )
    return POWERS.get(transfer)


def to_srgb(pixels: Tensor, power: float) -> Tensor:
    """Converts (3 or 4, H, W) in [0, 1] from the tone curve light = value ** power to sRGB; alpha is unchanged."""
    return torch.cat([encode_srgb(pixels[:3] ** power), pixels[3:]])


def from_srgb(pixels: Tensor, power: float) -> Tensor:
    """Inverse of `to_srgb`; the error is far below one level of 16 bits."""
    return torch.cat([decode_srgb(pixels[:3].clamp(0, 1)) ** (1 / power), pixels[3:]])
