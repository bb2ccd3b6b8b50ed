"""Colour casts: gives a result the low-frequency colours of its original. Not part of the paper's method."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .exposure import luma
from .guided_filter import TONE, self_guided, sliced_grid
from .resize import reduced, reduced_in_bands

SIDE, BINS = 24, 4  # long side of the grid on which casts are compared, and the brightnesses that it holds apart
FEW = 0.02  # weight of all pixels of a cell beside those of one brightness, of which it may hold none
LARGEST_SHIFT = 4.0  # largest gain of a channel
LIGHT_SIDE, LIGHT_RADIUS, LIGHT_EDGE = 256, 6, 0.1  # of a guided filter: size and radius (px), contrast


@dataclass(frozen=True)
class ColourCast:
    """Gains per channel that give a result the colour cast of its original; see `scale_colours`.

    The cast is the low-frequency chroma: averages over squares of about 1/24 of the long side, divided by their luma.
    The colours of details are not changed. It is compared at several brightnesses of the original apart (a bilateral
    grid), so that the colour of a lamp does not spread to the wall beside it.

    Attributes:
        grid: the gains (B, bins * 3, h, w).
        slope, intercept: self-guided filter of the brightness, (B, 1, h', w').
    """

    grid: Tensor
    slope: Tensor
    intercept: Tensor

    @classmethod
    def of(cls, images: Tensor, original: Tensor, amount: float, decode: Callable[[Tensor], Tensor]) -> ColourCast:
        """The cast between a result and its original.

        Args:
            images: the result (B, 3, H, W); `decode` converts a band of it to [0, 1].
            original: the input, (B, 3, H, W) in [0, 1].
            amount: 0 gives gains of 1, 1 takes over the full cast.
        """
        made = reduced_in_bands(images, LIGHT_SIDE, lambda x: decode(x).clamp(0, 1))
        before = reduced_in_bands(original, LIGHT_SIDE, lambda x: x.float().clamp(0, 1)).to(made)
        light = before.amax(1, keepdim=True)
        # Offsets keep black without colour. They are proportional to the mean, so that a global gain changes no colour.
        offset, offset_before = (0.01 * luma(x).mean((2, 3), keepdim=True) + 1e-4 for x in (made, before))
        relit = luma(made) * _chroma(before, offset_before)  # what is bright in the original weighs no more than here
        ratios, place = [], light.pow(TONE) * (BINS - 1)
        for i in range(BINS):
            weight = (1 - (place - i).abs()).clamp_min(0) + FEW
            cells, cells_before, total = (reduced(x, SIDE) for x in (made * weight, relit * weight, weight))
            ratios.append(_chroma(cells_before / total, offset) / _chroma(cells / total, offset))
        grid = torch.cat(ratios, 1).clamp(1 / LARGEST_SHIFT, LARGEST_SHIFT).pow(amount)
        return cls(grid, *self_guided(light, LIGHT_RADIUS, LIGHT_EDGE))

    def gains(self, original: Tensor, enlarge: Callable[[Tensor], Tensor]) -> Tensor:
        """Gains (B, 3, H, W), 1/4 to 4, for a band of the original. `enlarge` enlarges its part of a coarse map."""
        light = original.amax(1, keepdim=True).float().clamp(0, 1)
        tones = (enlarge(self.slope) * light + enlarge(self.intercept)).clamp(0, 1).pow(TONE)
        return sliced_grid(self.grid, tones, enlarge)

    def applied(self, picture: Tensor, original: Tensor, enlarge: Callable[[Tensor], Tensor]) -> Tensor:
        """A band of the result (B, 3, H, W) in [0, 1] in the colours of the original; see `gains`."""
        return scale_colours(picture, self.gains(original, enlarge))


def scale_colours(images: Tensor, scale: Tensor) -> Tensor:
    """Multiplies (B, 3, H, W) pictures in [0, 1] by `scale` of the same shape, restores their luma and clips."""
    scaled = images * scale
    return (scaled * (luma(images) / luma(scaled).clamp_min(1e-6))).clamp(0, 1)


def _chroma(picture: Tensor, offset: Tensor) -> Tensor:
    return (picture + offset) / (luma(picture) + offset)
