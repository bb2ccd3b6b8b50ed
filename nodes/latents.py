"""The latent of a pixel-space model: the picture itself, (B, 3, H, W) in [-1, 1]."""

from __future__ import annotations

import comfy.latent_formats


class PixelSpace(comfy.latent_formats.LatentFormat):
    latent_channels = 3
    spacial_downscale_ratio = 1
    latent_rgb_factors = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]

    def process_in(self, latent):
        return latent

    def process_out(self, latent):
        return latent
