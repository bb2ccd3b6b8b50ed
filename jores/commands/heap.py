"""The memory of a process of our own on Linux: what the nets give back is kept for their next maps."""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of mallopt(3)
THRESHOLDS = (2**31 - 1, 2**25)  # bytes: what mallopt takes at most, and what it takes in a glibc before 2.34


def keep_freed_memory() -> bool:
    """Makes glibc keep freed memory, which it gives back otherwise whenever a map of some MiB is freed.

    The pages of a new map are fetched from the system and filled with zeros, one by one: a tenth of the time of a
    picture. Call it in a process of our own alone: how a host keeps its memory is its business.

    Returns:
        Whether both thresholds were set; False on other systems and with other C libraries.
    """
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    return all(any(mallopt(option, size) for size in THRESHOLDS) for option in (M_TRIM_THRESHOLD, M_MMAP_THRESHOLD))
