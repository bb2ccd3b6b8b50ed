"""Colour and light of a result beside the truth's, where a mean error says little of what one sees."""

from __future__ import annotations

import torch
from torch import Tensor

from ..imaging.exposure import luma

DARK = 0.1  # luma of an input below which it counts as shadow
CLIPPED = 254 / 255


def colourfulness(images: Tensor) -> Tensor:
    """Of (B, 3, H, W) pictures in [0, 1], as (B,): Hasler and Suesstrunk 2003. 0 is grey, 0.4 vivid."""
    red, green, blue = images.float().unbind(1)
    opponents = torch.stack([red - green, (red + green) / 2 - blue], 1).flatten(2)
    spread = opponents.std(2, correction=0).square().sum(1).sqrt()
    return spread + 0.3 * opponents.mean(2).square().sum(1).sqrt()


def clipped_share(images: Tensor) -> Tensor:
    """Share of the pixels of (B, 3, H, W) pictures in [0, 1] that have a channel at white, as (B,)."""
    return (images >= CLIPPED).any(1).float().mean((1, 2))


def shadow_ratio(result: Tensor, truth: Tensor, dark: Tensor) -> float:
    """Mean luma of the result over the truth's where the dark picture is below DARK; NaN where nothing is. All three
    are (1, 3, H, W) in [0, 1]."""
    where = luma(dark) < DARK
    if not bool(where.any()):
        return float("nan")
    return float(luma(result)[where].mean() / luma(truth)[where].mean().clamp_min(1e-3))
