"""The tone curve of sRGB (IEC 61966-2-1), for arrays and tensors."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

Array = TypeVar("Array", np.ndarray, Tensor)


def encode_srgb(light: Array) -> Array:
    """Linear light in [0, 1] -> sRGB values in [0, 1]; any shape."""
    if isinstance(light, Tensor):
        return torch.where(light <= 0.0031308, light * 12.92, 1.055 * torch.pow(light, 1 / 2.4) - 0.055)
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * np.power(light, 1 / 2.4) - 0.055)


def decode_srgb(values: Array) -> Array:
    """sRGB values in [0, 1] -> linear light in [0, 1]; any shape."""
    if isinstance(values, Tensor):
        return torch.where(values <= 0.04045, values / 12.92, torch.pow((values + 0.055) / 1.055, 2.4))
    return np.where(values <= 0.04045, values / 12.92, np.power((values + 0.055) / 1.055, 2.4))
