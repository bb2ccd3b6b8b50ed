"""ANet's proposal for the exposure, the mean brightness of the result, from global statistics of the picture.

Brightness is a choice that belongs to the whole picture, never to a crop or a tile. A few hundred scenes teach a
convolutional head what they show rather than how bright it should be; statistics of the light generalise better. Not in
the paper.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..imaging.exposure import (
    BRIGHTNESS_STATISTICS,
    DIM,
    WELL_LIT,
    brightness_statistics,
    luma_of,
    mean_colour,
    shadow_share,
    smoothstep,
)
from .blocks import zero_

USUAL_EXPOSURE = 0.44  # where a proposal starts from
USUAL_SHADOWS = 0.6  # likewise


class _Head(nn.Module):
    """A perceptron on statistics of a thumbnail (B, 3, 48, 64). `centre` and `spread` of the statistics over the
    training pictures travel with the weights."""

    centre: Tensor
    spread: Tensor

    def __init__(self, width: int, outputs: int, *, operations: Any = nn, **factory: Any) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(BRIGHTNESS_STATISTICS, **factory))
        self.register_buffer("spread", torch.ones(BRIGHTNESS_STATISTICS, **factory))
        self.hidden = operations.Linear(BRIGHTNESS_STATISTICS, width, **factory)
        self.dropout = nn.Dropout(0.5)
        self.out = zero_(operations.Linear(width, outputs, **factory))

    def normalised(self, statistics: Tensor) -> Tensor:
        """`brightness_statistics` (B, 23) as the perceptron takes them, float32."""
        return ((statistics - self.centre.to(statistics)) / self.spread.to(statistics)).clamp(-4, 4)


class ExposureHead(_Head):
    """Release 0.1: proposes the mean luma of the result, (B, 3, 48, 64) -> (B,) in (0, 1].

    A gate tells how well lit the picture is already: where it opens, the proposal is the picture's own brightness, but
    no less than DIM. In use, a picture of a mean luma between DIM and WELL_LIT keeps more and more of its own, and all
    of it from there on.
    """

    def __init__(self, width: int, **kw: Any) -> None:
        super().__init__(width, 2, **kw)

    def forward(self, thumbnail: Tensor) -> Tensor:
        statistics = brightness_statistics(thumbnail)
        own, x = statistics[:, 0], self.normalised(statistics).to(thumbnail.dtype)
        offset, gate = self.out(self.dropout(F.silu(self.hidden(x)))).float().unbind(1)
        wanted, kept = offset + math.log(USUAL_EXPOSURE), own
        if not self.training:  # a gate that led to DIM while it learns would open for every picture lit in part
            kept = own.clamp_min(math.log(DIM))
        proposal = torch.lerp(wanted, kept, (4 * gate - 2).sigmoid()).clamp(max=0).exp()
        if self.training:
            return proposal
        mean = luma_of(mean_colour(thumbnail)).to(proposal)
        lit = smoothstep(mean, DIM, WELL_LIT)
        return torch.where(lit > 0, torch.lerp(proposal, mean, lit), proposal)

    def shadows(self, thumbnail: Tensor, exposure: Tensor) -> Tensor:
        """Nothing that these weights would understand: (B, 2) zeros."""
        return torch.zeros(len(thumbnail), 2, device=thumbnail.device)


class LightHead(_Head):
    """Proposes the mean luma of the result, and how far the shadows are to be lifted at a given mean luma.

    Both by the same form, in logarithms: a gate between what such pictures should have and what this one has. The gate
    is learned from dark pictures, from pictures lit in part, and from good photographs, which are to be left alone; no
    threshold on the mean luma decides.
    """

    def __init__(self, width: int, *, operations: Any = nn, **factory: Any) -> None:
        super().__init__(width, 2, operations=operations, **factory)
        self.hidden_shadows = operations.Linear(BRIGHTNESS_STATISTICS + 3, width, **factory)
        self.out_shadows = zero_(operations.Linear(width, 2, **factory))

    def forward(self, thumbnail: Tensor) -> Tensor:
        """Mean luma (B,) that the result should have, of thumbnails (B, 3, 48, 64)."""
        return self.exposure(brightness_statistics(thumbnail), thumbnail.dtype)

    def shadows(self, thumbnail: Tensor, exposure: Tensor) -> Tensor:
        """`shadow_share` (B, 2) that a result of mean luma `exposure` (B,) should have, and the picture's own."""
        own = shadow_share(thumbnail, thumbnail).clamp_min(1e-3)
        wanted = self.share(brightness_statistics(thumbnail), own, exposure, thumbnail.dtype)
        return torch.stack([wanted, own], 1)

    def exposure(self, statistics: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """`forward` of pictures with these `brightness_statistics` (B, 23); `dtype` is the perceptron's."""
        hidden = self.dropout(F.silu(self.hidden(self.normalised(statistics).to(dtype))))
        offset, gate = self.out(hidden).float().unbind(1)
        return _between(offset + math.log(USUAL_EXPOSURE), statistics[:, 0], gate)

    def share(self, statistics: Tensor, own: Tensor, exposure: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """The wanted `shadow_share` (B,) of pictures with these statistics and a share of their `own` (B,)."""
        aim = exposure.float().clamp_min(1e-3).log()
        told = torch.stack([own.log(), aim - math.log(USUAL_EXPOSURE), (aim - statistics[:, 0]).clamp(-4, 4)], 1)
        x = torch.cat([self.normalised(statistics), told], 1).to(dtype)
        offset, gate = self.out_shadows(self.dropout(F.silu(self.hidden_shadows(x)))).float().unbind(1)
        return _between(offset + math.log(USUAL_SHADOWS), own.log(), gate)


def _between(wanted: Tensor, own: Tensor, gate: Tensor) -> Tensor:
    """From one logarithm (gate far below 0.5) to the other, as a number of at most 1."""
    return torch.lerp(wanted, own, (4 * gate - 2).sigmoid()).clamp(max=0).exp()
