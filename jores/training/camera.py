"""Estimates how a pair's dark picture was exposed, so that other pictures can be darkened in the same way.

Apart from noise, the dark picture of a pair is nearly a power function of the well-lit one, per channel and in linear
light: on LOL it explains 90 to 99 % of the variance of the logarithm. The noise is white, differs between the channels,
and has the same strength at all levels after the file's tone curve. A net that sees LOL's camera only on LOL's scenes
overfits to the scenes; applied to other pictures, the model of the camera prevents that. Not in the paper.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..imaging.srgb import decode_srgb, encode_srgb
from ..imaging.temporal import second_differences
from .convert import to_tensor
from .darkening import FULL_PICTURE
from .pairs import Pair

BLOCK = 8  # pixels: the fit uses means of 8x8 blocks, which suppresses noise
LOWEST, CLIPPED = 8e-4, 0.9  # linear light: blocks outside this range are too dark or clipped, and not used
FEWEST = 50  # blocks that a fit needs


@dataclass(frozen=True)
class Camera:
    """Model of a camera: dark = gain * light ** contrast in linear light, then white noise, then 8 bits.

    All attributes are per channel (red, green, blue). `noise` is the standard deviation after the tone curve, where
    white is 1. Same interface as `Darkening`.
    """

    gain: tuple[float, ...]
    contrast: tuple[float, ...]
    noise: tuple[float, ...]

    @classmethod
    def of(cls, pair: Pair) -> Camera | None:
        """Fits the model to a pair by least squares on logarithms; None if fewer than FEWEST blocks can be used."""
        low, high = to_tensor(pair.dark), to_tensor(pair.high)
        dark, light = (F.avg_pool2d(decode_srgb(p), BLOCK) for p in (low, high))
        fits = [_power(x.flatten(), y.flatten()) for x, y in zip(light, dark, strict=True)]
        if any(fit is None for fit in fits):
            return None
        gain, contrast = zip(*fits, strict=True)
        return cls(gain, contrast, tuple(_noise_of(low).tolist()))

    def at(self, gain: float) -> Camera:
        """The same camera with the exposure multiplied by `gain`."""
        return replace(self, gain=tuple(g * gain for g in self.gain))

    def fitted(self, picture: Tensor) -> Camera:
        """Returns itself: unlike `Darkening.fitted`, nothing here depends on the picture."""
        return self

    def __call__(
        self, picture: Tensor, generator: torch.Generator | None = None, place: Tensor = FULL_PICTURE
    ) -> Tensor:
        """Darkens a well-lit picture or crop (3, H, W) in [0, 1]; returns the same shape and range.

        Without a generator there is no noise and no rounding to 8 bits. `place` is ignored (see `Darkening`).
        """
        gain, contrast, noise = (torch.tensor(v).view(3, 1, 1) for v in (self.gain, self.contrast, self.noise))
        dark = encode_srgb((gain * decode_srgb(picture).clamp_min(1e-5).pow(contrast)).clamp(0, 1))
        if generator is None:
            return dark
        dark = dark + noise * torch.randn(dark.shape, generator=generator)
        return (dark.clamp(0, 1) * 255).round().div(255)

    def thumbnail(self, picture: Tensor, generator: torch.Generator, factor: int) -> Tensor:
        """Darkens (3, H, W) in [0, 1] and averages it to (3, H / factor, W / factor), as `Darkening.thumbnail`."""
        return F.avg_pool2d(self(picture, generator), factor)


def _power(light: Tensor, dark: Tensor) -> tuple[float, float] | None:
    """Fits dark = gain * light ** contrast to two vectors of linear light; None if too few values can be used."""
    known = (light > LOWEST) & (light < CLIPPED) & (dark > LOWEST)
    if int(known.sum()) < FEWEST:
        return None
    contrast, offset = np.polyfit(light[known].log().double().numpy(), dark[known].log().double().numpy(), 1)
    return math.exp(offset), float(np.clip(contrast, 0.5, 2))


def _noise_of(picture: Tensor) -> Tensor:
    """Standard deviation of the noise per channel of (3, H, W), by a filter with little response to edges."""
    return second_differences(picture[None])[0].abs().mean((1, 2)) * math.sqrt(math.pi / 2)
