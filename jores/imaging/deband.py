"""Debanding: smooths the steps between the darkest levels of an 8-bit file, and the blocks that JPEG leaves there.

A file of 8 bits has few levels for deep shadows, and JPEG stores blocks of 8 or 16 pixels of a single colour there.
Lifted twenty-fold, the steps become patches, and the rounded colours become yellow, green and pink blocks. What is flat
to about a level is averaged over more pixels; noise and detail above that stay, as does everything that more bits
describe. Not in the paper.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..tiling.windows import smoothstep
from .exposure import LEVEL, luma
from .guided_filter import linear_model
from .resize import crop_to, pad_to_multiple
from .sliding import sliding_mean

DEEP = (4.0, 8.0)  # levels of the local mean luma: up to the first the weight is 1, from the second on 0
FLAT = (0.5, 1.0)  # the same for the local standard deviation of the luma
EQUAL = (0.6, 0.85)  # share of pixels that are as their left neighbour: below the first the weight is 0. Noise has less
CELL = 4  # pixels; everything below is computed for squares of this side
NEARBY = 3  # cells, side of the window of these three
LUMA_WINDOW, LUMA_EDGE = 9, 1.0  # cells; levels from which an edge is preserved
COLOUR_WINDOW, COLOUR_EDGE = 13, 2.0  # JPEG rounds colours more, and over blocks twice as wide


def debanded(images: Tensor) -> Tensor:
    """Pictures (B, 3, H, W) in [0, 1], of any floating-point dtype, with flat deep shadows of 8 bits smoothed.

    A fast guided filter (He & Sun, 2015, arXiv 1505.00996) with the luma as the guide: its linear models are fitted to
    cells of 4x4 pixels. `images` itself is returned if there are no such shadows.
    """
    x = pad_to_multiple(images.float(), CELL)
    y = luma(x)
    mean, square = F.avg_pool2d(y, CELL), F.avg_pool2d(y * y, CELL)
    weight = _flat_shadows(mean, square)
    if _is_any(weight):
        weight = weight * _of_few_levels(x)
    if not _is_any(weight):
        return images
    weight = sliding_mean(weight, NEARBY)
    colours, products = F.avg_pool2d(x - y, CELL), F.avg_pool2d((x - y) * y, CELL)
    slope, offset = linear_model(mean, square, mean, square, LUMA_WINDOW, LUMA_EDGE * LEVEL)
    of_colours = linear_model(mean, square, colours, products, COLOUR_WINDOW, COLOUR_EDGE * LEVEL)
    maps = torch.cat([slope + of_colours[0], offset + of_colours[1], weight], 1)
    slope, offset, weight = F.interpolate(maps, scale_factor=CELL, mode="bilinear").split((3, 3, 1), 1)
    smooth = torch.addcmul(offset, slope, y)
    return crop_to(torch.lerp(x, smooth, weight), images.shape[-2:]).clamp(0, 1).to(images.dtype)


def _is_any(weight: Tensor) -> bool:
    return weight.is_meta or bool((weight > 0).any())  # without values, as for a count of operations, all is done


def _flat_shadows(mean: Tensor, square: Tensor) -> Tensor:
    """Weight of deep and flat shadows (B, 1, h, w), from the cells' means of the luma and of its square."""
    mean, square = sliding_mean(mean, NEARBY), sliding_mean(square, NEARBY)
    deviation = (square - mean * mean).clamp_min(0).sqrt()
    return (1 - smoothstep(mean / LEVEL, *DEEP)) * (1 - smoothstep(deviation / LEVEL, *FLAT))


def _of_few_levels(x: Tensor) -> Tensor:
    """Weight of cells in which most neighbours are equal, (B, 1, h, w): they hold neither noise nor many bits."""
    equal = F.pad((x[..., 1:] == x[..., :-1]).all(1, keepdim=True).to(x), (1, 0, 0, 0), mode="replicate")
    return smoothstep(sliding_mean(F.avg_pool2d(equal, CELL), NEARBY), *EQUAL)
