"""The available memory, and the tile size that fits."""

from __future__ import annotations

import math
from collections.abc import Callable

import psutil
import torch

from ..limits import MIN_TILE
from .windows import ALIGNMENT

SHARE = 0.5  # largest share of the free memory for one window; the rest is for the pictures and other programs
MAX_TILE = 1024  # larger tiles need more memory and save little: at 1024 a tenth of the work is overlap
MAIN_MEMORY = 4 * 2**30  # bytes; largest use of main memory, which is shared with other programs


def auto_tile(free_bytes: int, needed: Callable[[int], int], size: tuple[int, int]) -> int:
    """Side in pixels of the tiles for a picture of `size` (H, W); 0 if it fits into memory without tiles.

    `needed`: bytes for the work on a window of so many pixels, in proportion to them.
    """
    share = int(SHARE * free_bytes)
    if needed(math.prod(size)) <= share:
        return 0
    per_pixel = needed(10**6) / 10**6
    side = int((share / per_pixel) ** 0.5) // ALIGNMENT * ALIGNMENT
    return min(max(side, MIN_TILE), MAX_TILE)


def free_memory(device: torch.device) -> int:
    """Free bytes on a device, including PyTorch's pool; for main memory at most MAIN_MEMORY."""
    if device.type in ("cuda", "xpu"):
        backend = getattr(torch, device.type)
        pooled = backend.memory_reserved(device) - backend.memory_allocated(device)
        return backend.mem_get_info(device)[0] + pooled
    return min(psutil.virtual_memory().available, MAIN_MEMORY)
