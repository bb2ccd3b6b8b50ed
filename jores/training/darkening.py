"""Synthesises dark photographs from well-lit ones: short exposure, sensor noise, tone curve, 8 bits, JPEG."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ..imaging.exposure import luma
from ..imaging.guided_filter import smoothed
from ..imaging.srgb import decode_srgb, encode_srgb
from .convert import to_pixels, to_tensor

GAMMA = 2.2
SMOOTHING_RADIUS = 1 / 32  # of the picture's height: smaller details count as texture, larger ones as illumination
SMOOTHING_EDGE = 0.1  # contrast of the luma above which an edge belongs to the illumination and is kept
SHADE_PIVOT = 0.65  # quantile of the smoothed light; with `shade`, only darker pixels lose light
SHADE_MAX_GAIN = 1.15  # with `shade`, upper bound of the gain of brighter pixels
FULL_PICTURE = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
"""`place` of a crop that is the full picture: the identity transform of `affine_grid`."""


@dataclass(frozen=True)
class Lamp:
    """A light source in a dark scene: gain `gain` at its centre (x, y), with a Gaussian fall-off (of the logarithm).

    The centre and `radius` are in coordinates of the full picture, which spans -1..1 in both directions.
    """

    x: float
    y: float
    radius: float
    gain: float

    def __call__(self, size: tuple[int, int], place: Tensor) -> Tensor:
        """Gain (H, W) of the linear light in a crop of `size` (H, W).

        `place` (2, 3) is the affine transform of the crop within the full picture, as `affine_grid` takes it.
        """
        positions = F.affine_grid(place[None], [1, 1, *size], align_corners=False)[0]  # (H, W, 2)
        distance = (positions - positions.new_tensor((self.x, self.y))).square().sum(2) / self.radius**2
        return self.gain ** (-distance).exp()


@dataclass(frozen=True)
class Darkening:
    """A random model of a short exposure. Call it with a well-lit picture to get the dark one.

    Attributes:
        gain: of the linear light; 1 returns the picture unchanged.
        read_noise, shot_noise: the sensor's noise has the variance read_noise^2 + 10 * shot_noise^2 * light, both in
            linear light.
        cast: gain of each colour channel.
        jpeg: quality of the JPEG compression; 0 for none.
        lamp: a light source in the scene, or None.
        patch: side in pixels over which the noise is correlated; 1 for white noise.
        toe: True uses the tone curve of sRGB, as camera files have it, False a power of GAMMA. sRGB's has a linear toe,
            which leaves less of the shadows.
        chroma: share of colour in the noise: 1 is independent per channel, as from a sensor, 0 is grey, as after a
            camera's denoising.
        depth: exponent by which the smoothed light darkens the shadows further, as against a window or the sky.
        shade: True darkens only the shadows and hardly changes the mean: a picture exposed for its bright parts.
    """

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
        """Random settings; a fifth of them leave the picture unchanged, so that the nets learn to do so, too."""
        if rng.random() < 0.2:
            return cls(1.0, 0.0, 0.0, (1.0, 1.0, 1.0))
        if rng.random() < 0.15:
            return cls._draw_shade(rng)
        return cls._draw(rng, deep=rng.random() < 0.3)

    @classmethod
    def draw_in_part(cls, rng: np.random.Generator) -> Darkening:
        """Random settings that darken shadows much more than what is bright."""
        return cls._draw_shade(rng) if rng.random() < 0.5 else cls._draw(rng, deep=True)

    @classmethod
    def _draw(cls, rng: np.random.Generator, *, deep: bool) -> Darkening:
        """`deep`: a partly lit scene with deep shadows, whose exposure is hardly too short."""
        gain = float(np.exp(rng.uniform(np.log(1 / 4), 0) if deep else rng.uniform(np.log(1 / 300), np.log(1 / 2))))
        signal = min(1.0, 60 * gain)  # less noise at very low gains, where it would hide the signal completely
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
            toe=bool(rng.random() < 0.85),  # mostly sRGB: with more uncertainty about the curve, results look pale
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

    def fitted(self, picture: Tensor) -> Darkening:
        """Adapts the settings to a full well-lit picture (3, h, w) in [0, 1], which may be a thumbnail.

        With `shade` it sets the gain so that the SHADE_PIVOT quantile of the smoothed light stays unchanged; without
        `shade` it returns the settings as they are.
        """
        if not self.shade:
            return self
        light = self._decode(smoothed_luma(picture, max(1, round(picture.shape[-2] * SMOOTHING_RADIUS))))
        pivot = float(light.flatten().quantile(SHADE_PIVOT).clamp_min(0.02))
        return replace(self, gain=pivot**-self.depth)

    def __call__(
        self, picture: Tensor, generator: torch.Generator | None = None, place: Tensor = FULL_PICTURE
    ) -> Tensor:
        """Darkens a picture or a crop of it.

        Args:
            picture: (3, H, W) in [0, 1], well lit.
            generator: draws the noise; None leaves out noise, rounding and JPEG.
            place: (2, 3), the affine transform of the crop within the full picture, as `affine_grid` takes it.

        Returns:
            (3, H, W) in [0, 1]; rounded to 8 bits if there is a generator.
        """
        if self.gain == 1.0:
            return picture
        factor: Tensor | float = self.gain
        if self.depth:
            radius = picture.shape[-2] / float(place[1, 1]) * SMOOTHING_RADIUS
            factor = self.gain * self._decode(smoothed_luma(picture, max(1, round(radius)))) ** self.depth
            factor = factor.clamp(max=SHADE_MAX_GAIN) if self.shade else factor
        light = self._decode(picture) * factor * torch.tensor(self.cast).view(3, 1, 1)
        if self.lamp:
            light = light * self.lamp((picture.shape[-2], picture.shape[-1]), place)
        if generator is not None:
            light = light + self._noise(light, generator)
        dark = self._encode(light.clamp(0, 1))
        if generator is None:
            return dark
        return as_jpeg(dark, self.jpeg) if self.jpeg else (dark * 255).round().div(255)

    def thumbnail(self, picture: Tensor, generator: torch.Generator, factor: int) -> Tensor:
        """Darkens (3, H, W) in [0, 1] and averages it to (3, H / factor, W / factor).

        Noise is added before averaging: clipping at 0 makes the mean of noisy shadows brighter, as in a real file.
        """
        return F.avg_pool2d(replace(self, jpeg=0)(picture, generator), factor)

    def _noise(self, light: Tensor, generator: torch.Generator) -> Tensor:
        noise = torch.randn(light.shape, generator=generator)
        if self.chroma < 1:
            grey = torch.randn((1, *light.shape[1:]), generator=generator)
            noise = self.chroma * noise + (1 - self.chroma**2) ** 0.5 * grey  # keeps the standard deviation
        if self.patch > 1:  # keeps it, too
            noise = F.avg_pool2d(noise, self.patch, stride=1, padding=self.patch // 2) * self.patch
        return noise * (self.read_noise**2 + self.shot_noise**2 * light * 10).sqrt()

    def _decode(self, picture: Tensor) -> Tensor:
        return decode_srgb(picture) if self.toe else picture.pow(GAMMA)

    def _encode(self, light: Tensor) -> Tensor:
        return encode_srgb(light) if self.toe else light.pow(1 / GAMMA)


def smoothed_luma(picture: Tensor, radius: int) -> Tensor:
    """Luma (1, H, W) of a picture (3, H, W) in [0, 1] without texture: a self-guided filter of `radius` pixels."""
    return smoothed(luma(picture[None])[0], radius, SMOOTHING_EDGE)


def _draw_lamp(rng: np.random.Generator, gain: float) -> Lamp:
    lamp_gain = min(float(np.exp(rng.uniform(np.log(2), np.log(40)))), 1 / gain)
    x, y, radius = (float(v) for v in rng.uniform((-1.2, -1.2, 0.3), (1.2, 1.2, 1.3)))
    return Lamp(x, y, radius, lamp_gain)


def as_jpeg(picture: Tensor, quality: int) -> Tensor:
    """Compresses (3, H, W) in [0, 1] as JPEG of this quality (1..100) and decodes it again."""
    file = io.BytesIO()
    Image.fromarray(to_pixels(picture)).save(file, "JPEG", quality=quality)
    with Image.open(file) as image:
        return to_tensor(np.asarray(image))
