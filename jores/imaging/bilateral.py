"""Joint bilateral upsampling (Kopf et al., SIGGRAPH 2007): a coarse map, enlarged along the edges of a picture."""

from __future__ import annotations

import torch
from torch import Tensor

from ..tiling.windows import size_of
from .resize import area_average

REACH = 2  # cells of the map to each side that a pixel hears
SPREAD = 1.0  # cells
ALIKE = 0.04  # distance of two colours at which a cell counts 0.6 times
LEAST = 1e-6  # of the weight by place alone, for a pixel whose colour is that of no cell around


def joint_upsample(coarse: Tensor, guide: Tensor) -> Tensor:
    """Each pixel gets the mean of the cells around it, the nearer and the more alike in colour the more.

    Args:
        coarse: (B, C, h, w). guide: (B, 3, H, W) in [0, 1], at least as big, of the same picture.

    Returns:
        (B, C, H, W), within the range of `coarse`.
    """
    guide = guide.to(coarse)
    (height, width), (rows, columns) = size_of(guide), size_of(coarse)
    colours = area_average(guide, (rows, columns))
    y, x = _places(height, rows, coarse), _places(width, columns, coarse)  # in cells
    total, weights = coarse.new_zeros(*coarse.shape[:2], height, width), guide.new_zeros(len(guide), 1, height, width)
    for row in range(-REACH, REACH + 1):
        near_y = y.round() + row
        down = near_y.long().clamp(0, rows - 1)
        for column in range(-REACH, REACH + 1):
            near_x = x.round() + column
            across = near_x.long().clamp(0, columns - 1)
            place = _bell((y - near_y).square(), SPREAD)[:, None] * _bell((x - near_x).square(), SPREAD)
            apart = (_taken(colours, down, across) - guide).square_().sum(1, keepdim=True)
            weight = place * (_bell(apart, ALIKE) + LEAST)
            total += weight * _taken(coarse, down, across)
            weights += weight
    return total / weights


def _places(pixels: int, cells: int, like: Tensor) -> Tensor:
    """Where the centres of the pixels lie between those of the cells."""
    return (torch.arange(pixels, device=like.device, dtype=like.dtype) + 0.5) * (cells / pixels) - 0.5


def _bell(square: Tensor, spread: float) -> Tensor:
    """Of squared distances."""
    return (square / (-2 * spread**2)).exp()


def _taken(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    return x[..., rows, :][..., columns]
