"""How many bytes a stage needs beside its weights, so that the host makes room before it starts.

Counted as the peak of live tensors on the processor, for both presets and several sizes: per pixel it hardly depends on
the size, and follows the width of the widest maps. SLACK covers what an accelerator adds.
"""

from __future__ import annotations

from ..jores.config import DenoiserConfig, JoReSConfig, RefinementConfig

SLACK = 1.25  # workspaces of convolutions, and gaps that the allocator cannot use
SEGMENTER = 400 * 2**20  # it works at a fixed size of about 320 pixels, whatever the picture's


def denoiser_bytes(config: DenoiserConfig, pixels: int) -> int:
    """compact: 390 bytes per pixel counted; paper: 5,150."""
    return int(SLACK * pixels * (200 + 80 * config.widths[0] / config.fold**2))


def refinement_bytes(config: RefinementConfig, pixels: int) -> int:
    """compact: 200 bytes per pixel counted; paper: 620."""
    return int(SLACK * pixels * (60 + 35 * config.widths[0] / config.fold**2))


def retinex_bytes(config: JoReSConfig, pixels: int) -> int:
    """ANet, and DNet with it. compact: 460 bytes per pixel counted; paper: 580."""
    return int(SLACK * pixels * (100 + 8 * config.adjustment.widths[0]))


def enhance_bytes(config: JoReSConfig, pixels: int) -> int:
    """The whole pipeline: the hungriest stage beside the condition that outlives it."""
    condition = 4 * pixels * (10 + sum(w / 16 / 4**k for k, w in enumerate(config.adjustment.widths[1:])))
    stages = retinex_bytes(config, pixels), denoiser_bytes(config.denoiser, pixels)
    return int(condition + max(*stages, refinement_bytes(config.refinement, pixels), SEGMENTER))
