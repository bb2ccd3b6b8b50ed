"""The guided filter led by the picture itself (He et al., ECCV 2010): what is broad stays, edges too, texture goes."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


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
