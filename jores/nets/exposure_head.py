"""ANet's exposure head: proposes the exposure (mean luma of the result) from global statistics of the picture.

The exposure depends on the full picture, so it cannot be predicted from a crop or a tile. With a few hundred scenes, a
convolutional head overfits to their content; statistics of brightness generalise better, and so do a few values of a
frozen net that say what the picture shows (`scene`).

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
)
from ..tiling.windows import smoothstep
from .blocks import zero_

USUAL_EXPOSURE = 0.44  # mean luma that an untrained head proposes
USUAL_SHADOWS = 0.6  # `shadow_share` that an untrained head proposes


class _Head(nn.Module):
    """A perceptron on what is known of a picture: `brightness_statistics`, and `scene` values of a `SceneNet`.

    The buffers `centre` and `spread` are mean and standard deviation of the statistics over the training pictures.
    """

    centre: Tensor
    spread: Tensor

    def __init__(self, width: int, outputs: int, scene: int = 0, *, operations: Any = nn, **factory: Any) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(BRIGHTNESS_STATISTICS, **factory))
        self.register_buffer("spread", torch.ones(BRIGHTNESS_STATISTICS, **factory))
        self.hidden = operations.Linear(BRIGHTNESS_STATISTICS + scene, width, **factory)
        self.dropout = nn.Dropout(0.5)
        self.out = zero_(operations.Linear(width, outputs, **factory))

    def standardise(self, known: Tensor) -> None:
        """Sets `centre` and `spread` to those of the statistics of `described` pictures (N, 23 + scene)."""
        statistics = known[:, :BRIGHTNESS_STATISTICS]
        self.centre.copy_(statistics.mean(0))
        self.spread.copy_(statistics.std(0, correction=0).clamp_min(1e-4))

    def normalised(self, known: Tensor) -> Tensor:
        """`described` pictures (B, 23 + scene), the statistics standardised, clamped for the perceptron; float32."""
        statistics, scene = known[:, :BRIGHTNESS_STATISTICS], known[:, BRIGHTNESS_STATISTICS:]
        statistics = (statistics - self.centre.to(statistics)) / self.spread.to(statistics)
        return torch.cat([statistics, scene], 1).clamp(-4, 4)

    def outputs(self, known: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """`described` pictures (B, 23 + scene) -> (B, outputs) float32; `dtype` is that of the perceptron."""
        return self.out(self.dropout(F.silu(self.hidden(self.normalised(known).to(dtype))))).float()


class ExposureHead(_Head):
    """Exposure head of release 0.1: proposes the mean luma of the result, (B, 3, 48, 64) -> (B,) in (0, 1].

    A gate detects well-lit pictures: the more it opens, the closer the proposal is to the picture's own mean luma, but
    at least DIM. At inference, the proposal is also blended with the picture's own mean luma: not at all up to DIM, and
    fully from WELL_LIT on.
    """

    def __init__(self, width: int, **kw: Any) -> None:
        super().__init__(width, 2, **kw)

    def forward(self, thumbnail: Tensor, scene: Tensor | None = None) -> Tensor:
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

    def shadows(self, thumbnail: Tensor, exposure: Tensor, scene: Tensor | None = None) -> Tensor:
        """(B, 2) zeros: weights of release 0.1 do not use shadows."""
        return torch.zeros(len(thumbnail), 2, device=thumbnail.device)


class _Light(nn.Module):
    """What `LightHead` and `LightMixture` have in common: both propose by `exposure` and `share`, from `described`."""

    scene: int
    """How many values of a `SceneNet` are used."""

    @property
    def heads(self) -> list[LightHead]:
        """The heads that the proposals are made of."""
        raise NotImplementedError

    def described(self, thumbnail: Tensor, scene: Tensor | None = None) -> Tensor:
        """What is known of pictures: `brightness_statistics` of (B, 3, 48, 64), then `scene` (B, scene); float32.

        None stands for the average scene, as zeros.
        """
        statistics = brightness_statistics(thumbnail)
        known = statistics.new_zeros(len(statistics), self.scene) if scene is None else scene.to(statistics)
        return torch.cat([statistics, known[:, : self.scene]], 1)

    def forward(self, thumbnail: Tensor, scene: Tensor | None = None) -> Tensor:
        """Target mean luma (B,) of the result, from thumbnails (B, 3, 48, 64) in [0, 1]; `scene` as in `described`."""
        return self.exposure(self.described(thumbnail, scene), thumbnail.dtype)

    def shadows(self, thumbnail: Tensor, exposure: Tensor, scene: Tensor | None = None) -> Tensor:
        """(B, 2): target `shadow_share` of a result with mean luma `exposure` (B,), and the picture's own."""
        own = shadow_share(thumbnail, thumbnail).clamp_min(1e-3)
        wanted = self.share(self.described(thumbnail, scene), own, exposure, thumbnail.dtype)
        return torch.stack([wanted, own], 1)

    def exposure(self, known: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """As `forward`, of `described` pictures (B, 23 + scene); `dtype` is that of the perceptron."""
        raise NotImplementedError

    def share(self, known: Tensor, own: Tensor, exposure: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Target `shadow_share` (B,) at mean luma `exposure` (B,).

        `known` (B, 23 + scene) and `own` (B,) are the pictures, `described`, and their `shadow_share`.
        """
        raise NotImplementedError


class LightHead(_Head, _Light):
    """Proposes the mean luma of the result, and its `shadow_share` at a given mean luma.

    Both are computed in logarithms, as a gated interpolation between a proposed value and the picture's own value. The
    gate is trained on dark pictures, on pictures lit in part, and on well-lit photographs, which should stay unchanged;
    there is no fixed threshold on the mean luma. What a picture shows serves the proposed values alone. A gate that
    sees it recognises pictures like those that are taught to stay unchanged, whatever their light: it left people
    before a window dark.
    """

    def __init__(self, width: int, scene: int = 0, *, operations: Any = nn, **factory: Any) -> None:
        super().__init__(width, 2, scene, operations=operations, **factory)
        self.scene = scene
        self.hidden_shadows = operations.Linear(BRIGHTNESS_STATISTICS + 3 + scene, width, **factory)
        self.out_shadows = zero_(operations.Linear(width, 2, **factory))

    @property
    def heads(self) -> list[LightHead]:
        return [self]

    def exposure(self, known: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        offset, gate = self.outputs(known, dtype)[:, 0], self.outputs(unseen(known), dtype)[:, 1]
        return _interpolated(offset + math.log(USUAL_EXPOSURE), known[:, 0], gate)

    def share(self, known: Tensor, own: Tensor, exposure: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        aim = exposure.float().clamp_min(1e-3).log()
        aims = torch.stack([own.log(), aim - math.log(USUAL_EXPOSURE), (aim - known[:, 0]).clamp(-4, 4)], 1)
        offset = self._shadow_outputs(known, aims, dtype)[:, 0]
        gate = self._shadow_outputs(unseen(known), aims, dtype)[:, 1]
        return _interpolated(offset + math.log(USUAL_SHADOWS), own.log(), gate)

    def _shadow_outputs(self, known: Tensor, aims: Tensor, dtype: torch.dtype) -> Tensor:
        x = self.normalised(known)
        x = torch.cat([x[:, :BRIGHTNESS_STATISTICS], aims, x[:, BRIGHTNESS_STATISTICS:]], 1).to(dtype)
        return self.out_shadows(self.dropout(F.silu(self.hidden_shadows(x)))).float()


class LightMixture(_Light):
    """A mixture of experts (Jacobs et al. 1991): several `LightHead`s, each for one kind of light.

    What a good brightness is depends on where a picture comes from: rooms without light are shown darker than streets
    and windows whose exposures were fused. One perceptron ends between the two; so each expert is trained on its own
    sets of pairs, and another perceptron, `sorter`, says which of the sets this picture is like. The logarithms of the
    experts' proposals are averaged by its shares.
    """

    def __init__(self, experts: int, width: int, scene: int = 0, *, operations: Any = nn, **factory: Any) -> None:
        super().__init__()
        self.scene, kw = scene, {"operations": operations, **factory}
        self.experts = nn.ModuleList(LightHead(width, scene, **kw) for _ in range(experts))
        self.sorter = _Head(width // 4, experts, scene, **kw)  # logits of the experts

    def exposure(self, known: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        return self._mixed(known, dtype, [head.exposure(known, dtype) for head in self.heads])

    def share(self, known: Tensor, own: Tensor, exposure: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        return self._mixed(known, dtype, [h.share(known, own, exposure, dtype) for h in self.heads])

    @property
    def heads(self) -> list[LightHead]:
        return [expert for expert in self.experts if isinstance(expert, LightHead)]

    def _mixed(self, known: Tensor, dtype: torch.dtype, proposals: list[Tensor]) -> Tensor:
        shares = self.sorter.outputs(known, dtype).softmax(1)  # (B, experts)
        return (shares * torch.stack(proposals, 1).log()).sum(1).exp()


def unseen(known: Tensor) -> Tensor:
    """`described` pictures (B, 23 + scene) as if nobody knew what they show: the average scene."""
    return torch.cat([known[:, :BRIGHTNESS_STATISTICS], torch.zeros_like(known[:, BRIGHTNESS_STATISTICS:])], 1)


def _interpolated(wanted: Tensor, own: Tensor, gate: Tensor) -> Tensor:
    """exp of the interpolation from `wanted` (gate far below 0.5) to `own` (far above), both logarithms; at most 1."""
    return torch.lerp(wanted, own, (4 * gate - 2).sigmoid()).clamp(max=0).exp()
