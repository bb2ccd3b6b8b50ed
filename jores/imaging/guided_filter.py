"""Guided filters (He et al., ECCV 2010).

`self_guided`, `smoothed`: edge-preserving smoothing.

`guided_upsample`: enlarges a result that was computed at a reduced size. After the fast guided filter (He & Sun, 2015,
arXiv 1505.00996): a local linear model of the result is fitted at the small size; its slope scales the detail of the
full-size picture that is added. In flat or noisy areas the slope is near 0, so little noise is added.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..tiling.windows import Span, Window, size_of
from .exposure import luma
from .sliding import sliding_mean

SIDE = 3  # pixels of the small picture, of the window of the linear models
EDGE = 0.05  # contrast of the brightened picture below which detail counts as noise
DARK = 1 / 512  # keeps the gain of black finite
TONE = 0.4  # exponent of a guide's tone curve: contrasts get similar in dark and in bright areas
BAND = 256  # rows per step, to limit memory


def linear_model(
    guide: Tensor, square: Tensor, x: Tensor, product: Tensor, side: int, edge: float
) -> tuple[Tensor, Tensor]:
    """The guided filter: slope and offset (..., H, W) of x by the guide; the result is slope * guide + offset.

    Args:
        guide, square, x, product: the guide, its square, x, and guide * x; or their means over cells.
        side: of the averaging window in pixels, odd.
        edge: contrast of the guide from which an edge is preserved.
    """
    mean, of_x = sliding_mean(guide, side), sliding_mean(x, side)
    variance = (sliding_mean(square, side) - mean * mean).clamp_min(0)
    slope = (sliding_mean(product, side) - mean * of_x) / (variance + edge**2)
    return sliding_mean(slope, side), sliding_mean(of_x - slope * mean, side)


def self_guided(x: Tensor, radius: int, edge: float) -> tuple[Tensor, Tensor]:
    """`linear_model` of x (..., H, W) in [0, 1] by itself, for edge-preserving smoothing. `radius` in pixels."""
    square = x * x
    return linear_model(x, square, x, square, 2 * radius + 1, edge)


def smoothed(x: Tensor, radius: int, edge: float) -> Tensor:
    """x (..., H, W) in [0, 1] without variations below the contrast `edge`, by a self-guided filter."""
    slope, offset = self_guided(x, radius, edge)
    return (slope * x + offset).clamp(0, 1)


def sliced_grid(grid: Tensor, guide: Tensor, enlarge: Callable[[Tensor], Tensor]) -> Tensor:
    """Slices a bilateral grid (B, 3 * bins, h, w) by the guide (B, 1, H, W) in [0, 1]: (B, 3, H, W).

    As in HDRNet (Gharbi et al., SIGGRAPH 2017), with linear interpolation between bins. It works bin by bin, because
    some devices lack 3-D sampling, and to save memory.

    Args:
        enlarge: enlarges one bin (B, 3, h, w) to the size of the guide.
    """
    bins = grid.shape[1] // 3
    place = guide * (bins - 1)
    total = grid.new_zeros((len(grid), 3, *guide.shape[-2:]))
    for i, part in enumerate(grid.chunk(bins, 1)):
        weight = (1 - (place - i).abs()).clamp_min(0)
        total = torch.addcmul(total, weight, enlarge(part), out=None if torch.is_grad_enabled() else total)
    return total


def enlarged(x0: Tensor, low: Tensor, full: Tensor) -> Tensor:
    """Enlarges x0 (B, 3, h, w) in [-1, 1] to the size of `full` by `guided_upsample`.

    `low` (B, 3, h, w) is the picture that x0 was computed from, and `full` (B, 3, H, W) the same picture at full size.
    Returns x0 itself if both have the same size.
    """
    if low.shape == full.shape:
        return x0
    made = (x0.to(low.device, torch.float32).clamp(-1, 1) + 1) / 2
    return guided_upsample(made, low, full).mul_(2).sub_(1)


def guided_upsample(result: Tensor, small: Tensor, full: Tensor) -> Tensor:
    """Enlarges a result to the size of `full`, and adds the detail that `small` lacks.

    The detail is multiplied by the local gain from dark to bright, and by the slope of the result over the brightened
    picture.

    Args:
        result: (B, 3, h, w) in [0, 1], computed from `small`.
        small: (B, 3, h, w) in [0, 1], the reduced `full`.
        full: (B, 3, H, W) in [0, 1].

    Returns:
        (B, 3, H, W) float32 in [0, 1] on the device of `full`.
    """
    result, small = result.float(), small.to(result.device, torch.float32)
    gain = (sliding_mean(luma(result), SIDE) + DARK) / (sliding_mean(luma(small), SIDE) + DARK)  # (B, 1, h, w)
    bright = small * gain
    slope, _ = linear_model(bright, bright * bright, result, bright * result, SIDE, EDGE)
    coarse = torch.cat([result, bright, slope.clamp(0, 1.5), gain], 1).to(full.device)  # (B, 10, h, w)
    picture, size = torch.empty(full.shape, device=full.device), size_of(full)
    for top in range(0, size[0], BAND):
        rows = Span(top, min(top + BAND, size[0]))
        maps = Window(rows, Span(0, size[1])).sample(coarse, size, 1)
        enlarged, coarse_bright, slopes, gains = maps.split((3, 3, 3, 1), 1)
        detail = full[..., rows.positions(1), :].float() * gains - coarse_bright
        picture[..., rows.positions(1), :] = (enlarged + slopes * detail).clamp(0, 1)
    return picture
