"""Conversion between uint8 arrays, as training keeps pictures in memory, and float tensors."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def to_tensor(pixels: np.ndarray) -> Tensor:
    """(H, W, 3) uint8 -> (3, H, W) float32 in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))).float().div_(255)


def to_pixels(picture: Tensor) -> np.ndarray:
    """Inverse of `to_tensor`: (3, H, W) float on the CPU -> (H, W, 3) uint8. Values outside [0, 1] are clipped."""
    return (picture.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
