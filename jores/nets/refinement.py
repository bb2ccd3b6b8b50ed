"""RNet: refines the predicted x0 by Retinex conditions, first on features (FRCM), then on the image (IRCM).

See METHOD.md, 14 to 16.

From the paper: what both modules take and give (its Figure 4). Inferred: that FRCM scales and shifts a feature of x0,
and that IRCM's result is a correction of x0. Ours: two levels on folded pixels, the blocks, R' * L' beside R' and L'.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..conditions import RetinexCondition
from ..config import RefinementConfig
from ..imaging.resize import crop_to, pad_to_multiple, resize_map
from ..tiling.windows import rounded_up
from .blocks import LayerNorm2d, ScalarEmbedding, Stack, Upsample, plus, spare, zero_

Modulation = tuple[Tensor, Tensor]


class FeatureModulation(nn.Module):
    """f <- f + LN(f) * gamma(F) + beta(F): spatial feature transform by ANet's feature, zero-initialised.

    METHOD.md, 15; inferred.
    """

    def __init__(self, channels: int, feature: int, *, operations: Any = nn, **factory: Any) -> None:
        super().__init__()
        self.norm = LayerNorm2d(channels, operations=operations, **factory)
        self.embed = operations.Conv2d(feature, channels, 1, **factory)
        self.modulation = zero_(operations.Conv2d(channels, 2 * channels, 1, **factory))

    def parameters_of(self, feature: Tensor) -> Modulation:
        """gamma and beta for the feature (B, feature, H, W): the same at every step."""
        gamma, beta = self.modulation(F.silu(self.embed(feature))).chunk(2, 1)
        # Halves of one map are read slowly, at every step.
        return tuple(x.contiguous(memory_format=torch.channels_last) for x in (gamma, beta))

    def forward(self, f: Tensor, modulation: Modulation) -> Tensor:
        gamma, beta = modulation
        normed = self.norm(f)
        return plus(torch.addcmul(f, normed, gamma, out=spare(normed)), beta)


class FRCM(nn.Module):
    """Feature-level module: x0 -> F_x0, conditioned on ANet's F -> the optimised feature F'_x0.

    METHOD.md, 14 and 15; 14 is inferred.
    """

    def __init__(self, config: RefinementConfig, *, operations: Any = nn, **factory: Any) -> None:
        super().__init__()
        kw, (w0, w1), emb = {"operations": operations, **factory}, config.widths, config.embedding
        self.stem = operations.Conv2d(3 * config.fold**2, w0, 3, padding=1, **factory)
        self.fine = Stack(w0, config.blocks, emb, **kw)
        self.down = operations.Conv2d(w0, w1, 2, stride=2, **factory)
        self.coarse = Stack(w1, config.blocks, emb, **kw)
        self.modulate_coarse = FeatureModulation(w1, config.feature_widths[1], **kw)
        self.up = Upsample(w1, w0, **kw)
        self.modulate_fine = FeatureModulation(w0, config.feature_widths[0], **kw)
        self.fuse = Stack(w0, config.blocks, emb, **kw)

    def modulations(self, features: tuple[Tensor, ...], size: Sequence[int]) -> tuple[Modulation, Modulation]:
        """gamma and beta of both levels for ANet's features; `size` (h, w) of the finer one."""
        coarse = [n // 2 for n in size]
        return (
            self.modulate_fine.parameters_of(resize_map(features[0], size)),
            self.modulate_coarse.parameters_of(resize_map(features[1], coarse)),
        )

    def forward(self, folded: Tensor, modulations: tuple[Modulation, Modulation], embedding: Tensor) -> Tensor:
        for_fine, for_coarse = modulations
        fine = self.fine(self.stem(folded), embedding)  # (B, w0, h, w)
        coarse = self.coarse(self.down(fine), embedding)  # (B, w1, h/2, w/2)
        coarse = self.modulate_coarse(coarse, for_coarse)
        fine = self.modulate_fine(plus(self.up(coarse), fine), for_fine)
        return self.fuse(fine, embedding)


class IRCM(nn.Module):
    """Image-level module: the correction D(F'_x0, x0, R', L', R' * L') of x0, folded; last layer zero-initialised.

    RNet unfolds it: x0' = clamp(x0 + D) (METHOD.md, 16; that it is a sum is inferred).
    """

    def __init__(self, config: RefinementConfig, *, operations: Any = nn, **factory: Any) -> None:
        super().__init__()
        width, area = config.widths[0], config.fold**2
        self.embed = operations.Conv2d(10 * area, width, 3, padding=1, **factory)
        self.decoder = Stack(width, config.blocks, config.embedding, operations=operations, **factory)
        self.head = zero_(operations.Conv2d(width, 3 * area, 3, padding=1, **factory))

    def forward(self, feature: Tensor, folded: Tensor, embedding: Tensor) -> Tensor:
        return self.head(self.decoder(plus(self.embed(folded), feature), embedding))


class RefinementNet(nn.Module):
    """RNet: x0 (B, 3, H, W) in [-1, 1] -> x0' of the same size and range; called at every step of the sampling loop."""

    multiple_of = 16

    def __init__(self, config: RefinementConfig, *, operations: Any = nn, **factory: Any) -> None:
        super().__init__()
        kw = {"operations": operations, **factory}
        self.fold = config.fold
        self.embed = ScalarEmbedding(1, config.embedding, **kw)
        self.frcm = FRCM(config, **kw)
        self.ircm = IRCM(config, **kw)

    def forward(
        self,
        x0: Tensor,
        noise_level: Tensor,
        condition: RetinexCondition,
        modulations: tuple[Modulation, Modulation] | None = None,
    ) -> Tensor:
        """x0'.

        Args:
            noise_level: (B,), sqrt(alpha_bar) of the step.
            condition: its features are not used if their `modulations` are at hand.
        """
        reflectance, illumination = condition.reflectance, condition.illumination
        maps = torch.cat([reflectance, illumination, (reflectance * illumination)], 1) * 2 - 1
        padded = pad_to_multiple(torch.cat([x0, maps.to(x0.dtype)], 1), self.multiple_of)  # (B, 10, H, W)
        folded = F.pixel_unshuffle(padded, self.fold)
        embedding = self.embed(noise_level.float().view(-1, 1) * 8, x0.dtype)
        if modulations is None:
            modulations = self.modulations(condition.features, x0)
        feature = self.frcm(folded[:, : 3 * self.fold**2], modulations, embedding)  # F'_x0
        residual = F.pixel_shuffle(self.ircm(feature, folded, embedding), self.fold)
        return (x0 + crop_to(residual, x0.shape[-2:])).clamp(-1, 1)

    def modulations(self, features: tuple[Tensor, ...], picture: Tensor) -> tuple[Modulation, Modulation]:
        """What FRCM takes from ANet's features, the same at every step; `picture` (B, C, H, W) gives the size."""
        padded = (rounded_up(n, self.multiple_of) for n in picture.shape[-2:])
        return self.frcm.modulations(features, [n // self.fold for n in padded])
