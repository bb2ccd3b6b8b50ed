"""Brightness: luma, its mean, and the plain global gain that lifts a dark picture."""

from __future__ import annotations

import torch
from torch import Tensor

MAX_GAIN = 60.0
"""Beyond this an 8-bit picture holds nothing but quantisation steps: one level becomes a quarter of the range."""

DIM, WELL_LIT = 0.33, 0.38
"""Mean luma up to which a picture may be dark, and from which it counts as well lit. The low-light pictures of LOL
reach 0.32; everyday photographs have 0.44 in the median."""


def luma(images: Tensor) -> Tensor:
    """Rec. 601 luma of (B, 3, H, W) pictures, as (B, 1, H, W); the grey of OpenCV and of Pillow's mode L."""
    weights = images.new_tensor((0.299, 0.587, 0.114)).view(1, 3, 1, 1)
    return (images * weights).sum(1, keepdim=True)


def mean_luma(images: Tensor) -> Tensor:
    """Mean Rec. 601 luma of each of (B, 3, H, W) pictures, as (B,) in float32 or wider."""
    wide = torch.promote_types(images.dtype, torch.float32)
    # Mean first: the luma is linear, and half precision cannot add up a million pixels.
    channels = images.mean((2, 3), dtype=wide)
    return luma(channels[:, :, None, None]).flatten()


def well_lit(images: Tensor) -> Tensor:
    """0 for dark (B, 3, H, W) pictures, 1 for well-lit ones, smooth between, as (B,) in float32 or wider."""
    return smoothstep(mean_luma(images), DIM, WELL_LIT)


def smoothstep(x: Tensor, low: float, high: float) -> Tensor:
    """0 up to `low`, 1 from `high` on, and the cubic without corners between."""
    t = ((x - low) / (high - low)).clamp(0, 1)
    return t * t * (3 - 2 * t)


def brighten(images: Tensor, target: float = 0.4) -> Tensor:
    """Multiply each picture by one gain that lifts its mean luma to ``target``, and clip the highlights to 1.

    The clipping takes a little off the mean again. Pictures that are at least as bright as ``target`` come back
    unchanged, and black stays black. The gain is at most `MAX_GAIN`.

    Args:
        images: (B, 3, H, W) in [0, 1].
        target: mean luma in [0, 1].

    Returns:
        (B, 3, H, W) in [0, 1], of the same dtype.
    """
    gain = (target / mean_luma(images)).clamp(1.0, MAX_GAIN)  # black: inf, hence MAX_GAIN
    return (images * gain.to(images.dtype).view(-1, 1, 1, 1)).clamp(0.0, 1.0)
