"""Metrics of colour and brightness that show what a mean error hides: saturation, clipped highlights, shadows."""

from __future__ import annotations

import torch
from torch import Tensor

from ..imaging.exposure import luma

DARK = 0.1  # pixels of the input with a lower luma are shadow
CLIPPED = 254 / 255  # a channel from this value on is clipped


def colourfulness(images: Tensor) -> Tensor:
    """Colourfulness of (B, 3, H, W) pictures in [0, 1], as (B,): 0 is grey, 0.4 vivid (Hasler and Suesstrunk, 2003)."""
    red, green, blue = images.float().unbind(1)
    opponents = torch.stack([red - green, (red + green) / 2 - blue], 1).flatten(2)
    spread = opponents.std(2, correction=0).square().sum(1).sqrt()
    return spread + 0.3 * opponents.mean(2).square().sum(1).sqrt()


def clipped_share(images: Tensor) -> Tensor:
    """Share of pixels with at least one clipped channel in (B, 3, H, W) pictures in [0, 1], as (B,)."""
    return (images >= CLIPPED).any(1).float().mean((1, 2))


def shadow_ratio(result: Tensor, truth: Tensor, dark: Tensor) -> float:
    """Mean luma of the result divided by that of the truth, over the pixels that are shadow in the dark picture.

    Shadow is a luma below DARK; NaN if there is none. All three are (1, 3, H, W) in [0, 1].
    """
    where = luma(dark) < DARK
    if not bool(where.any()):
        return float("nan")
    return float(luma(result)[where].mean() / luma(truth)[where].mean().clamp_min(1e-3))
