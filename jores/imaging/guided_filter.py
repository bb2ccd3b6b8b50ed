"""Guided filters (He et al., ECCV 2010): led by the picture itself, and for results that were made small.

`self_guided`: edge-preserving smoothing.

`guided_upsample`: enlarges a result that was made at a reduced size. After the fast guided filter (He &
Sun, 2015, arXiv 1505.00996): how strongly the result follows the picture is fitted locally at the small size, and the
picture's own detail is added at full size by that slope. In plain or noisy places the slope is near 0, so little noise
comes back.
"""

from __future__ import annotations

from typing import overload

import torch
from torch import Tensor
from torch.nn import functional as F

from ..tiling.windows import Span, Window, size_of
from .exposure import luma
from .resize import area_average

RADIUS = 1  # pixels of the small picture
EDGE = 0.05  # contrast of the lit picture below which detail counts as noise
DARK = 1 / 512  # keeps the gain of black finite
BAND = 256  # rows that are done at once


def self_guided(x: Tensor, radius: int, edge: float) -> tuple[Tensor, Tensor]:
    """Slope and intercept of the filter, to be multiplied with and added to `x`; each shaped like `x`.

    Args:
        x: (..., H, W) in [0, 1]. radius: pixels to each side that are averaged. edge: contrast that counts as an edge.
    """
    mean = _box(x, radius)
    variance = (_box(x * x, radius) - mean * mean).clamp_min(0)
    slope = variance / (variance + edge**2)
    return _box(slope, radius), _box(mean * (1 - slope), radius)


def _box(x: Tensor, radius: int) -> Tensor:
    """Mean over a square of 2 `radius` + 1 pixels, of those that lie within the picture."""
    for kernel, padding in (((2 * radius + 1, 1), (radius, 0)), ((1, 2 * radius + 1), (0, radius))):
        x = F.avg_pool2d(x, kernel, stride=1, padding=padding, count_include_pad=False)
    return x


def worked_size(size: tuple[int, int], longest: int) -> tuple[int, int]:
    """(H, W) with a longer side of `longest` pixels; `size` itself where that is 0 or no reduction."""
    if not 0 < longest < max(size):
        return size
    height, width = (max(1, round(side * longest / max(size))) for side in size)
    return height, width


@overload
def reduced(images: Tensor, longest: int) -> Tensor: ...
@overload
def reduced(images: None, longest: int) -> None: ...
def reduced(images: Tensor | None, longest: int) -> Tensor | None:
    """(B, C, H, W) with a longer side of `longest` pixels; as it is where that is 0 or no reduction, or None."""
    if images is None:
        return None
    size = worked_size(size_of(images), longest)
    return images if size == size_of(images) else area_average(images, size)


def enlarged(x0: Tensor, low: Tensor, full: Tensor) -> Tensor:
    """The x0 of `low`, which is `full` reduced, at the size of `full`, in [-1, 1]; as it is where nothing
    was reduced."""
    if low.shape == full.shape:
        return x0
    made = (x0.to(low.device, torch.float32).clamp(-1, 1) + 1) / 2
    return guided_upsample(made, low, full).mul_(2).sub_(1)


def guided_upsample(result: Tensor, small: Tensor, full: Tensor) -> Tensor:
    """The result at the size of `full`.

    Args:
        result: (B, 3, h, w) in [0, 1], made of `small` (B, 3, h, w), which is `full` (B, 3, H, W) reduced.

    Returns:
        (B, 3, H, W) float32 in [0, 1]: the result enlarged, plus the detail that `small` lacks, under the gain from
        dark to bright and by the slope of the result over the so lit picture.
    """
    result, small = result.float(), small.to(result.device, torch.float32)
    gain = (_square_mean(luma(result)) + DARK) / (_square_mean(luma(small)) + DARK)  # (B, 1, h, w)
    lit = small * gain
    mean = _square_mean(lit)
    covariance = _square_mean(lit * result) - mean * _square_mean(result)
    variance = (_square_mean(lit * lit) - mean * mean).clamp_min(0)
    slope = _square_mean(covariance / (variance + EDGE**2)).clamp(0, 1.5)  # (B, 3, h, w)
    coarse = torch.cat([result, lit, slope, gain], 1).to(full.device)  # (B, 10, h, w)
    picture, size = torch.empty(full.shape, device=full.device), size_of(full)
    for top in range(0, size[0], BAND):
        rows = Span(top, min(top + BAND, size[0]))
        maps = Window(rows, Span(0, size[1])).sample(coarse, size, 1)
        enlarged, lit_before, slopes, gains = maps.split((3, 3, 3, 1), 1)
        detail = full[..., rows.positions(1), :].float() * gains - lit_before
        picture[..., rows.positions(1), :] = (enlarged + slopes * detail).clamp(0, 1)
    return picture


def _square_mean(x: Tensor) -> Tensor:
    """Mean over a square of 2 RADIUS + 1 pixels, of those that lie within the picture."""
    side = 2 * RADIUS + 1
    return F.avg_pool2d(x, side, stride=1, padding=RADIUS, count_include_pad=False)
