"""The camera of the pairs, read off each of them, so that other pictures can be darkened as theirs were.

Of a pair's dark picture nearly everything but the noise is, per channel, a power of the light one in linear light: on
LOL it explains 0.9 to 0.99 of the logarithm's variance. The noise is white, of another strength in each channel, and in
the file's tone curve the same at all levels. A net that is shown LOL's camera on LOL's scenes alone learns the scenes;
shown it on any picture, it has to learn the camera. Not in the paper.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .convert import to_tensor
from .darkening import WHOLE, developed, linear
from .pairs import Pair

CELL = 8  # the pictures are compared by averages over cells, where noise counts for little
LOWEST, CLIPPED = 8e-4, 0.9  # linear light between which a cell tells of the camera
FEWEST = 50  # cells that a power can be fitted to


@dataclass(frozen=True)
class Camera:
    """dark = gain * light ** contrast for red, green and blue in linear light, then noise (of a standard deviation in
    the file's levels, 1 being white), then 8 bits. `Darkening` has the same interface."""

    gain: tuple[float, ...]
    contrast: tuple[float, ...]
    noise: tuple[float, ...]

    @classmethod
    def of(cls, pair: Pair) -> Camera | None:
        """By least squares on the pair's logarithms; None where too little of the pair is neither black nor white."""
        low, high = to_tensor(pair.dark), to_tensor(pair.high)
        dark, light = (F.avg_pool2d(linear(p), CELL) for p in (low, high))
        fits = [_power(x.flatten(), y.flatten()) for x, y in zip(light, dark, strict=True)]
        if any(fit is None for fit in fits):
            return None
        gain, contrast = zip(*fits, strict=True)
        return cls(gain, contrast, tuple(_noise_of(low).tolist()))

    def at(self, gain: float) -> Camera:
        """The same camera with another exposure."""
        return replace(self, gain=tuple(g * gain for g in self.gain))

    def fitted(self, light: Tensor) -> Camera:
        """As `Darkening.fitted`: nothing about a camera depends on the picture."""
        return self

    def __call__(self, picture: Tensor, generator: torch.Generator | None = None, place: Tensor = WHOLE) -> Tensor:
        """(3, H, W) in [0, 1] -> the same, dark; noiseless and unrounded without a generator."""
        gain, contrast, noise = (torch.tensor(v).view(3, 1, 1) for v in (self.gain, self.contrast, self.noise))
        dark = developed((gain * linear(picture).clamp_min(1e-5).pow(contrast)).clamp(0, 1))
        if generator is None:
            return dark
        dark = dark + noise * torch.randn(dark.shape, generator=generator)
        return (dark.clamp(0, 1) * 255).round().div(255)

    def thumbnail(self, picture: Tensor, generator: torch.Generator, fold: int) -> Tensor:
        """(3, H, W) -> the dark picture's thumbnail (3, H / fold, W / fold), noise included: see `Darkening`."""
        return F.avg_pool2d(self(picture, generator), fold)


def _power(light: Tensor, dark: Tensor) -> tuple[float, float] | None:
    """(gain, contrast) of dark = gain * light ** contrast."""
    known = (light > LOWEST) & (light < CLIPPED) & (dark > LOWEST)
    if int(known.sum()) < FEWEST:
        return None
    contrast, offset = np.polyfit(light[known].log().double().numpy(), dark[known].log().double().numpy(), 1)
    return math.exp(offset), float(np.clip(contrast, 0.5, 2))


def _noise_of(picture: Tensor) -> Tensor:
    """Standard deviation of the noise of each channel of (3, H, W), by a filter that edges hardly excite (Immerkaer,
    CVIU 1996)."""
    kernel = torch.tensor([[1.0, -2, 1], [-2, 4, -2], [1, -2, 1]]).expand(3, 1, 3, 3)
    return F.conv2d(picture[None], kernel, groups=3)[0].abs().mean((1, 2)) * math.sqrt(math.pi / 2) / 6
