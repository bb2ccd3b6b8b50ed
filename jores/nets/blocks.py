"""Building blocks shared by all nets: plain 3x3 residual blocks with per-pixel LayerNorm.

LayerNorm over channels instead of GroupNorm: its statistics are local, so a tile of a picture is treated as the whole
picture would be, and crops in training as full frames at inference. Plain convolutions because, on the processors this
was measured on, they do four times the work per second of depthwise or attention-like blocks.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class LayerNorm2d(nn.Module):
    """LayerNorm over the channels of a (B, C, H, W) map; free of copies for channels_last tensors."""

    def __init__(self, channels: int, *, operations: Any = nn, **factory: Any) -> None:
        super().__init__()
        self.norm = operations.LayerNorm(channels, **factory)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ResBlock(nn.Module):
    """x + Conv(SiLU(FiLM(Conv(LN(x))))). The second convolution starts at zero, so a new block is the identity."""

    def __init__(
        self, channels: int, embedding: int = 0, *, zero_init: bool = True, operations: Any = nn, **factory: Any
    ) -> None:
        super().__init__()
        self.norm = LayerNorm2d(channels, operations=operations, **factory)
        self.conv1 = operations.Conv2d(channels, channels, 3, padding=1, **factory)
        self.conv2 = operations.Conv2d(channels, channels, 3, padding=1, **factory)
        self.film = operations.Linear(embedding, 2 * channels, **factory) if embedding else None
        if zero_init:
            zero_(self.conv2)

    def forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        h = self.conv1(self.norm(x))  # (B, C, h, w)
        if self.film is not None and embedding is not None:
            scale, shift = self.film(F.silu(embedding))[..., None, None].chunk(2, 1)  # (B, C, 1, 1) each
            h = h * (1 + scale) + shift
        return x + self.conv2(F.silu(h))


class Stack(nn.Module):
    """Residual blocks one after the other, all with the same embedding."""

    def __init__(self, channels: int, count: int, embedding: int = 0, *, operations: Any = nn, **factory: Any) -> None:
        super().__init__()
        blocks = [ResBlock(channels, embedding, operations=operations, **factory) for _ in range(count)]
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        for block in self.blocks:
            x = block(x, embedding)
        return x


class Upsample(nn.Module):
    """1x1 convolution, then twice the size by nearest neighbour: cheap, and free of checkerboards."""

    def __init__(self, c_in: int, c_out: int, *, operations: Any = nn, **factory: Any) -> None:
        super().__init__()
        self.conv = operations.Conv2d(c_in, c_out, 1, **factory)

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(self.conv(x), scale_factor=2, mode="nearest")


class UShape(Protocol):
    """What `u_shape` runs through."""

    encoders: nn.ModuleList
    downs: nn.ModuleList
    ups: nn.ModuleList
    decoders: nn.ModuleList


def u_shape(net: UShape, h: Tensor, *condition: Any) -> list[Tensor]:
    """Down through `net.encoders` and `net.downs`, up again through `net.ups` and `net.decoders`, with skips added.

    Every stage is given `condition`, too. Returns the maps of the way up, finest first.
    """
    skips = []
    for encoder, down in zip(net.encoders, net.downs, strict=False):
        skips.append(encoder(h, *condition))
        h = down(skips[-1])
    maps = [net.encoders[-1](h, *condition)]
    for decoder, up, skip in zip(reversed(net.decoders), reversed(net.ups), reversed(skips), strict=True):
        maps.append(decoder(up(maps[-1]) + skip, *condition))
    return maps[::-1]


class ScalarEmbedding(nn.Module):
    """Sinusoidal embedding of K scalars per picture, then a two-layer perceptron: (B, K) -> (B, width)."""

    FREQUENCIES = 16

    def __init__(self, scalars: int, width: int, *, operations: Any = nn, **factory: Any) -> None:
        super().__init__()
        self.linear1 = operations.Linear(scalars * 2 * self.FREQUENCIES, width, **factory)
        self.linear2 = operations.Linear(width, width, **factory)

    def forward(self, scalars: Tensor, dtype: torch.dtype) -> Tensor:
        octaves = torch.arange(self.FREQUENCIES, device=scalars.device, dtype=torch.float32)
        angles = scalars.float()[..., None] * (0.25 * 1.6**octaves)  # (B, K, 16)
        waves = torch.cat([angles.sin(), angles.cos()], -1).flatten(1)  # (B, 32 K)
        return self.linear2(F.silu(self.linear1(waves.to(dtype))))


def zero_(layer: nn.Module) -> nn.Module:
    """Starts a layer at zero. No gain in expressiveness, a lot in how training starts (ADM, DiT).

    A layer of a host that makes its weights only when a file is loaded has none yet.
    """
    for parameter in (layer.weight, layer.bias):
        if isinstance(parameter, Tensor):
            nn.init.zeros_(parameter)
    return layer
