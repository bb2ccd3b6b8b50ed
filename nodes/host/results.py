"""Caches the results of each stage for the last pictures: after a change of a setting, only later stages run again.

The cache belongs to the nets that computed the results (see `NetPatchers.results`) and is freed together with them. It
is in main memory, uses at most LIMIT bytes, and is cleared when little memory is free.
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
X0_BYTES = 12  # bytes of x0 per pixel
SPARE = 2**30
"""Bytes of main memory that must stay free; otherwise nothing is cached."""

OnExposure = Callable[[Tensor], None]

_MAIN = torch.device("cpu")


class Results:
    """An LRU cache of results, of at most `limit` bytes."""

    def __init__(self, limit: int = LIMIT) -> None:
        self.limit, self.size = limit, 0
        self._entries: OrderedDict[tuple, tuple[Any, torch.device, int]] = OrderedDict()

    def of(self, image: Tensor, *more: str, needed: int = 0, on_exposure: OnExposure | None = None) -> Keeper:
        """The `Keeper` for one picture, an IMAGE (1, H, W, C); it caches nothing for a picture that is too big.

        Args:
            more: further parts of the key, such as the stamp of a segmenter's file.
            needed: bytes of main memory that computing the results takes.
            on_exposure: is called with the exposure of the result.
        """
        big = image.shape[1] * image.shape[2] * X0_BYTES > self.limit
        return _TellsExposure(on_exposure) if big else _OfPicture(self, image, more, needed, on_exposure)

    def get(self, key: tuple, make: Callable[[], Wire], needed: int) -> Wire:
        """The cached result for the key, or else the result of `make`, which needs `needed` bytes."""
        found = self._entries.get(key)
        if found is not None:
            self._entries.move_to_end(key)
            return found[0].to(found[1])
        self.make_room(needed)
        return self._added(key, make())

    def make_room(self, needed: int) -> None:
        """Clears the cache if work of `needed` bytes would leave less than SPARE bytes of main memory."""
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


class _TellsExposure(Keeper):
    """Caches nothing, but passes on the exposure."""

    def __init__(self, on_exposure: OnExposure | None) -> None:
        self._on_exposure = on_exposure

    def on_exposure(self, exposure: Tensor) -> None:
        if self._on_exposure is not None:
            self._on_exposure(exposure)


class _OfPicture(_TellsExposure):
    """Caches the results of one picture."""

    keeps = True

    def __init__(
        self, store: Results, image: Tensor, more: tuple[str, ...], needed: int, on_exposure: OnExposure | None
    ) -> None:
        super().__init__(on_exposure)
        self.store, self.image, self.more, self.needed = store, image, more, needed

    def __call__(self, what: tuple, make: Callable[[], Wire]) -> Wire:
        return self.store.get((*self._picture, *what), make, self.needed)

    @cached_property
    def _picture(self) -> tuple:
        """Key of the picture, computed on demand, because most frames of a clip never need it."""
        alpha = fingerprints(self.image[..., 3:])[0].tolist() if self.image.shape[-1] == 4 else ()
        return (*fingerprints(self.image)[0].tolist(), *alpha, *self.more)
