"""The latent of a pixel-space model is the picture itself: (B, 3, H, W) in [-1, 1]."""

from __future__ import annotations

import importlib.util
from typing import Any

import comfy.latent_formats
import comfy.sd
import torch
from torch import Tensor

from .checks import check_sampled

DECODER = "VAE Decode"


class PixelSpace(comfy.latent_formats.LatentFormat):
    latent_channels = 3
    spacial_downscale_ratio = 1
    latent_rgb_factors = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]

    def process_in(self, latent):
        return latent

    def process_out(self, latent):
        return latent


def encoded(latents: Tensor) -> Tensor:
    """Latents of pictures: zeros, of which middle grey is made, become -0, so that `check_sampled` takes no picture
    for an empty latent. They are equal in all else."""
    return torch.where(latents == 0, -0.0, latents)


class HostVAE(comfy.sd.VAE):
    """The host's pixel-space VAE, which refuses latents that no sampler has worked on."""

    def __init__(self) -> None:
        super().__init__(sd={"pixel_space_vae": torch.tensor(1.0)})

    def decode(self, latents: Tensor, *more, **options) -> Tensor:
        check_sampled(latents, DECODER)
        return super().decode(latents, *more, **options)

    def decode_tiled(self, latents: Tensor, *more, **options) -> Tensor:
        check_sampled(latents, DECODER)
        return super().decode_tiled(latents, *more, **options)

    def encode(self, pixels: Tensor, *more, **options) -> Tensor:
        return encoded(super().encode(pixels, *more, **options))

    def encode_tiled(self, pixels: Tensor, *more, **options) -> Tensor:
        return encoded(super().encode_tiled(pixels, *more, **options))


class PixelVAE:
    """VAE for such latents on hosts without a pixel-space VAE (before 0.3.60)."""

    def decode(self, latents: Tensor, *_args: Any, **_kwargs: Any) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> IMAGE. Raises ValueError for latents that no sampler has worked on."""
        check_sampled(latents, DECODER)
        return ((latents.float() + 1) / 2).clamp(0, 1).movedim(1, -1)

    def encode(self, pixels: Tensor, *_args: Any, **_kwargs: Any) -> Tensor:
        return encoded(pixels[..., :3].movedim(-1, 1) * 2 - 1)

    decode_tiled, encode_tiled = decode, encode

    def temporal_compression_decode(self) -> None:
        """Read by the host's tiled nodes, as the next method: there is no time axis, and no reduction in size."""

    def spacial_compression_decode(self) -> int:
        return 1


def pixel_vae() -> HostVAE | PixelVAE:
    """The host's pixel-space VAE, or PixelVAE on hosts without one."""
    return HostVAE() if importlib.util.find_spec("comfy.pixel_space_convert") is not None else PixelVAE()
