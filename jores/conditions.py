"""What the stages hand to each other: the same small frozen objects in the library and on the graph's wires."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor


class _Wire:
    """Acts on every tensor field at once, so that a host can park a condition elsewhere or go picture by picture."""

    def to(self, *args: Any, **kwargs: Any):
        return self._each(lambda tensor: tensor.to(*args, **kwargs))

    def frame(self, index: int):
        """The same for one picture of the batch (which stays a batch, of one)."""
        return self._each(lambda tensor: tensor[index : index + 1])

    def _each(self, function: Callable[[Tensor], Tensor]):
        changed = {}
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                changed[name] = function(value)
            elif isinstance(value, tuple) and value and isinstance(value[0], Tensor):
                changed[name] = tuple(function(v) for v in value)
        return replace(self, **changed)


@dataclass(frozen=True)
class RetinexMaps(_Wire):
    """DNet's output (Eq. 4): R (B, 3, H, W) and L (B, 1, H, W), both in [0, 1], with R * L equal to the picture.

    `alpha` (B, 1, H, W): of a picture that is transparent in places, which count that much less in its brightness.
    """

    reflectance: Tensor
    illumination: Tensor
    alpha: Tensor | None = None

    @property
    def size(self) -> tuple[int, int]:
        return tuple(self.reflectance.shape[-2:])

    @property
    def picture(self) -> Tensor:
        return self.reflectance * self.illumination


@dataclass(frozen=True)
class RetinexCondition(_Wire):
    """ANet's output (Eq. 6): R' (B, 3, H, W), L' (B, 1, H, W), features F^k, and the exposure they were made for.

    `features` belong to the picture padded to a multiple of 16: F^k is (B, C_k, H / 2^(k+1), W / 2^(k+1)), k = 1..3.
    `exposure` (B,) is the mean luma that L' aims at, 0..1.
    """

    reflectance: Tensor
    illumination: Tensor
    features: tuple[Tensor, ...]
    exposure: Tensor

    @property
    def size(self) -> tuple[int, int]:
        return tuple(self.reflectance.shape[-2:])

    @property
    def picture(self) -> Tensor:
        """R' * L': already a brightened picture, (B, 3, H, W) in [0, 1]."""
        return (self.reflectance * self.illumination).clamp(0, 1)


@dataclass(frozen=True)
class SemanticPrior(_Wire):
    """c_seg (Eq. 8): a soft ADE20K map (B, 150, h, w) whose classes sum to at most 1 ("others" is left out).

    A class map instead of one network's features: any ADE20K segmenter can be swapped in without retraining.
    `size` is the (H, W) of the picture it was made from; the map itself is coarser.
    """

    probabilities: Tensor
    labels: tuple[str, ...]
    size: tuple[int, int]


def join_frames(frames: Sequence[_Wire]) -> Any:
    """The inverse of `frame`: one wire object of all pictures, which must be of one size."""
    joined = {}
    for name, value in vars(frames[0]).items():
        if isinstance(value, Tensor):
            joined[name] = torch.cat([getattr(f, name) for f in frames])
        elif isinstance(value, tuple) and value and isinstance(value[0], Tensor):
            joined[name] = tuple(map(torch.cat, zip(*(getattr(f, name) for f in frames), strict=True)))
    return replace(frames[0], **joined)


def resize_map(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear resize of a map to (h, w); the identity where the size already fits."""
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    return torch.nn.functional.interpolate(x, size=size, mode="bilinear", align_corners=False)
