"""Smaller pictures by averaging over areas, on every device."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

WHOLE_CELLS_ONLY = {"mps"}  # device types whose kernel wants sides that divide: Apple's Metal, see PyTorch #96056


def area_average(x: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, C, H, W) -> (B, C, *size): the mean over each cell of an even grid, whose cells share pixels where the sides
    do not divide. On the device and in the dtype of `x`, by way of the processor where the device cannot."""
    if x.device.type in WHOLE_CELLS_ONLY and any(n % m for n, m in zip(x.shape[-2:], size, strict=True)):
        return F.adaptive_avg_pool2d(x.cpu(), size).to(x.device)
    return F.adaptive_avg_pool2d(x, size)
