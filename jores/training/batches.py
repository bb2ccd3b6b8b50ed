"""The batch of each step, drawn by this process or ahead of time by others."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

Draw = Callable[[np.random.Generator], dict[str, Tensor]]


class _Batches(Dataset):
    """A pure function of (seed, step, process)."""

    def __init__(self, draw: Draw, seed: int, process: int) -> None:
        self.draw, self.seed, self.process = draw, seed, process

    def __getitem__(self, step: int) -> dict[str, Tensor]:
        return self.draw(np.random.default_rng((self.seed, step, self.process)))


def batches(draw: Draw, seed: int, process: int, steps: range, *, workers: int = 0, pin: bool = False) -> DataLoader:
    """The batches of `steps` for one of the training processes; `workers` other processes draw them (0: this one does).

    Its generator is its own, because the global one is part of what is resumed.
    """
    data, generator = _Batches(draw, seed, process), torch.Generator()
    return DataLoader(data, batch_size=None, sampler=steps, num_workers=workers, pin_memory=pin, generator=generator)
