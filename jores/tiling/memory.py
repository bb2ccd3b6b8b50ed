"""Estimates of the memory that each stage needs, the available memory, and the tile size that fits.

The estimates are fitted to the peak of live tensors, measured on the processor for all presets and several sizes. Per
pixel it hardly depends on the size of the picture, and is linear in the width of the widest maps. SLACK covers the
overhead of accelerators.
"""

from __future__ import annotations

import psutil
import torch

from ..config import DecompositionConfig, DenoiserConfig, JoReSConfig, RefinementConfig
from ..limits import MIN_TILE
from .windows import ALIGNMENT

SCENE = 18 * 2**20  # bytes of SceneNet's activations (measured: 16.6 MiB); its thumbnails have one size
SLACK = 1.25  # workspaces of convolutions, and fragmentation
SHARE = 0.5  # largest share of the free memory for one window; the rest is for the pictures and other programs
MAX_TILE = 1024  # larger tiles need more memory and save little: at 1024 a tenth of the work is overlap
MAIN_MEMORY = 4 * 2**30  # bytes; largest use of main memory, which is shared with other programs


def denoiser_bytes(config: DenoiserConfig, pixels: int) -> int:
    """Bytes of activations of the UNet (measured per pixel: texture 400, compact 370, paper 4,530).

    Attention to the Retinex prior takes most of it, where the finest level has some.
    """
    per_channel = 69 if 0 in config.retinex_levels else 38
    return int(SLACK * pixels * (95 + per_channel * config.widths[0] / config.fold**2))


def refinement_bytes(config: RefinementConfig, pixels: int) -> int:
    """Bytes of activations of RNet (measured per pixel: texture and compact 200, paper 590)."""
    return int(SLACK * pixels * (65 + 33 * config.widths[0] / config.fold**2))


def decomposition_bytes(config: DecompositionConfig, pixels: int) -> int:
    """Bytes of activations of DNet (measured per pixel: texture and compact 190, paper 240)."""
    return int(SLACK * pixels * (58 + 5.6 * config.width))


def retinex_bytes(config: JoReSConfig, pixels: int) -> int:
    """Bytes of activations of ANet: of its trunk, or of the `SceneNet` before it."""
    return max(_trunk_bytes(config, pixels), SCENE if config.adjustment.scene else 0)


def _trunk_bytes(config: JoReSConfig, pixels: int) -> int:
    """Of ANet's trunk (measured per pixel: texture and compact 430, paper 550), which tiles make smaller."""
    return int(SLACK * pixels * (84 + 7.2 * config.adjustment.widths[0]))


def condition_bytes(config: JoReSConfig, pixels: int) -> int:
    """Bytes that stay allocated after ANet: the picture, R', L', R' x L' and the features, in float32."""
    return int(4 * pixels * (10 + sum(w / 16 / 4**k for k, w in enumerate(config.adjustment.widths[1:]))))


def pipeline_bytes(config: JoReSConfig, pixels: int) -> int:
    """Peak bytes of the pipeline: of ANet with R, L and their product, or of the sampling loop with the condition."""
    loop = max(denoiser_bytes(config.denoiser, pixels), refinement_bytes(config.refinement, pixels))
    return max(_trunk_bytes(config, pixels) + 40 * pixels, condition_bytes(config, pixels) + loop)


def auto_tile(free_bytes: int, config: JoReSConfig, height: int, width: int) -> int:
    """Side in pixels of the tiles for a picture of this size; 0 if it fits into memory without tiles."""
    share = int(SHARE * free_bytes)
    if pipeline_bytes(config, height * width) <= share:
        return 0
    per_pixel = pipeline_bytes(config, 10**6) / 10**6
    side = int((share / per_pixel) ** 0.5) // ALIGNMENT * ALIGNMENT
    return min(max(side, MIN_TILE), MAX_TILE)


def cache_bytes(free_bytes: int, config: JoReSConfig, pixels: int, tile: int) -> int:
    """Bytes left to cache conditions: without the picture, x_t and result (`pixels` each), and the work on one tile."""
    pictures = 3 * 3 * 4 * pixels
    return max(0, free_bytes - pictures - pipeline_bytes(config, tile * tile))


def free_memory(device: torch.device) -> int:
    """Free bytes on a device, including PyTorch's pool; for main memory at most MAIN_MEMORY."""
    if device.type in ("cuda", "xpu"):
        backend = getattr(torch, device.type)
        pooled = backend.memory_reserved(device) - backend.memory_allocated(device)
        return backend.mem_get_info(device)[0] + pooled
    return min(psutil.virtual_memory().available, MAIN_MEMORY)
