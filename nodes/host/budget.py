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
    "decomposition_bytes", "denoiser_bytes", "enhance_bytes", "lit_bytes", "refinement_bytes", "retinex_bytes",
    "segmenter_bytes",
]  # fmt: skip

SHIPPED_SEGMENTER_BYTES = int(SLACK * 90 * 2**20)  # at most: it works at 512 pixels, whatever the picture's size
SEEN_PIXELS = 512 * 512  # at most, of the picture that DNet and ANet light for it


def segmenter_bytes(segmenter: Segmenter, size: tuple[int, int]) -> int:
    """Shipped: at most 300 bytes per pixel of its working size. Others grow with their weights; some need less."""
    rows, columns = working_size(size, segmenter.resolution)
    weights = sum(p.numel() * p.element_size() for p in segmenter.parameters())
    return int(SLACK * rows * columns / 320**2 * (16 * 2**20 + 1.5 * weights))


def enhance_bytes(config: JoReSConfig, pixels: int) -> int:
    """The whole pipeline: the hungriest stage beside the condition that outlives it."""
    seen = lit_bytes(config) if pixels > SEEN_PIXELS else lit_bytes(config, pixels)
    return max(pipeline_bytes(config, pixels), condition_bytes(config, pixels) + max(SHIPPED_SEGMENTER_BYTES, seen))


def lit_bytes(config: JoReSConfig, pixels: int = SEEN_PIXELS) -> int:
    """DNet and ANet on the picture that a segmenter is to see; `pixels` of the whole picture."""
    return retinex_bytes(config, min(pixels, SEEN_PIXELS)) + 40 * min(pixels, SEEN_PIXELS)
