"""What a node made of its last pictures, kept stage by stage, so that a turned dial costs only what depends on it.

The store belongs to the nets that made the results (see `NetPatchers.results`): when the host drops these, it is gone,
too. It lies in main memory, within LIMIT, and gives way when little of that is free.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import cached_property
from typing import Any

import comfy.model_management as mm
import torch
from torch import Tensor

from ...jores.conditions import Keeper, Wire
from .fingerprints import fingerprints

LIMIT = 512 * 2**20
X0_BYTES = 12  # per pixel
SPARE = 2**30
"""Bytes of free main memory below which nothing is kept."""

_MAIN = torch.device("cpu")


class Results:
    """The results of the last pictures; what was asked for longest ago goes first."""

    def __init__(self, limit: int = LIMIT) -> None:
        self.limit, self.size = limit, 0
        self._entries: OrderedDict[tuple, tuple[Any, torch.device, int]] = OrderedDict()

    def of(self, image: Tensor, *more: str, needed: int = 0, told: Callable[[Tensor], None] | None = None) -> Keeper:
        """What `pipeline.enhance` keeps for one picture, an IMAGE (1, H, W, C); nothing for one that is too big.

        Args:
            more: what else its results come from, such as the stamp of a segmenter's file.
            needed: bytes of main memory that making them takes.
            told: is given the exposure of the result.
        """
        big = image.shape[1] * image.shape[2] * X0_BYTES > self.limit
        return _Listener(told) if big else _Kept(self, image, more, needed, told)

    def get(self, key: tuple, make: Callable[[], Wire], needed: int) -> Wire:
        """What is kept under the key, or else what `make` returns, for which `needed` bytes are free."""
        found = self._entries.get(key)
        if found is not None:
            self._entries.move_to_end(key)
            return found[0].to(found[1])
        self.make_room(needed)
        return self._added(key, make())

    def make_room(self, needed: int) -> None:
        """Forgets everything if `needed` bytes of work would leave too little main memory."""
        if mm.get_free_memory(_MAIN) < needed + SPARE:
            self._entries.clear()
            self.size = 0

    def _added(self, key: tuple, made: Wire) -> Wire:
        tensors = [value for value in vars(made).values() if isinstance(value, Tensor)]
        need = sum(t.numel() * t.element_size() for t in tensors)
        if need > self.limit or mm.get_free_memory(_MAIN) < need + SPARE:
            return made
        while self.size + need > self.limit:
            _key, (_value, _device, size) = self._entries.popitem(last=False)
            self.size -= size
        self._entries[key] = (made.to(_MAIN), tensors[0].device, need)
        self.size += need
        return made


class _Listener(Keeper):
    """Keeps nothing, and passes on what it is told."""

    def __init__(self, told: Callable[[Tensor], None] | None) -> None:
        self._told = told

    def told(self, exposure: Tensor) -> None:
        if self._told is not None:
            self._told(exposure)


class _Kept(_Listener):
    """Keeps the results of one picture in the store."""

    keeps = True

    def __init__(
        self, store: Results, image: Tensor, more: tuple[str, ...], needed: int, told: Callable[[Tensor], None] | None
    ) -> None:
        super().__init__(told)
        self.store, self.image, self.more, self.needed = store, image, more, needed

    def __call__(self, what: tuple, make: Callable[[], Wire]) -> Wire:
        return self.store.get((*self._picture, *what), make, self.needed)

    @cached_property
    def _picture(self) -> tuple:
        """Made when it is asked for: for most frames of a clip it never is."""
        alpha = fingerprints(self.image[..., 3:])[0].tolist() if self.image.shape[-1] == 4 else ()
        return (*fingerprints(self.image)[0].tolist(), *alpha, *self.more)
