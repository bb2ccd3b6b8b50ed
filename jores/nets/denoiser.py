"""The conditional diffusion UNet, with Retinex and semantic attention layers (METHOD.md, 12).

From the paper: one conditional UNet, with attention to both priors. Inferred: the pictures and maps among its input
channels, and the order of the layers. Ours: the sizes, LayerNorm, and what the output means: v around R' * L', or the
velocity of a flow to the fine detail that R' * L' lacks. Only the preset "paper" predicts eps of the whole picture.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..conditions import Given
from ..config import FEATURE_LEVELS, SEMANTIC_CLASSES, DenoiserConfig
from ..imaging.resize import crop_to, pad_to_multiple, resize_map
from .attention import Guide, PriorAttention, RetinexAttention, SemanticAttention
from .blocks import ScalarEmbedding, Stack, Upsample, u_shape, zero_

DETAIL = 8  # px; variations over larger distances are not detail
MESH = 16  # pixels over which `without_mesh` looks for a regular pattern
INPUT_CHANNELS = 3 + 3 + 3 + 1 + 3  # x_t, low-light picture, R', L', R' * L'
Guides = dict[PriorAttention, Guide]


class Level(nn.Module):
    """Residual blocks, then Retinex attention, then semantic attention, each only on the levels of its prior."""

    def __init__(
        self, config: DenoiserConfig, index: int, *, attention: bool = True, operations: Any = nn, **factory: Any
    ) -> None:
        super().__init__()
        kw, width = {"operations": operations, **factory}, config.widths[index]
        self.index = index
        self.blocks = Stack(width, config.blocks[index], config.embedding, **kw)
        retinex = attention and index in config.retinex_levels
        prior = 4 + feature_width(config, index)
        self.retinex = RetinexAttention(width, prior, config.heads, **kw) if retinex else None
        semantic = attention and index in config.semantic_levels
        self.semantic = SemanticAttention(width, config.semantic_width, config.heads, **kw) if semantic else None

    def forward(self, h: Tensor, embedding: Tensor, guides: Guides) -> Tensor:
        """`guides` of its layers; a layer without one is skipped."""
        h = self.blocks(h, embedding)
        for layer in (self.retinex, self.semantic):
            if layer in guides:
                h = layer(h, guides[layer])
        return h


class DenoisingUNet(nn.Module):
    """Predicts v (or eps) from x_t and the two priors. Pictures can have any size; maps have the size of the picture.

    With `picture_std` = tau > 0 the raw output F corrects a linear estimate from x_t and the Retinex picture
    p = R' * L'. This is EDM's preconditioning (Karras et al., 2022), around p instead of zero. With
    D = (a tau)^2 + s^2 and kappa = `residual_scale`,
        x0 = p + a tau^2 / D (x_t - a p) + kappa s / sqrt(D) F,
    written as v below. tau is smaller than the error of p. So at the noise levels of few-step sampling the estimate is
    nearly p, without the noise of x_t, which the narrow trunk could not remove.

    With `detail_std` = c > 0 the net is a flow instead (see `diffusion.schedule`): its input is y_t, the part of x_t
    beside p in units of c, and its raw output F is the velocity of y_t. Variations over more than about DETAIL pixels
    are removed from the detail, so that illumination and colour remain those of p:
        x0 = p + c fine(y_t + (1 - t) F).
    This is the largest deviation from the paper, which by its captions diffuses the whole picture: here light and broad
    colour never come from the diffusion. The presets "compact" (`picture_std`) and "paper" (neither) are closer to it.
    """

    def __init__(self, config: DenoiserConfig, *, operations: Any = nn, **factory: Any) -> None:
        super().__init__()
        kw, conv = {"operations": operations, **factory}, operations.Conv2d
        widths, fold = config.widths, config.fold
        self.config = config
        self.multiple_of = max(16, fold * 2 ** (len(widths) - 1))
        self.embed = ScalarEmbedding(1, config.embedding, **kw)
        self.stem = conv(INPUT_CHANNELS * fold * fold, widths[0], 3, padding=1, **factory)
        self.semantic_embed = conv(SEMANTIC_CLASSES, config.semantic_width, 1, **factory)
        indices = range(len(widths))
        pairs = list(zip(widths, widths[1:], strict=False))
        self.encoders = nn.ModuleList(Level(config, i, **kw) for i in indices)
        self.downs = nn.ModuleList(conv(a, b, 2, stride=2, **factory) for a, b in pairs)
        self.ups = nn.ModuleList(Upsample(b, a, **kw) for a, b in pairs)
        up = config.attention_upwards
        self.decoders = nn.ModuleList(Level(config, i, attention=up, **kw) for i in indices[:-1])
        self.head = zero_(conv(widths[0], 3 * fold * fold, 3, padding=1, **factory))

    def forward(self, x: Tensor, noise_level: Tensor, given: Given, guides: Guides | None = None) -> Tensor:
        """Predicts v or eps, (B, 3, H, W).

        Args:
            x: x_t (B, 3, H, W).
            noise_level: (B,), sqrt(alpha_bar).
            guides: those of the two priors (see `guides`), if they are at hand.
        """
        picture = given.condition.reflectance * given.condition.illumination * 2 - 1
        if c := self.config.detail_std:
            a = noise_level.float().view(-1, 1, 1, 1)
            s = _noise_of(a)
            y, t = ((x - a * picture) / (a * c + s)).to(x), a * c / (a * c + s)
            out = self.raw_output(y, t.flatten(), given, guides)
            x0 = picture + c * without_mesh(fine_detail(y + (1 - t) * out.float()))
            return v_for(x0, x, noise_level).to(x)
        out = self.raw_output(x, noise_level, given, guides)
        return self._precondition(out, x, picture, noise_level) if self.config.picture_std else out

    def raw_output(self, x: Tensor, noise_level: Tensor, given: Given, guides: Guides | None = None) -> Tensor:
        """F, (B, 3, H, W). For a flow: the velocity of y_t = x at time t = noise_level."""
        size, reflectance, illumination = x.shape[-2:], given.condition.reflectance, given.condition.illumination
        picture = reflectance * illumination * 2 - 1
        maps = torch.cat([given.low * 2 - 1, reflectance * 2 - 1, illumination * 2 - 1, picture], 1)
        inputs = pad_to_multiple(torch.cat([x, maps.to(x.dtype)], 1), self.multiple_of)  # (B, 13, H, W)
        embedding = self.embed(noise_level.float().view(-1, 1) * 8, x.dtype)  # (B, E)
        if guides is None:
            guides = self.guides(given)
        h = u_shape(self, self.stem(F.pixel_unshuffle(inputs, self.config.fold)), embedding, guides)[0]
        return crop_to(F.pixel_shuffle(self.head(h), self.config.fold), size)

    def _precondition(self, out: Tensor, x: Tensor, picture: Tensor, noise_level: Tensor) -> Tensor:
        """v = (a s (1 - tau^2) x_t - s p) / D - kappa / sqrt(D) F."""
        tau, a = self.config.picture_std, noise_level.float().view(-1, 1, 1, 1)
        s = (1 - a.square()).clamp_min(0).sqrt()
        d = (a * tau).square() + s.square()
        keep, skip, scale = a * s * (1 - tau**2) / d, s / d, self.config.residual_scale / d.sqrt()
        return keep.to(x) * x - skip.to(x) * picture.to(x) - scale.to(out) * out

    def guides(self, given: Given) -> Guides:
        """What the attention layers take from the two priors: the same at every step, so it is worth keeping.

        Retinex prior of a level: R' and L' at its resolution, concatenated with the F^k of the nearest resolution.
        """
        condition, semantics, features = given.condition, given.semantics, given.condition.features
        maps = pad_to_multiple(torch.cat([condition.reflectance, condition.illumination], 1), self.multiple_of)
        if semantics is not None:
            semantics = self.semantic_embed(semantics.to(features[0].dtype))  # (B, 32, h, w)
        found: Guides = {}
        for level in (m for m in (*self.encoders, *self.decoders) if isinstance(m, Level)):
            side = self.config.fold * 2**level.index
            size = [n // side for n in maps.shape[-2:]]
            if level.retinex is not None:
                reduced = F.avg_pool2d(maps, side) if side > 1 else maps
                feature = resize_map(features[nearest_feature(self.config, level.index)], size)
                found[level.retinex] = level.retinex.guide(torch.cat([reduced.to(feature.dtype), feature], 1))
            if level.semantic is not None and semantics is not None:
                found[level.semantic] = level.semantic.guide(resize_map(semantics, size))
        return found


def v_for(x0: Tensor, x_t: Tensor, noise_level: Tensor) -> Tensor:
    """v, the output of a v-prediction, for x0 (B, 3, H, W); noise_level (B,) = sqrt(alpha_bar)."""
    a = noise_level.float().view(-1, 1, 1, 1)
    return (a * x_t - x0) / _noise_of(a)


def _noise_of(a: Tensor) -> Tensor:
    """sqrt(1 - a^2), above 0 also where a signal level next to 1 is 1 in float32."""
    return (1 - a.square()).clamp_min(torch.finfo(torch.float32).eps).sqrt()


def fine_detail(x: Tensor) -> Tensor:
    """x (B, C, H, W) minus its low frequencies: a high-pass filter of about DETAIL pixels."""
    padded = pad_to_multiple(x, DETAIL)
    broad = F.interpolate(F.avg_pool2d(padded, DETAIL), size=padded.shape[-2:], mode="bilinear", align_corners=False)
    return x - crop_to(broad, x.shape[-2:])


def without_mesh(x: Tensor) -> Tensor:
    """x (B, C, H, W) minus what alternates from pixel to pixel, in rows or columns, evenly over about MESH pixels.

    A net that computes on 2x2 folded pixels tends to leave such a mesh on even surfaces; photographs have none.
    """
    folded = F.pixel_unshuffle(pad_to_multiple(x, MESH), 2)
    even = F.interpolate(F.avg_pool2d(folded, MESH // 2), size=folded.shape[-2:], mode="bilinear", align_corners=False)
    return crop_to(F.pixel_shuffle(folded - even, 2), x.shape[-2:])


def nearest_feature(config: DenoiserConfig, level: int) -> int:
    """Index of the F^k (strides 4, 8, 16) whose resolution is nearest to that of the level."""
    octave = (config.fold * 2**level).bit_length() - 1  # log2 of the level's stride
    return min(max(octave - 2, 0), FEATURE_LEVELS - 1)


def feature_width(config: DenoiserConfig, level: int) -> int:
    """Channels of that F^k."""
    return config.feature_widths[nearest_feature(config, level)]
