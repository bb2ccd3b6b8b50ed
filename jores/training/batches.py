"""Batches for each step, drawn in this process or ahead of time by worker processes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from .shutdown import ignore_interrupts

Draw = Callable[[np.random.Generator], dict[str, Tensor]]


class _Batches(Dataset):
    """Batches as a pure function of (seed, step, process); the index is the step."""

    def __init__(self, draw: Draw, seed: int, process: int) -> None:
        self.draw, self.seed, self.process = draw, seed, process

    def __getitem__(self, step: int) -> dict[str, Tensor]:
        return self.draw(np.random.default_rng((self.seed, step, self.process)))


def batches(draw: Draw, seed: int, process: int, steps: range, *, workers: int = 0, pin: bool = False) -> DataLoader:
    """A loader of the batches of `steps` for the training process with index `process`.

    `workers` processes draw them; 0 draws them in this process. `pin`: batches are in pinned memory. The loader has a
    generator of its own, because it would otherwise advance the global one, whose state is in the checkpoint.
    """
    return DataLoader(
        _Batches(draw, seed, process), batch_size=None, sampler=steps, num_workers=workers, pin_memory=pin,
        generator=torch.Generator(), worker_init_fn=ignore_interrupts,
    )  # fmt: skip
