"""Estimates of the memory in bytes that each stage needs, without weights: they choose the tile, and hosts make room.

The estimates are fitted to the peak of live tensors, measured on the processor for all presets and several sizes. Per
pixel it hardly depends on the size of the picture, and is linear in the width of the widest maps. SLACK covers the
overhead of accelerators.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from .config import DecompositionConfig, DenoiserConfig, JoReSConfig, RefinementConfig
from .nets.segmentation import Segmenter, working_size
from .tiling.memory import auto_tile, free_memory
from .tiling.tiler import Tiler
from .tiling.windows import size_of

SLACK = 1.25  # workspaces of convolutions, and fragmentation
SCENE = 18 * 2**20  # of SceneNet's activations (measured: 16.6 MiB); its thumbnails have one size
SHIPPED_SEGMENTER = int(SLACK * 90 * 2**20)  # upper bound: its working size is 416 pixels
SEEN_PIXELS = 640 * 640  # upper bound of the size of the picture that DNet and ANet brighten for it


def choose_tiler(tile: int | None, config: JoReSConfig, images: Tensor, device: torch.device) -> Tiler:
    """A Tiler for pictures (B, C, H, W).

    `tile` is a side in pixels (0: a single window), or None, which selects the tile with which the pipeline fits into
    the memory of `device`.
    """
    if tile is None:
        tile = auto_tile(free_memory(device) // len(images), partial(pipeline_bytes, config), size_of(images))
    return Tiler(tile)


def decomposition_bytes(config: DecompositionConfig, pixels: int) -> int:
    """Activations of DNet (measured per pixel: texture and compact 190, paper 240)."""
    return int(SLACK * pixels * (58 + 5.6 * config.width))


def retinex_bytes(config: JoReSConfig, pixels: int) -> int:
    """Activations of ANet: of its trunk, or of the `SceneNet` before it."""
    return max(_trunk_bytes(config, pixels), SCENE if config.adjustment.scene else 0)


def _trunk_bytes(config: JoReSConfig, pixels: int) -> int:
    """Of ANet's trunk (measured per pixel: texture and compact 430, paper 550), which tiles make smaller."""
    return int(SLACK * pixels * (84 + 7.2 * config.adjustment.widths[0]))


def condition_bytes(config: JoReSConfig, pixels: int) -> int:
    """What stays allocated after ANet: the picture, R', L', R' x L' and the features, in float32."""
    return int(4 * pixels * (10 + sum(w / 16 / 4**k for k, w in enumerate(config.adjustment.widths[1:]))))


def lit_bytes(config: JoReSConfig, pixels: int = SEEN_PIXELS) -> int:
    """DNet and ANet on the reduced picture for a segmenter; `pixels`: size of the full picture."""
    return retinex_bytes(config, min(pixels, SEEN_PIXELS)) + 40 * min(pixels, SEEN_PIXELS)


def segmenter_bytes(segmenter: Segmenter, size: tuple[int, int]) -> int:
    """Upper bound for a segmenter and a picture of `size` (H, W): grows with the working size and the weights."""
    rows, columns = working_size(size, segmenter.resolution)
    weights = sum(p.numel() * p.element_size() for p in segmenter.parameters())
    return int(SLACK * rows * columns / 320**2 * (16 * 2**20 + 1.5 * weights))


def denoiser_bytes(config: DenoiserConfig, pixels: int) -> int:
    """Activations of the UNet (measured per pixel: texture 400, compact 370, paper 4,530).

    Attention to the Retinex prior takes most of it, where the finest level has some.
    """
    per_channel = 69 if 0 in config.retinex_levels else 38
    return int(SLACK * pixels * (95 + per_channel * config.widths[0] / config.fold**2))


def refinement_bytes(config: RefinementConfig, pixels: int) -> int:
    """Activations of RNet (measured per pixel: texture and compact 200, paper 590)."""
    return int(SLACK * pixels * (65 + 33 * config.widths[0] / config.fold**2))


def pipeline_bytes(config: JoReSConfig, pixels: int) -> int:
    """The part that tiles make smaller: ANet with R, L and their product, or the sampling loop with the condition."""
    loop = max(denoiser_bytes(config.denoiser, pixels), refinement_bytes(config.refinement, pixels))
    return max(_trunk_bytes(config, pixels) + 40 * pixels, condition_bytes(config, pixels) + loop)


def enhance_bytes(config: JoReSConfig, pixels: int) -> int:
    """The complete pipeline: the stage with the largest need, and the condition that is allocated meanwhile."""
    seen = lit_bytes(config) if pixels > SEEN_PIXELS else lit_bytes(config, pixels)
    return max(pipeline_bytes(config, pixels), condition_bytes(config, pixels) + max(SHIPPED_SEGMENTER, seen))


def cache_bytes(free_bytes: int, config: JoReSConfig, pixels: int, tile: int) -> int:
    """What is left to cache conditions: without the picture, x_t and result (`pixels` each), and work on one tile."""
    pictures = 3 * 3 * 4 * pixels
    return max(0, free_bytes - pictures - pipeline_bytes(config, tile * tile))


def shared_bytes(config: JoReSConfig, pixels: int) -> int:
    """What a host's steps share beyond the work of one step: the UNet's copy of the condition, and that of RNet.

    A second conditioning (cfg above 1) takes its guides and another copy, which no host asks for in advance.
    """
    return 2 * condition_bytes(config, pixels)
