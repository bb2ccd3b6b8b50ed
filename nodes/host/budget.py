"""Memory of each stage in bytes, without weights, so that the host can free it before the stage starts.

Most formulas are those of the library, which chooses tiles by them; this module adds those of single nodes.
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
    "segmenter_bytes", "shared_bytes",
]  # fmt: skip

SHIPPED_SEGMENTER_BYTES = int(SLACK * 90 * 2**20)  # upper bound: its working size is 416 pixels
SEEN_PIXELS = 640 * 640  # upper bound of the size of the picture that DNet and ANet brighten for it


def segmenter_bytes(segmenter: Segmenter, size: tuple[int, int]) -> int:
    """Upper bound for a segmenter and a picture of `size` (H, W): grows with the working size and the weights."""
    rows, columns = working_size(size, segmenter.resolution)
    weights = sum(p.numel() * p.element_size() for p in segmenter.parameters())
    return int(SLACK * rows * columns / 320**2 * (16 * 2**20 + 1.5 * weights))


def enhance_bytes(config: JoReSConfig, pixels: int) -> int:
    """The complete pipeline: the stage with the largest need, and the condition that is allocated meanwhile."""
    seen = lit_bytes(config) if pixels > SEEN_PIXELS else lit_bytes(config, pixels)
    return max(pipeline_bytes(config, pixels), condition_bytes(config, pixels) + max(SHIPPED_SEGMENTER_BYTES, seen))


def lit_bytes(config: JoReSConfig, pixels: int = SEEN_PIXELS) -> int:
    """DNet and ANet on the reduced picture for a segmenter; `pixels`: size of the full picture."""
    return retinex_bytes(config, min(pixels, SEEN_PIXELS)) + 40 * min(pixels, SEEN_PIXELS)


def shared_bytes(config: JoReSConfig, pixels: int) -> int:
    """What the host's steps share beyond the work of one step: the UNet's copy of the condition, and that of RNet.

    A second conditioning (cfg above 1) takes its guides and another copy, which no host asks for in advance.
    """
    return 2 * condition_bytes(config, pixels)
