"""Transparency: hidden colours influence neither the exposure of a picture nor neighbouring pixels.

The nets take three channels. Transparent pixels are filled with the colours around them, so that pictures that differ
only in hidden colours give the same result. Means over a picture weight each pixel by its alpha (in a
film whose light is steadied, over the filled frame). Black bars beside a picture (see `bars`) count as transparent.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from .bars import Inside, insides_of, mask_of
from .resize import area_average

SEEN = 1 / 16
"""Alpha from which a pixel keeps its own colour; below, it is blended with the colours around it."""


def is_opaque(images: Tensor) -> bool:
    """Whether no pixel of (B, 3 or 4, H, W) pictures is transparent."""
    return images.shape[1] == 3 or bool(images[:, 3:].amin() >= 1)


def filled(images: Tensor, insides: Sequence[Inside] | None = None) -> tuple[Tensor, Tensor | None]:
    """Splits (B, 3 or 4, H, W) pictures into colours, with hidden ones replaced, and alpha.

    Args:
        insides: one per picture, or one for all: where they lie between black bars; None: bars are looked for.

    Returns:
        Colours (B, 3, H, W), unchanged where alpha is at least SEEN, and alpha (B, 1, H, W) in [0, 1], 0 in bars, or
        None for opaque pictures without bars.
    """
    colours, alpha = images[:, :3], images[:, 3:]
    inside = mask_of(insides_of(images) if insides is None else insides)
    if is_opaque(images):
        if inside is None:
            return colours, None
        alpha = torch.ones_like(colours[:, :1])
    alpha = alpha.float().clamp(0, 1)
    alpha = alpha if inside is None else alpha * inside.to(alpha.device)
    return _fill(colours.float(), (alpha / SEEN).clamp(max=1)), alpha


def opaque(images: Tensor, insides: Sequence[Inside] | None = None) -> Tensor:
    """The colours (B, 3, H, W) of `filled`, for (B, 3 or 4, H, W) pictures."""
    return filled(images, insides)[0]


def joined(colours: Tensor, alpha: Tensor | None) -> Tensor:
    """Joins colours (B, 3, H, W) and alpha (B, 1, H, W) to (B, 4, H, W); returns the colours if alpha is None."""
    return colours if alpha is None else torch.cat([colours, alpha.to(colours)], 1)


def seen_average(images: Tensor, size: tuple[int, int]) -> Tensor:
    """`area_average` of (B, 3 or 4, H, W) pictures as (B, 3, *size), weighted by alpha.

    Fully transparent areas get the colours around them.
    """
    colours, alpha = images[:, :3], images[:, 3:]
    if is_opaque(images):
        return area_average(colours, size)
    alpha = alpha.float().clamp(0, 1)
    weight = area_average(alpha, size)
    seen = area_average(colours.float() * alpha, size) / weight.clamp_min(1e-12)
    return _fill(seen, (weight > 0).to(seen))


def _fill(colours: Tensor, known: Tensor) -> Tensor:
    """Keeps colours (B, 3, H, W) where `known` (B, 1, H, W) is 1 and interpolates the others from their surroundings.

    Recursive: averages of the known colours at half the size are filled in the same way, then enlarged.
    """
    height, width = colours.shape[-2:]
    colours = torch.where(known > 0, colours, 0)
    if max(height, width) == 1:
        return colours
    weight = _halved(known)
    smaller = _fill(_halved(colours * known) / weight.clamp_min(1e-12), (4 * weight).clamp(max=1))
    around = F.interpolate(smaller, (height, width), mode="bilinear", align_corners=False)
    return torch.lerp(around, colours, known)


def _halved(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False)
