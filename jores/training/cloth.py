"""Lays cloth with a coloured pattern over a part of a picture: checks, stripes and dots, as tablecloths have.

Few photographs hold such cloth, and after a short exposure and JPEG its pattern looks like blotches of coloured noise.
A net that has never seen it takes it out with the noise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..imaging.exposure import luma

KINDS, SHARES = ("checks", "stripes", "dots"), (0.6, 0.25, 0.15)
PERIODS = (4.0, 28.0)  # px
FOLDS = 15  # px; smaller details of the picture below do not show in the cloth, larger ones are its light


@dataclass(frozen=True)
class Cloth:
    """A pattern and its place.

    Attributes:
        kind: one of KINDS.
        period: of the pattern in pixels.
        angle: of the threads against the rows, in radians.
        colours: two of RGB in [0, 1], for the ground and the threads.
        centre, radii: of the ellipse that the cloth covers, as shares of the picture's height and width.
    """

    kind: str
    period: float
    angle: float
    colours: tuple[tuple[float, float, float], tuple[float, float, float]]
    centre: tuple[float, float]
    radii: tuple[float, float]

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Cloth:
        """Random settings. One of the colours is saturated, the other one often nearly white."""
        vivid, other = rng.random(3) ** 2, rng.random(3)
        pale = np.full(3, 0.85) + 0.15 * rng.random(3)
        colours = [vivid * 0.9 + 0.05, pale if rng.random() < 0.6 else other]
        rng.shuffle(colours)
        first, second = (tuple(float(v) for v in colour) for colour in colours)
        low, high = rng.uniform(0.1, 0.9, 2), rng.uniform(0.2, 0.9, 2)
        return cls(
            str(rng.choice(KINDS, p=SHARES)),
            float(np.exp(rng.uniform(*np.log(PERIODS)))),
            0.0 if rng.random() < 0.3 else float(rng.uniform(0, math.pi)),
            ((first[0], first[1], first[2]), (second[0], second[1], second[2])),
            (float(low[0]), float(low[1])),
            (float(high[0]), float(high[1])),
        )

    def __call__(self, picture: Tensor) -> Tensor:
        """The picture (3, H, W) in [0, 1] with the cloth in it, which takes its light from the picture."""
        threads = self.threads(picture.shape[1], picture.shape[2])
        ground, thread = (torch.tensor(colour).view(3, 1, 1) for colour in self.colours)
        cloth = torch.lerp(ground, thread, threads)
        light = F.avg_pool2d(luma(picture[None]), FOLDS, 1, FOLDS // 2, count_include_pad=False)[0]
        cloth = cloth * light / luma(cloth[None]).mean().clamp_min(0.05)
        return torch.lerp(picture, cloth.clamp(0, 1), self.place(picture.shape[1], picture.shape[2]))

    def threads(self, height: int, width: int) -> Tensor:
        """How much of the second colour is seen, (1, H, W) in [0, 1]."""
        y, x = torch.meshgrid(torch.arange(float(height)), torch.arange(float(width)), indexing="ij")
        turn = 2 * math.pi / self.period
        across = (turn * (x * math.cos(self.angle) + y * math.sin(self.angle))).sin()
        along = (turn * (y * math.cos(self.angle) - x * math.sin(self.angle))).sin()
        sharp = self.period / 3  # lines are about a pixel soft
        first, second = (wave.mul(sharp).add(0.5).clamp(0, 1) for wave in (across, along))
        if self.kind == "stripes":
            return first[None]
        return ((first * second) if self.kind == "dots" else (first + second) / 2)[None]

    def place(self, height: int, width: int) -> Tensor:
        """Where the cloth lies, (1, H, W) in [0, 1]; its edge is a few pixels soft."""
        y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
        distance = ((y - self.centre[0]) / self.radii[0]).square() + ((x - self.centre[1]) / self.radii[1]).square()
        return ((1 - distance) * min(height, width) / 8).clamp(0, 1)[None]


@dataclass(frozen=True)
class Planes:
    """A dark plane beside a bright one, as a wall beside a window: nets that see it keep planes even up to their edge.

    Attributes:
        tones: RGB in [0, 1] on both sides.
        angle: of the edge, in radians.
        offset: distance of the edge from the centre, as a share of the shorter side.
    """

    tones: tuple[tuple[float, float, float], tuple[float, float, float]]
    angle: float
    offset: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Planes:
        """Random settings: tones that are nearly grey, one darker than the other."""
        dark, light = float(rng.uniform(0.05, 0.5)), float(rng.uniform(0.5, 1.0))
        first, second = (np.clip(tone * rng.uniform(0.9, 1.1, 3), 0, 1) for tone in (dark, light))
        return cls(
            (
                (float(first[0]), float(first[1]), float(first[2])),
                (float(second[0]), float(second[1]), float(second[2])),
            ),
            float(rng.uniform(0, 2 * math.pi)),
            float(rng.uniform(-0.35, 0.35)),
        )

    def __call__(self, picture: Tensor) -> Tensor:
        """The planes, in the size of the picture (3, H, W)."""
        height, width = picture.shape[1:]
        y, x = torch.meshgrid(torch.arange(float(height)), torch.arange(float(width)), indexing="ij")
        across = (x - width / 2) * math.cos(self.angle) + (y - height / 2) * math.sin(self.angle)
        side = (across - self.offset * min(height, width) + 0.5).clamp(0, 1)[None]
        first, second = (torch.tensor(tone).view(3, 1, 1) for tone in self.tones)
        return torch.lerp(first, second, side)
