"""Sizes: padding for the nets and cropping back, area averages, resized maps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import overload

import torch
from torch import Tensor
from torch.nn import functional as F

from ..tiling.windows import size_of
from .metal import detour


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Pads the bottom and the right side until height and width are multiples of ``multiple``.

    The padding mirrors the picture. Reflection allows at most ``size - 1`` pixels; beyond that, the last row or column
    is repeated. So pictures of any size can be padded, even 1x1.

    Args:
        x: (B, C, H, W), any floating-point dtype and any values.
        multiple: positive number of pixels.

    Returns:
        (B, C, H', W') with H' and W' the next multiples; ``x`` itself if it needs no padding.
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
    """Crops (B, C, H', W') to its top left (B, C, H, W), where ``size`` is (H, W). Undoes `pad_to_multiple`."""
    return x[..., : size[0], : size[1]]


def area_average(x: Tensor, size: Sequence[int]) -> Tensor:
    """Adaptive average pooling: (B, C, H, W) -> (B, C, *size), on the device and in the dtype of `x`.

    If H or W is not divisible, neighbouring averages share pixels; Metal leaves that to the processor.
    """
    shared = any(n % m for n, m in zip(x.shape[-2:], size, strict=True))
    return F.adaptive_avg_pool2d(detour(x) if shared else x, (size[0], size[1])).to(x.device)


def resize_map(x: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear resize of a map (B, C, H, W) to `size` (h, w); `x` itself if it has that size."""
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    return F.interpolate(x, size=(size[0], size[1]), mode="bilinear", align_corners=False)


def reduced_size(size: tuple[int, int], longest: int) -> tuple[int, int]:
    """(H, W) scaled to a longer side of `longest` pixels; `size` itself if `longest` is 0 or not smaller."""
    if not 0 < longest < max(size):
        return size
    height, width = (max(1, round(side * longest / max(size))) for side in size)
    return height, width


@overload
def reduced(images: Tensor, longest: int) -> Tensor: ...
@overload
def reduced(images: None, longest: int) -> None: ...
def reduced(images: Tensor | None, longest: int) -> Tensor | None:
    """(B, C, H, W) reduced to a longer side of `longest` pixels, by area averages.

    Returns `images` itself if `longest` is 0 or not smaller, or `images` is None.
    """
    if images is None:
        return None
    size = reduced_size(size_of(images), longest)
    return images if size == size_of(images) else area_average(images, size)


def reduced_in_bands(x: Tensor, longest: int, convert: Callable[[Tensor], Tensor]) -> Tensor:
    """`reduced(convert(x), longest)`, converted row by row of the reduced picture, to limit memory."""
    (rows, columns), height = reduced_size(size_of(x), longest), x.shape[-2]
    bands = [x[..., i * height // rows : -(-(i + 1) * height // rows), :] for i in range(rows)]
    return torch.cat([area_average(convert(band), (1, columns)) for band in bands], -2)
