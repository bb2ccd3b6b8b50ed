"""Sizes: padding to what a network needs and back to the exact size, smaller by area averages, resized maps."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

WHOLE_CELLS_ONLY = {"mps"}  # device types whose kernel wants sides that divide: Apple's Metal, see PyTorch #96056


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Pad the bottom and the right side until height and width divide by ``multiple``.

    The picture is mirrored for as far as it reaches. Reflection padding allows at most ``size - 1`` pixels, so what
    is missing beyond that repeats the last row or column; any picture from 1x1 pixels up can be padded.

    Args:
        x: (B, C, H, W), any floating-point dtype and any values.
        multiple: positive number of pixels.

    Returns:
        (B, C, H', W') with H' and W' the next multiples; ``x`` itself where nothing is missing.
    """
    height, width = x.shape[-2:]
    bottom, right = -height % multiple, -width % multiple
    mirrored = min(bottom, height - 1), min(right, width - 1)
    if any(mirrored):
        x = F.pad(x, (0, mirrored[1], 0, mirrored[0]), mode="reflect")
    repeated = bottom - mirrored[0], right - mirrored[1]
    if any(repeated):
        x = F.pad(x, (0, repeated[1], 0, repeated[0]), mode="replicate")
    return x


def crop_to(x: Tensor, size: Sequence[int]) -> Tensor:
    """Cut (B, C, H', W') back to its top left (B, C, H, W), where ``size`` is (H, W). Undoes `pad_to_multiple`."""
    return x[..., : size[0], : size[1]]


def area_average(x: Tensor, size: Sequence[int]) -> Tensor:
    """(B, C, H, W) -> (B, C, *size): the mean over each cell of an even grid, whose cells share pixels where the sides
    do not divide. On the device and in the dtype of `x`, by way of the processor where the device cannot."""
    if x.device.type in WHOLE_CELLS_ONLY and any(n % m for n, m in zip(x.shape[-2:], size, strict=True)):
        return F.adaptive_avg_pool2d(x.cpu(), (size[0], size[1])).to(x.device)
    return F.adaptive_avg_pool2d(x, (size[0], size[1]))


def resize_map(x: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear resize of a map to (h, w); the identity where the size already fits."""
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    return F.interpolate(x, size=(size[0], size[1]), mode="bilinear", align_corners=False)
