"""Pixels of 8 bits, as training keeps them in memory, and back."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

Net = TypeVar("Net", bound=nn.Module)


def to_tensor(pixels: np.ndarray) -> Tensor:
    """(H, W, 3) uint8 -> (3, H, W) float32 in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))).float().div_(255)


def to_pixels(picture: Tensor) -> np.ndarray:
    """Inverse of `to_tensor`; what lies outside [0, 1] is clipped."""
    return (picture.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()


def in_layout(net: Net, layout: torch.memory_format) -> Net:
    """Brings the weights of convolutions into a memory layout, which the types of `Module.to` do not know."""
    option: dict[str, Any] = {"memory_format": layout}
    return net.to(**option)
