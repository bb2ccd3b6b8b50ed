"""Dark photographs made from well-lit ones: what little light, a small sensor and a file format do to a picture."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ..imaging.exposure import luma
from ..imaging.guided_filter import self_guided
from .convert import to_pixels, to_tensor

GAMMA = 2.2
BROAD = 1 / 32  # of a picture's height: details as large as that are light rather than texture
EDGE = 0.1  # contrast of the luma above which an edge is one of the light
SHADE_PIVOT = 0.65  # quantile of the broad light from which a picture in shade keeps all of it
SHADE_LIFT = 1.15  # what is brighter still gets at most so much more
WHOLE = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
"""The place of a whole picture in itself, as `affine_grid` wants it."""


@dataclass(frozen=True)
class Lamp:
    """Light of its own in a dark scene: `lift` times the exposure at its centre (x, y), falling off with `reach`; all
    in a whole picture that is -1..1 wide and high."""

    x: float
    y: float
    reach: float
    lift: float

    def __call__(self, size: tuple[int, int], place: Tensor) -> Tensor:
        """Factors (H, W) of the light in a part of the picture, which lies at `place` (2, 3)."""
        where = F.affine_grid(place[None], [1, 1, *size], align_corners=False)[0]  # (H, W, 2)
        distance = (where - where.new_tensor((self.x, self.y))).square().sum(2) / self.reach**2
        return self.lift ** (-distance).exp()


@dataclass(frozen=True)
class Darkening:
    """A short exposure of a well-lit picture: linear gain, colour cast and lamp, shadows that are deeper by the power
    `depth` of the light there (against a window or the sky), noise of a small sensor in patches of `patch` pixels and
    with as much colour as `chroma` says (1: each channel has its own, as a sensor makes it; 0: grey, as a camera's own
    processing leaves it), tone curve (`toe`: sRGB's, which cameras' files have and which leaves less of the shadows
    than a power), 8 bits, and a JPEG of quality `jpeg` (0: none). With `shade` only parts that are darker than most of
    the picture lose light, and the mean hardly changes: a picture exposed for its bright parts."""

    gain: float
    read_noise: float
    shot_noise: float
    cast: tuple[float, float, float]
    jpeg: int = 0
    lamp: Lamp | None = None
    patch: int = 1
    toe: bool = True
    chroma: float = 1.0
    depth: float = 0.0
    shade: bool = False

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Darkening:
        if rng.random() < 0.2:  # well lit already: must come back as it went in
            return cls(1.0, 0.0, 0.0, (1.0, 1.0, 1.0))
        if rng.random() < 0.15:
            return cls._draw_shade(rng)
        deep = rng.random() < 0.3  # lit in part, so that the exposure is hardly short
        gain = float(np.exp(rng.uniform(np.log(1 / 4), 0) if deep else rng.uniform(np.log(1 / 300), np.log(1 / 2))))
        signal = min(1.0, 60 * gain)  # below a sixtieth of the light, what is as noisy could not be told from nothing
        coloured = rng.random() < 0.2
        cast = np.exp(rng.normal(0, 0.3, 3)) if coloured else rng.uniform(0.85, 1.15, 3)
        return cls(
            gain,
            read_noise=0.006 * signal * float(rng.random()) ** 2,
            shot_noise=0.016 * signal**0.5 * float(rng.random()) ** 2,
            cast=(float(cast[0]), float(cast[1]), float(cast[2])),
            jpeg=int(rng.integers(40, 98)) if rng.random() < 0.5 else 0,
            lamp=_draw_lamp(rng, gain) if rng.random() < 0.15 else None,
            patch=int(rng.choice((1, 3, 5), p=(0.7, 0.2, 0.1))),
            toe=bool(rng.random() < 0.85),  # a net that doubts the curve of cameras' files pales all pictures
            chroma=float(rng.uniform(0, 0.6)) if rng.random() < 0.5 else 1.0,
            depth=float(rng.uniform(0.2, 1.2)) if deep else 0.0,
        )

    @classmethod
    def _draw_shade(cls, rng: np.random.Generator) -> Darkening:
        depth, cast = float(rng.uniform(0.4, 1.6)), rng.uniform(0.95, 1.05, 3)
        jpeg = int(rng.integers(60, 98)) if rng.random() < 0.5 else 0
        read_noise, shot_noise = 0.002 * float(rng.random()) ** 2, 0.006 * float(rng.random()) ** 2
        chroma = float(rng.uniform(0, 0.6)) if rng.random() < 0.5 else 1.0
        red, green, blue = (float(v) for v in cast)
        return cls(
            0.5, read_noise, shot_noise, (red, green, blue), jpeg=jpeg, depth=depth, shade=True, chroma=chroma
        )  # fmt: skip

    def fitted(self, light: Tensor) -> Darkening:
        """This darkening for one picture, seen whole as (3, h, w): with `shade`, the gain that leaves all of the light
        to what is brighter than two thirds of the picture."""
        if not self.shade:
            return self
        broad = self._linear(broad_light(light, max(1, round(light.shape[-2] * BROAD))))
        pivot = float(broad.flatten().quantile(SHADE_PIVOT).clamp_min(0.02))
        return replace(self, gain=pivot**-self.depth)

    def __call__(self, picture: Tensor, generator: torch.Generator | None = None, place: Tensor = WHOLE) -> Tensor:
        """(3, H, W) in [0, 1], the part of a picture that lies at `place`, -> the same, dark; noiseless and unrounded
        without a generator."""
        if self.gain == 1.0:
            return picture
        factor: Tensor | float = self.gain
        if self.depth:
            reach = picture.shape[-2] / float(place[1, 1]) * BROAD
            factor = self.gain * self._linear(broad_light(picture, max(1, round(reach)))) ** self.depth
            factor = factor.clamp(max=SHADE_LIFT) if self.shade else factor
        light = self._linear(picture) * factor * torch.tensor(self.cast).view(3, 1, 1)
        if self.lamp:
            light = light * self.lamp((picture.shape[-2], picture.shape[-1]), place)
        if generator is not None:
            light = light + self._noise(light, generator)
        dark = self._developed(light.clamp(0, 1))
        if generator is None:
            return dark
        return as_jpeg(dark, self.jpeg) if self.jpeg else (dark * 255).round().div(255)

    def thumbnail(self, picture: Tensor, generator: torch.Generator, fold: int) -> Tensor:
        """(3, H, W) -> the dark picture's thumbnail (3, H / fold, W / fold). The noise is there before the average:
        shadows that end at 0 make the mean of a noisy picture brighter."""
        return F.avg_pool2d(replace(self, jpeg=0)(picture, generator), fold)

    def _noise(self, light: Tensor, generator: torch.Generator) -> Tensor:
        noise = torch.randn(light.shape, generator=generator)
        if self.chroma < 1:
            grey = torch.randn((1, *light.shape[1:]), generator=generator)
            noise = self.chroma * noise + (1 - self.chroma**2) ** 0.5 * grey  # of the same strength
        if self.patch > 1:
            noise = F.avg_pool2d(noise, self.patch, stride=1, padding=self.patch // 2) * self.patch  # likewise
        return noise * (self.read_noise**2 + self.shot_noise**2 * light * 10).sqrt()

    def _linear(self, picture: Tensor) -> Tensor:
        return linear(picture) if self.toe else picture.pow(GAMMA)

    def _developed(self, light: Tensor) -> Tensor:
        return developed(light) if self.toe else light.pow(1 / GAMMA)


def broad_light(picture: Tensor, reach: int) -> Tensor:
    """(3, H, W) in [0, 1] -> (1, H, W), its luma without the texture: a guided filter, `reach` pixels to each side."""
    y = luma(picture[None])[0]
    slope, intercept = self_guided(y, reach, EDGE)
    return (slope * y + intercept).clamp(0, 1)


def linear(picture: Tensor) -> Tensor:
    """sRGB in [0, 1] as linear light."""
    return torch.where(picture < 0.04045, picture / 12.92, ((picture + 0.055) / 1.055).pow(2.4))


def developed(light: Tensor) -> Tensor:
    """Inverse of `linear`."""
    return torch.where(light < 0.0031308, 12.92 * light, 1.055 * light.clamp_min(1e-4).pow(1 / 2.4) - 0.055)


def _draw_lamp(rng: np.random.Generator, gain: float) -> Lamp:
    lift = min(float(np.exp(rng.uniform(np.log(2), np.log(40)))), 1 / gain)
    x, y, reach = (float(v) for v in rng.uniform((-1.2, -1.2, 0.3), (1.2, 1.2, 1.3)))
    return Lamp(x, y, reach, lift)


def as_jpeg(picture: Tensor, quality: int) -> Tensor:
    """(3, H, W) in [0, 1] as it comes back from a JPEG file."""
    file = io.BytesIO()
    Image.fromarray(to_pixels(picture)).save(file, "JPEG", quality=quality)
    with Image.open(file) as image:
        return to_tensor(np.asarray(image))
