"""Transparency: hidden pixels influence neither the exposure of a picture nor the colours beside them.

The nets see three channels of every pixel. In those that are transparent they see the colours around instead, so that
cut-outs that differ only in what is hidden give one result; and means over a picture count each pixel by its alpha.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from .resize import area_average

SEEN = 1 / 16
"""Alpha from which the nets see a pixel's own colour; below, the more of the colours around the less alpha it has."""


def is_opaque(images: Tensor) -> bool:
    """Whether no pixel of (B, 3 or 4, H, W) pictures is transparent."""
    return images.shape[1] == 3 or bool(images[:, 3:].amin() >= 1)


def filled(images: Tensor) -> tuple[Tensor, Tensor | None]:
    """Colours without what is hidden, and alpha, of (B, 3 or 4, H, W) pictures.

    Returns:
        (B, 3, H, W), the input's own where alpha is 1, and (B, 1, H, W) in [0, 1]; None where nothing is transparent.
    """
    colours, alpha = images[:, :3], images[:, 3:]
    if is_opaque(images):
        return colours, None
    alpha = alpha.float().clamp(0, 1)
    return _fill(colours.float(), (alpha / SEEN).clamp(max=1)), alpha


def opaque(images: Tensor) -> Tensor:
    """(B, 3, H, W): the colours of `filled`."""
    return filled(images)[0]


def joined(colours: Tensor, alpha: Tensor | None) -> Tensor:
    """The inverse of `filled`: (B, 3, H, W) where alpha is None, else (B, 4, H, W)."""
    return colours if alpha is None else torch.cat([colours, alpha.to(colours)], 1)


def seen_average(images: Tensor, size: tuple[int, int]) -> Tensor:
    """`area_average` of (B, 3 or 4, H, W) pictures as (B, 3, *size), each pixel counted by its alpha; a cell that is
    fully transparent gets the colours around it."""
    colours, alpha = images[:, :3], images[:, 3:]
    if is_opaque(images):
        return area_average(colours, size)
    alpha = alpha.float().clamp(0, 1)
    weight = area_average(alpha, size)
    seen = area_average(colours.float() * alpha, size) / weight.clamp_min(1e-12)
    return _fill(seen, (weight > 0).to(seen))


def _fill(colours: Tensor, known: Tensor) -> Tensor:
    """Keeps the colours where `known` (B, 1, H, W) is 1, and draws the others from around, nearest first: averages
    over larger and larger squares of what is known, enlarged again."""
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
