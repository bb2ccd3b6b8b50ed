"""How many bytes a stage needs beside its weights, so that the host makes room before it starts.

The formulas are the library's, which chooses tiles by them; here is what belongs to a node.
"""

from __future__ import annotations

from ...jores.config import JoReSConfig
from ...jores.nets.segmentation import Segmenter, working_size
from ...jores.tiling.memory import (
    SLACK,
    condition_bytes,
    decomposition_bytes,
    denoiser_bytes,
    pipeline_bytes,
    refinement_bytes,
    retinex_bytes,
)

__all__ = [
    "decomposition_bytes", "denoiser_bytes", "enhance_bytes", "refinement_bytes", "retinex_bytes", "segmenter_bytes"
]  # fmt: skip

SHIPPED_SEGMENTER_BYTES = int(SLACK * 30 * 2**20)  # at most: it works at 320 pixels, whatever the picture's size


def segmenter_bytes(segmenter: Segmenter, size: tuple[int, int]) -> int:
    """Shipped: 300 bytes per pixel of its working size counted. Others grow with their weights; some need less."""
    rows, columns = working_size(size, segmenter.resolution)
    weights = sum(p.numel() * p.element_size() for p in segmenter.parameters())
    return int(SLACK * rows * columns / 320**2 * (13 * 2**20 + 1.5 * weights))


def enhance_bytes(config: JoReSConfig, pixels: int) -> int:
    """The whole pipeline: the hungriest stage beside the condition that outlives it."""
    return max(pipeline_bytes(config, pixels), condition_bytes(config, pixels) + SHIPPED_SEGMENTER_BYTES)
