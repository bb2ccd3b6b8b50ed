"""Soft masks that follow a picture's edges: a guided filter with the three colours as guide (He et al., ECCV 2010).

Near each place the mask is taken for a linear function of the colours. It is fitted where the mask was made coarsely,
and read off at full size with the picture's own detail, so that the mask's rim moves onto the picture's.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .exposure import luma
from .guided_filter import DARK, box_mean
from .resize import area_average, resize_map

REACH = 1 / 64  # of the longer side: how far the rim of a mask may move
EDGE = 0.03  # contrast of the lit picture below which detail counts as noise
PAIRS = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))


def along_edges(mask: Tensor, lit: Tensor, full: Tensor) -> Tensor:
    """A soft mask (B, 1, h, w) in [0, 1] at the size of `full`, with its rim on the picture's edges.

    Args:
        lit: (B, 3, h', w') in [0, 1], the picture well lit and reduced.
        full: (B, 3, H, W) in [0, 1], the same picture, which may be dark and noisy.

    Returns:
        (B, 1, H, W) float32 in [0, 1], where `full` lies.
    """
    lit = lit.to(full.device, torch.float32)
    mask = resize_map(mask.to(full.device, torch.float32), lit.shape[-2:])
    slope, offset = _fit(mask, lit, max(1, round(REACH * max(lit.shape[-2:]))))
    made = (slope * lit).sum(1, keepdim=True) + offset
    size = full.shape[-2:]
    if tuple(size) == tuple(lit.shape[-2:]):
        return made.clamp(0, 1)
    small = area_average(full.float(), lit.shape[-2:])
    gain = (box_mean(luma(lit), 1) + DARK) / (box_mean(luma(small), 1) + DARK)
    # The slope of what the mask owes to the full picture's own detail, which `lit` is too small to show.
    smooth = resize_map(small * gain, size)
    detail = full.float() * resize_map(gain, size) - smooth
    return (resize_map(made, size) + (resize_map(slope, size) * detail).sum(1, keepdim=True)).clamp(0, 1)


def _fit(mask: Tensor, guide: Tensor, radius: int) -> tuple[Tensor, Tensor]:
    """Slopes (B, 3, h, w) and offset (B, 1, h, w) of the mask over the guide's colours."""
    mean, whole = box_mean(guide, radius), box_mean(mask, radius)
    spread = {}
    for i, j in PAIRS:
        product = box_mean(guide[:, i : i + 1] * guide[:, j : j + 1], radius)
        spread[i, j] = product - mean[:, i : i + 1] * mean[:, j : j + 1] + (EDGE**2 if i == j else 0)
    shared = box_mean(guide * mask, radius) - mean * whole  # (B, 3, h, w), covariance with each colour
    slope = _solved(spread, shared)
    offset = whole - (slope * mean).sum(1, keepdim=True)
    return box_mean(slope, radius), box_mean(offset, radius)


def _solved(s: dict[tuple[int, int], Tensor], y: Tensor) -> Tensor:
    """x (B, 3, h, w) with S x = y, for the symmetric 3x3 matrix S of each place; by cofactors."""
    a, b, c, d, e, f = (s[pair] for pair in PAIRS)
    rows = (
        (d * f - e * e, c * e - b * f, b * e - c * d),
        (c * e - b * f, a * f - c * c, b * c - a * e),
        (b * e - c * d, b * c - a * e, a * d - b * b),
    )
    determinant = a * rows[0][0] + b * rows[0][1] + c * rows[0][2]
    return torch.cat([(torch.cat(row, 1) * y).sum(1, keepdim=True) for row in rows], 1) / determinant
