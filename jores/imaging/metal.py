"""A detour over the processor for what Apple's Metal cannot compute in releases of PyTorch that hosts bring.

Those are averages over areas that share pixels (PyTorch #96056), bicubic resampling, and up to PyTorch 2.6 resizing
with a filter.
"""

from __future__ import annotations

from torch import Tensor

DEVICES = {"mps"}  # device types


def detour(x: Tensor) -> Tensor:
    """`x` where the next operation can be computed: `x` itself, or a copy on the processor. The result goes back."""
    return x.cpu() if x.device.type in DEVICES else x
