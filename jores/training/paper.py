"""Lays a sheet of paper with lines of text over a picture: documents, letters, posters, pages of a book.

Photographs of scenes show few white surfaces, so a head that learns from them alone proposes the brightness of a room
for a page: it comes out grey. A page has another histogram: most of it is as bright as its brightest part.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

LINES = (4.0, 12.0)  # px from line to line, in a picture of 192 rows
WORD = 2.5  # length of a word in heights of a line
WRITTEN = 0.8  # share of the words that are not gaps
MARGIN = 0.9  # the text ends at this share of the sheet's half sides


@dataclass(frozen=True)
class Paper:
    """A sheet and its place. Its light comes from one side.

    Attributes:
        tone: of the paper, RGB in [0, 1].
        ink: how much of the tone a word takes away, in [0, 1]; 0 for a blank sheet.
        line: distance of the lines, as a share of the picture's height.
        angle: of the lines against the rows, in radians.
        centre: of the sheet, x and y, in coordinates of the picture, -1 to 1.
        radii: half its width (along the lines) and half its height, in half heights of the picture.
        dimmed: gain of the light at the sheet's far end, in (0, 1].
        seed: of the words.
    """

    tone: tuple[float, float, float]
    ink: float
    line: float
    angle: float
    centre: tuple[float, float]
    radii: tuple[float, float]
    dimmed: float
    seed: int

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Paper:
        """Random settings. Sheets are nearly white and cover most of the picture; some are blank."""
        red, green, blue = (float(v) for v in rng.uniform(0.85, 1.0) * rng.uniform(0.92, 1.0, 3))
        x, y = rng.uniform(-0.1, 0.1, 2)
        half_height = float(rng.uniform(0.95, 1.8))
        return cls(
            (red, green, blue),
            float(rng.uniform(0.2, 0.75)) if rng.random() < 0.85 else 0.0,
            float(np.exp(rng.uniform(*np.log(LINES)))) / 192,
            float(rng.uniform(-0.3, 0.3)) if rng.random() < 0.6 else 0.0,
            (float(x), float(y)),
            (half_height * float(rng.uniform(1.1, 1.9)), half_height),
            float(rng.uniform(0.7, 1.0)),
            int(rng.integers(2**31)),
        )

    def __call__(self, picture: Tensor) -> Tensor:
        """The picture (3, H, W) in [0, 1] with the sheet over it."""
        along, across = self._coordinates(picture.shape[1], picture.shape[2])
        on_sheet = (along.abs() < self.radii[0]) & (across.abs() < self.radii[1])
        light = torch.lerp(torch.ones(()), torch.tensor(self.dimmed), (along / self.radii[0] / 2 + 0.5).clamp(0, 1))
        sheet = torch.tensor(self.tone).view(3, 1, 1) * (1 - self.ink * self._text(along, across)) * light
        return torch.where(on_sheet, sheet, picture)

    def _coordinates(self, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Place of each pixel along the lines and across them (H, W), from the sheet's centre, in half heights."""
        y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
        x, y = (x - self.centre[0]) * width / height, y - self.centre[1]
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        return x * cos + y * sin, y * cos - x * sin

    def _text(self, along: Tensor, across: Tensor) -> Tensor:
        """How much of a pixel is written on, (H, W): 0 or 1."""
        row, column = (across / (2 * self.line)), along / (2 * self.line * WORD)
        generator = torch.Generator().manual_seed(self.seed)
        words = torch.rand(64, 64, generator=generator) < WRITTEN
        written = words[row.floor().long() % 64, column.floor().long() % 64]
        inside = (along.abs() < MARGIN * self.radii[0]) & (across.abs() < MARGIN * self.radii[1])
        return (written & inside & (row % 1 < 0.5)).float()
