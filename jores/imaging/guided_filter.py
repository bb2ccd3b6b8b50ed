"""Guided filters (He et al., ECCV 2010).

`self_guided`: edge-preserving smoothing.

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
BAND = 256  # rows per step, to limit memory


def self_guided(x: Tensor, radius: int, edge: float) -> tuple[Tensor, Tensor]:
    """Self-guided filter: edge-preserving smoothing. Returns slope and intercept; the result is slope * x + intercept.

    Args:
        x: (..., H, W) in [0, 1].
        radius: of the averaging window in pixels; its side is 2 * radius + 1.
        edge: contrast from which an edge is preserved.

    Returns:
        Two tensors of the shape of `x`.
    """
    side = 2 * radius + 1
    mean = sliding_mean(x, side)
    variance = (sliding_mean(x * x, side) - mean * mean).clamp_min(0)
    slope = variance / (variance + edge**2)
    return sliding_mean(slope, side), sliding_mean(mean * (1 - slope), side)


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
    mean = sliding_mean(bright, SIDE)
    covariance = sliding_mean(bright * result, SIDE) - mean * sliding_mean(result, SIDE)
    variance = (sliding_mean(bright * bright, SIDE) - mean * mean).clamp_min(0)
    slope = sliding_mean(covariance / (variance + EDGE**2), SIDE).clamp(0, 1.5)  # (B, 3, h, w)
    coarse = torch.cat([result, bright, slope, gain], 1).to(full.device)  # (B, 10, h, w)
    picture, size = torch.empty(full.shape, device=full.device), size_of(full)
    for top in range(0, size[0], BAND):
        rows = Span(top, min(top + BAND, size[0]))
        maps = Window(rows, Span(0, size[1])).sample(coarse, size, 1)
        enlarged, coarse_bright, slopes, gains = maps.split((3, 3, 3, 1), 1)
        detail = full[..., rows.positions(1), :].float() * gains - coarse_bright
        picture[..., rows.positions(1), :] = (enlarged + slopes * detail).clamp(0, 1)
    return picture
