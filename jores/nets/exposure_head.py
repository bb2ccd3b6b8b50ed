"""ANet's exposure head: proposes the exposure (mean luma of the result) from global statistics of the picture.

The exposure depends on the full picture, so it cannot be predicted from a crop or a tile. With a few hundred scenes, a
convolutional head overfits to their content; statistics of brightness generalise better.

From the paper: nothing. Inferred: nothing. Ours: all of it (METHOD.md, 6).
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

USUAL_EXPOSURE = 0.44  # mean luma that an untrained head proposes
USUAL_SHADOWS = 0.6  # `shadow_share` that an untrained head proposes


class _Head(nn.Module):
    """A perceptron on `brightness_statistics` of a thumbnail (B, 3, 48, 64).

    The buffers `centre` and `spread` are mean and standard deviation of the statistics over the training pictures.
    """

    centre: Tensor
    spread: Tensor

    def __init__(self, width: int, outputs: int, *, operations: Any = nn, **factory: Any) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(BRIGHTNESS_STATISTICS, **factory))
        self.register_buffer("spread", torch.ones(BRIGHTNESS_STATISTICS, **factory))
        self.hidden = operations.Linear(BRIGHTNESS_STATISTICS, width, **factory)
        self.dropout = nn.Dropout(0.5)
        self.out = zero_(operations.Linear(width, outputs, **factory))

    def standardise(self, statistics: Tensor) -> None:
        """Sets `centre` and `spread` to those of `statistics` (N, 23)."""
        self.centre.copy_(statistics.mean(0))
        self.spread.copy_(statistics.std(0, correction=0).clamp_min(1e-4))

    def normalised(self, statistics: Tensor) -> Tensor:
        """`brightness_statistics` (B, 23), standardised and clamped for the perceptron; float32."""
        return ((statistics - self.centre.to(statistics)) / self.spread.to(statistics)).clamp(-4, 4)

    def outputs(self, statistics: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """`brightness_statistics` (B, 23) -> (B, outputs) float32; `dtype` is that of the perceptron."""
        return self.out(self.dropout(F.silu(self.hidden(self.normalised(statistics).to(dtype))))).float()


class ExposureHead(_Head):
    """Exposure head of release 0.1: proposes the mean luma of the result, (B, 3, 48, 64) -> (B,) in (0, 1].

    A gate detects well-lit pictures: the more it opens, the closer the proposal is to the picture's own mean luma, but
    at least DIM. At inference, the proposal is also blended with the picture's own mean luma: not at all up to DIM, and
    fully from WELL_LIT on.
    """

    def __init__(self, width: int, **kw: Any) -> None:
        super().__init__(width, 2, **kw)

    def forward(self, thumbnail: Tensor) -> Tensor:
        statistics = brightness_statistics(thumbnail)
        own = statistics[:, 0]
        offset, gate = self.outputs(statistics, thumbnail.dtype).unbind(1)
        wanted, kept = offset + math.log(USUAL_EXPOSURE), own
        if not self.training:  # not in training: the gate would then open for every picture that is lit in part
            kept = own.clamp_min(math.log(DIM))
        proposal = torch.lerp(wanted, kept, (4 * gate - 2).sigmoid()).clamp(max=0).exp()
        if self.training:
            return proposal
        mean = luma_of(mean_colour(thumbnail)).to(proposal)
        lit = smoothstep(mean, DIM, WELL_LIT)
        return torch.where(lit > 0, torch.lerp(proposal, mean, lit), proposal)

    def shadows(self, thumbnail: Tensor, exposure: Tensor) -> Tensor:
        """(B, 2) zeros: weights of release 0.1 do not use shadows."""
        return torch.zeros(len(thumbnail), 2, device=thumbnail.device)


class _Light(nn.Module):
    """What `LightHead` and `LightMixture` have in common: both propose by `exposure` and `share`, from statistics."""

    @property
    def heads(self) -> list[LightHead]:
        """The heads that the proposals are made of."""
        raise NotImplementedError

    def forward(self, thumbnail: Tensor) -> Tensor:
        """Target mean luma (B,) of the result, from thumbnails (B, 3, 48, 64) in [0, 1]."""
        return self.exposure(brightness_statistics(thumbnail), thumbnail.dtype)

    def shadows(self, thumbnail: Tensor, exposure: Tensor) -> Tensor:
        """(B, 2): target `shadow_share` of a result with mean luma `exposure` (B,), and the picture's own."""
        own = shadow_share(thumbnail, thumbnail).clamp_min(1e-3)
        wanted = self.share(brightness_statistics(thumbnail), own, exposure, thumbnail.dtype)
        return torch.stack([wanted, own], 1)

    def exposure(self, statistics: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """As `forward`, from `brightness_statistics` (B, 23); `dtype` is that of the perceptron."""
        raise NotImplementedError

    def share(self, statistics: Tensor, own: Tensor, exposure: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Target `shadow_share` (B,) at mean luma `exposure` (B,).

        `statistics` (B, 23) and `own` (B,) are the picture's `brightness_statistics` and `shadow_share`.
        """
        raise NotImplementedError


class LightHead(_Head, _Light):
    """Proposes the mean luma of the result, and its `shadow_share` at a given mean luma.

    Both are computed in logarithms, as a gated interpolation between a proposed value and the picture's own value. The
    gate is trained on dark pictures, on pictures lit in part, and on well-lit photographs, which should stay unchanged;
    there is no fixed threshold on the mean luma.
    """

    def __init__(self, width: int, *, operations: Any = nn, **factory: Any) -> None:
        super().__init__(width, 2, operations=operations, **factory)
        self.hidden_shadows = operations.Linear(BRIGHTNESS_STATISTICS + 3, width, **factory)
        self.out_shadows = zero_(operations.Linear(width, 2, **factory))

    @property
    def heads(self) -> list[LightHead]:
        return [self]

    def exposure(self, statistics: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        offset, gate = self.outputs(statistics, dtype).unbind(1)
        return _between(offset + math.log(USUAL_EXPOSURE), statistics[:, 0], gate)

    def share(self, statistics: Tensor, own: Tensor, exposure: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        aim = exposure.float().clamp_min(1e-3).log()
        aims = torch.stack([own.log(), aim - math.log(USUAL_EXPOSURE), (aim - statistics[:, 0]).clamp(-4, 4)], 1)
        x = torch.cat([self.normalised(statistics), aims], 1).to(dtype)
        offset, gate = self.out_shadows(self.dropout(F.silu(self.hidden_shadows(x)))).float().unbind(1)
        return _between(offset + math.log(USUAL_SHADOWS), own.log(), gate)


class LightMixture(_Light):
    """A mixture of experts (Jacobs et al. 1991): several `LightHead`s, each for one kind of light.

    What a good brightness is depends on where a picture comes from: rooms without light are shown darker than streets
    and windows whose exposures were fused. One perceptron ends between the two; so each expert is trained on its own
    sets of pairs, and another perceptron, `sorter`, says whose pictures this one is like. The logarithms of the
    experts' proposals are averaged by its shares.
    """

    def __init__(self, experts: int, width: int, *, operations: Any = nn, **factory: Any) -> None:
        super().__init__()
        kw = {"operations": operations, **factory}
        self.experts = nn.ModuleList(LightHead(width, **kw) for _ in range(experts))
        self.sorter = _Head(width // 4, experts, **kw)  # logits of whose pictures these are

    def exposure(self, statistics: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        return self._mixed(statistics, dtype, [head.exposure(statistics, dtype) for head in self.heads])

    def share(self, statistics: Tensor, own: Tensor, exposure: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        return self._mixed(statistics, dtype, [h.share(statistics, own, exposure, dtype) for h in self.heads])

    @property
    def heads(self) -> list[LightHead]:
        return [expert for expert in self.experts if isinstance(expert, LightHead)]

    def _mixed(self, statistics: Tensor, dtype: torch.dtype, proposals: list[Tensor]) -> Tensor:
        shares = self.sorter.outputs(statistics, dtype).softmax(1)  # (B, experts)
        return (shares * torch.stack(proposals, 1).log()).sum(1).exp()


def _between(wanted: Tensor, own: Tensor, gate: Tensor) -> Tensor:
    """exp of the interpolation from `wanted` (gate far below 0.5) to `own` (far above), both logarithms; at most 1."""
    return torch.lerp(wanted, own, (4 * gate - 2).sigmoid()).clamp(max=0).exp()
