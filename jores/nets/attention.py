"""Retinex attention and semantic attention (METHOD.md, 9 to 11).

Both follow SKF's semantic-aware embedding (Wu et al., CVPR 2023, same first author): queries come from the prior, keys
and values from the image feature. The attention matrix is channels x channels, so the cost is linear in the number of
pixels.

From the paper: that the UNet has layers of both kinds. Inferred: their form, from SKF's code for semantics; the Retinex
layers are taken to have the same. Ours: no widening in the feed-forward, zero-initialised outputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from .blocks import LayerNorm2d, plus, spare, zero_


class LearnedScale(nn.Module):
    """A factor per head, in a module of its own, because some hosts move weights between devices module by module."""

    def __init__(self, heads: int, value: float, *, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((heads, 1, 1), value, device=device, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale.to(x)


@dataclass(frozen=True)
class Guide:
    """What an attention layer takes from its prior; the same at every step of the sampling.

    Attributes:
        query: normalised queries (B, heads, channels / heads, H * W).
        value: of the gated feed-forward, (B, channels, H, W).
    """

    query: Tensor
    value: Tensor


class PriorAttention(nn.Module):
    """h <- h + W_o softmax(tau Q K^T) V over channels, then h <- h + W_3 (GELU(W_1 h) * W_2 g).

    `h` (B, channels, H, W) is the feature; `g` is the prior (B, prior, H, W) at its resolution, embedded. Channel
    attention only mixes channels; the gated feed-forward (SKF's two-input variant) passes the prior on per pixel. The
    output layers of both branches are zero-initialised.

    Raises:
        ValueError: `channels` is not divisible by `heads`.
    """

    def __init__(self, channels: int, prior: int, heads: int, *, operations: Any = nn, **factory: Any) -> None:
        super().__init__()
        if channels % heads:
            raise ValueError(f"{channels} channels cannot be split over {heads} attention heads")
        kw, conv = {"operations": operations, **factory}, operations.Conv2d
        self.heads = heads
        self.norm_h = LayerNorm2d(channels, **kw)
        self.embed = conv(prior, channels, 1, **factory)
        self.norm_g = LayerNorm2d(channels, **kw)
        self.query = conv(channels, channels, 1, **factory)
        self.key_value = conv(channels, 2 * channels, 1, **factory)
        self.temperature = LearnedScale(heads, 4.0, **factory)
        self.out = zero_(conv(channels, channels, 1, **factory))
        self.norm_ffn = LayerNorm2d(channels, **kw)
        self.gate = conv(channels, channels, 3, padding=1, **factory)
        self.value = conv(channels, channels, 1, **factory)
        self.out_ffn = zero_(conv(channels, channels, 1, **factory))

    def guide(self, prior: Tensor) -> Guide:
        """The part of the layer that only depends on the prior (B, prior, H, W)."""
        g = self.norm_g(self.embed(prior))  # (B, C, h, w)
        query = F.normalize(self._heads(self.query(g)).float(), dim=-1)  # (B, H, C/H, h*w)
        return Guide(query, self.value(g))

    def forward(self, h: Tensor, guide: Guide) -> Tensor:
        k, v = (self._heads(t) for t in self.key_value(self.norm_h(h)).chunk(2, 1))
        k = F.normalize(k.float(), dim=-1)
        scores = self.temperature(guide.query @ k.transpose(-1, -2)).softmax(-1).to(v.dtype)  # (B, H, C/H, C/H)
        attended = rearrange(scores @ v, "b n c p -> b (n c) p").reshape(h.shape)
        h = plus(self.out(attended), h)
        gated = F.gelu(self.gate(self.norm_ffn(h)))
        return plus(self.out_ffn(torch.mul(gated, guide.value, out=spare(gated))), h)

    def _heads(self, x: Tensor) -> Tensor:
        return rearrange(x, "b (n c) h w -> b n c (h w)", n=self.heads)


class RetinexAttention(PriorAttention):
    """METHOD.md, 9, inferred: the prior g^k is computed from R', L' and the F^k of the nearest resolution."""


class SemanticAttention(PriorAttention):
    """METHOD.md, 10, inferred: the prior g^k is computed from the class map c_seg."""
