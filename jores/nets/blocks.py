"""Building blocks of all nets: residual blocks with 3x3 convolutions and LayerNorm per pixel.

LayerNorm over channels is used instead of GroupNorm because its statistics are local: results do not depend on whether
the input is a tile or the full picture, a training crop or a frame. Plain convolutions are used because on processors
they reach four times the throughput of depthwise or attention-like blocks.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class LayerNorm2d(nn.Module):
    """LayerNorm over the channels of a (B, C, H, W) map; copies nothing for channels_last tensors."""

    def __init__(self, channels: int, *, operations: Any = nn, **factory: Any) -> None:
        super().__init__()
        self.norm = operations.LayerNorm(channels, **factory)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ResBlock(nn.Module):
    """x + Conv(SiLU(FiLM(Conv(LN(x))))). The second convolution is zero-initialised, so a new block is the identity."""

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
            h = torch.addcmul(shift, h, 1 + scale, out=spare(h))
        return plus(self.conv2(F.silu(h, inplace=spare(h) is not None)), x)


def spare(x: Tensor) -> Tensor | None:
    """x, if its memory may be written over: nobody else holds it (the caller knows), and no gradient needs it.

    On processors a new map of 30 MB costs seven times the work that is done on it, because its pages are fetched anew.
    """
    return None if torch.is_grad_enabled() else x


def plus(made: Tensor, x: Tensor) -> Tensor:
    """x + made, in the memory of `made` where that is `spare`."""
    return torch.add(x, made, out=spare(made) if made.dtype == x.dtype else None)


class Stack(nn.Module):
    """A sequence of residual blocks that share one embedding."""

    def __init__(self, channels: int, count: int, embedding: int = 0, *, operations: Any = nn, **factory: Any) -> None:
        super().__init__()
        blocks = [ResBlock(channels, embedding, operations=operations, **factory) for _ in range(count)]
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        for block in self.blocks:
            x = block(x, embedding)
        return x


class Upsample(nn.Module):
    """1x1 convolution, then 2x nearest-neighbour upsampling, which leaves no checkerboard artefacts."""

    def __init__(self, c_in: int, c_out: int, *, operations: Any = nn, **factory: Any) -> None:
        super().__init__()
        self.conv = operations.Conv2d(c_in, c_out, 1, **factory)

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(self.conv(x), scale_factor=2, mode="nearest")


class UShape(Protocol):
    """A net that `u_shape` can run."""

    encoders: nn.ModuleList
    downs: nn.ModuleList
    ups: nn.ModuleList
    decoders: nn.ModuleList


def u_shape(net: UShape, h: Tensor, *condition: Any) -> list[Tensor]:
    """Runs a U-Net: down through `net.encoders` and `net.downs`, up through `net.ups` and `net.decoders`.

    Skip connections are added. Encoders and decoders also get `condition`. Returns the maps of the decoder and of the
    bottleneck, the finest first.
    """
    skips = []
    for encoder, down in zip(net.encoders, net.downs, strict=False):
        skips.append(encoder(h, *condition))
        h = down(skips[-1])
    maps = [net.encoders[-1](h, *condition)]
    for decoder, up, skip in zip(reversed(net.decoders), reversed(net.ups), reversed(skips), strict=True):
        maps.append(decoder(plus(up(maps[-1]), skip), *condition))
    return maps[::-1]


class ScalarEmbedding(nn.Module):
    """Sinusoidal embedding of K scalars per picture and a two-layer perceptron: (B, K) -> (B, width)."""

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
    """Initialises a layer with zeros and returns it; this stabilises the start of training (ADM, DiT).

    Layers of a host may have no weights yet, because it creates them when a file is loaded; these are skipped.
    """
    for parameter in (layer.weight, layer.bias):
        if isinstance(parameter, Tensor):
            nn.init.zeros_(parameter)
    return layer
