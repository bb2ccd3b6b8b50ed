"""Recognises the exceptions that mean out of memory, of all devices and allocators."""

from __future__ import annotations

import torch

NO_MEMORY = (
    "out of memory",  # CUDA, ROCm, XPU, Metal
    "can't allocate memory", "not enough memory",  # the processor, on Linux and on Windows
    "cannot allocate memory",  # Linux, for a file that is mapped
    "alloc_failed",  # CUDNN_STATUS_..., CUBLAS_STATUS_...
    "bad_alloc", "bad allocation", "invalid buffer size",  # C++; Metal, for one tensor
)  # fmt: skip


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception means out of memory.

    Some allocators (processor, Metal) raise a plain RuntimeError, which is recognised by its text.
    """
    if isinstance(error, torch.cuda.OutOfMemoryError | MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(words in text for words in NO_MEMORY)
