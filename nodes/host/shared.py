"""What all steps of a sampling share: computed at the first one, and kept until the sampling ends.

The library's sampler holds these in variables. The host calls the net step by step, each time with new copies of the
same maps, so they are recognised by their content.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")
Maps = tuple[Tensor | None, ...]
KEPT = 2  # results by maps: for the positive and the negative conditioning


class SharedByMaps(Generic[T]):
    """The results of the last KEPT different sets of maps, and these maps."""

    def __init__(self) -> None:
        self._entries: list[tuple[Maps, T]] = []
        self._weights: object = None

    def clear(self) -> None:
        self._entries.clear()

    def valid_for(self, weights: object) -> None:
        """Forgets what other weights made; `weights` stands for the present ones, which a host's patches change."""
        if weights != self._weights:
            self.clear()
        self._weights = weights

    def get(self, maps: Maps, make: Callable[[], T]) -> T:
        """What was made from equal maps before, or the result of `make`."""
        for known, made in self._entries:
            if all(map(_same, known, maps)):
                return made
        made = make()
        self._entries = [(tuple(map(_own, maps)), made), *self._entries[: KEPT - 1]]
        return made


class SharedByKey(Generic[T]):
    """Results by keys that say what they were made from."""

    def __init__(self) -> None:
        self._entries: dict[Hashable, T] = {}

    def clear(self) -> None:
        self._entries.clear()

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """The result for `key`, which `make` makes at the first call."""
        if key not in self._entries:
            self._entries[key] = make()
        return self._entries[key]


def _same(a: Tensor | None, b: Tensor | None) -> bool:
    if a is None or b is None:
        return a is b
    return (a.device, a.dtype, a.shape) == (b.device, b.dtype, b.shape) and torch.equal(a, b)


def _own(x: Tensor | None) -> Tensor | None:
    """A copy of a tensor that is a part of another one, because it would hold all of that."""
    part = x is not None and x.untyped_storage().nbytes() > x.numel() * x.element_size()
    return x.clone() if x is not None and part else x
