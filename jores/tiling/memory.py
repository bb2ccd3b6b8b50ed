"""How much memory the method needs, how much there is, and the tile that fits.

Needs are counted as the peak of live tensors on the processor, for both presets and several sizes: per pixel they
hardly depend on the size, and follow the width of the widest maps. SLACK covers what an accelerator adds.
"""

from __future__ import annotations

import psutil
import torch

from ..config import DecompositionConfig, DenoiserConfig, JoReSConfig, RefinementConfig
from .windows import ALIGNMENT, MIN_TILE

SLACK = 1.25  # workspaces of convolutions, and gaps that the allocator cannot use
SHARE = 0.5  # of the free memory that one window may take: the pictures themselves need some, and so do others
MAX_TILE = 1024  # beyond, a tile costs memory and gains next to nothing: a tenth of it is overlap
NO_MEMORY = (
    "out of memory",  # CUDA, ROCm, XPU, Metal
    "can't allocate memory", "not enough memory",  # the processor, on Linux and on Windows
    "alloc_failed",  # CUDNN_STATUS_..., CUBLAS_STATUS_...
    "bad_alloc", "bad allocation", "invalid buffer size",  # C++; Metal, for one tensor
)  # fmt: skip
MAIN_MEMORY = 4 * 2**30  # what a program may ask of a computer that it shares with others, however much is free


def denoiser_bytes(config: DenoiserConfig, pixels: int) -> int:
    """compact: 370 bytes per pixel counted; paper: 4,530."""
    return int(SLACK * pixels * (95 + 69 * config.widths[0] / config.fold**2))


def refinement_bytes(config: RefinementConfig, pixels: int) -> int:
    """compact: 200 bytes per pixel counted; paper: 590."""
    return int(SLACK * pixels * (65 + 33 * config.widths[0] / config.fold**2))


def decomposition_bytes(config: DecompositionConfig, pixels: int) -> int:
    """compact: 220 bytes per pixel counted; paper: 270."""
    return int(SLACK * pixels * (60 + 6.6 * config.width))


def retinex_bytes(config: JoReSConfig, pixels: int) -> int:
    """ANet. compact: 460 bytes per pixel counted; paper: 590."""
    return int(SLACK * pixels * (100 + 7.5 * config.adjustment.widths[0]))


def condition_bytes(config: JoReSConfig, pixels: int) -> int:
    """What outlives ANet: picture, R', L', R' x L' and the features, in float32."""
    return int(4 * pixels * (10 + sum(w / 16 / 4**k for k, w in enumerate(config.adjustment.widths[1:]))))


def pipeline_bytes(config: JoReSConfig, pixels: int) -> int:
    """The hungriest stage beside what is alive then: R, L and their product for ANet, the condition for the others."""
    loop = max(denoiser_bytes(config.denoiser, pixels), refinement_bytes(config.refinement, pixels))
    return max(retinex_bytes(config, pixels) + 40 * pixels, condition_bytes(config, pixels) + loop)


def auto_tile(free_bytes: int, config: JoReSConfig, height: int, width: int) -> int:
    """The side of the tiles in pixels for a picture of this size; 0: it fits as a whole, which is best."""
    share = int(SHARE * free_bytes)
    if pipeline_bytes(config, height * width) <= share:
        return 0
    per_pixel = pipeline_bytes(config, 10**6) / 10**6
    side = int((share / per_pixel) ** 0.5) // ALIGNMENT * ALIGNMENT
    return min(max(side, MIN_TILE), MAX_TILE)


def cache_bytes(free_bytes: int, config: JoReSConfig, pixels: int, tile: int) -> int:
    """What is left to remember conditions in, beside a picture, x_t and the result of `pixels`, and a tile's work."""
    pictures = 3 * 3 * 4 * pixels
    return max(0, free_bytes - pictures - pipeline_bytes(config, tile * tile))


def free_memory(device: torch.device) -> int:
    """Bytes that can be had on a device; of the main memory at most MAIN_MEMORY."""
    if device.type in ("cuda", "xpu"):
        backend = getattr(torch, device.type)
        pooled = backend.memory_reserved(device) - backend.memory_allocated(device)
        return backend.mem_get_info(device)[0] + pooled
    return min(psutil.virtual_memory().available, MAIN_MEMORY)


def is_out_of_memory(error: BaseException) -> bool:
    """Accelerators have an exception for it; the processor's and Metal's allocators raise a plain RuntimeError."""
    if isinstance(error, torch.cuda.OutOfMemoryError | MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(words in text for words in NO_MEMORY)
