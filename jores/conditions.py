"""What the stages hand to each other: the same small frozen objects in the library and on the graph's wires."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from .tiling.windows import Window, size_of

FEATURE_STRIDES = (4, 8, 16)  # of ANet's feature maps F^1, F^2, F^3: pixels per position, each way
GAIN_STRIDE = 8  # at which ANet's log gains are sampled; the gain grid itself is coarser
SEMANTIC_STRIDE = 8  # at which class maps are sampled: that of the UNet's finest level that uses them


Wire = TypeVar("Wire", bound="_Wire")


@dataclass(frozen=True)
class _Wire:
    """Methods that act on all tensor fields: a host moves them between devices, or takes one picture of a batch."""

    def to(self: Wire, *args: Any, **kwargs: Any) -> Wire:
        return self._each(lambda tensor: tensor.to(*args, **kwargs))

    def frame(self: Wire, index: int) -> Wire:
        """The part of one picture, as a batch of one."""
        return self._each(lambda tensor: tensor[index : index + 1])

    def _each(self: Wire, function: Callable[[Tensor], Tensor]) -> Wire:
        changed = {}
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                changed[name] = function(value)
            elif isinstance(value, tuple) and value and isinstance(value[0], Tensor):
                changed[name] = tuple(function(v) for v in value)
        return replace(self, **changed)


@dataclass(frozen=True)
class RetinexMaps(_Wire):
    """DNet's output (Eq. 4): R (B, 3, H, W) and L (B, 1, H, W), both in [0, 1], with R * L equal to the picture.

    `alpha` (B, 1, H, W): of a picture that is transparent in places, which count that much less in its brightness.
    `source` (B, ...) is for a host's use: which pictures these are.
    """

    reflectance: Tensor
    illumination: Tensor
    alpha: Tensor | None = None
    source: Tensor | None = None

    @property
    def size(self) -> tuple[int, int]:
        return size_of(self.reflectance)

    @property
    def picture(self) -> Tensor:
        return self.reflectance * self.illumination

    def at(self, window: Window) -> RetinexMaps:
        """R and L under the window."""
        return RetinexMaps(window.cut(self.reflectance), window.cut(self.illumination))


@dataclass(frozen=True)
class GlobalStatistics(_Wire):
    """Global statistics: what the full picture tells of its brightness and colour, and no window of it can.

    exposure: mean luma (B,) that the result should have, 0..1. mean: mean colour (B, 3) of the dark picture, 0..1.
    shadows: `shadow_share` (B, 2) that the result should have, and the dark picture's own. gains: the gain grid's log
    gains (B, 3 * bins, h, w), spread over the full picture or, after `Window.sample`, over a window.
    """

    exposure: Tensor
    mean: Tensor
    shadows: Tensor
    gains: Tensor


@dataclass(frozen=True)
class RetinexCondition(_Wire):
    """ANet's output (Eq. 6): R' (B, 3, H, W), L' (B, 1, H, W), features F^k, and the exposure they were made for.

    `features` belong to the picture padded to a multiple of 16: F^k is (B, C_k, H / 2^(k+1), W / 2^(k+1)), k = 1..3.
    `exposure` (B,) is the mean luma that L' aims at, 0..1.
    """

    reflectance: Tensor
    illumination: Tensor
    features: tuple[Tensor, ...]
    exposure: Tensor

    @property
    def size(self) -> tuple[int, int]:
        return size_of(self.reflectance)

    @property
    def picture(self) -> Tensor:
        """R' * L': already a brightened picture, (B, 3, H, W) in [0, 1]."""
        return (self.reflectance * self.illumination).clamp(0, 1)

    def at(self, window: Window) -> RetinexCondition:
        """The part under the window."""
        return RetinexCondition(
            window.cut(self.reflectance),
            window.cut(self.illumination),
            cut_features(self.features, window),
            self.exposure,
        )


@dataclass(frozen=True)
class SemanticPrior(_Wire):
    """c_seg (Eq. 8): a soft ADE20K map (B, 150, h, w) whose classes sum to at most 1 ("others" is left out).

    A class map instead of one network's features: any ADE20K segmenter can be swapped in without retraining.
    `size` is the (H, W) of the picture it was made from; the map itself is coarser. `source`: as in
    `RetinexMaps`.
    """

    probabilities: Tensor
    labels: tuple[str, ...]
    size: tuple[int, int]
    source: Tensor | None = None

    def at(self, window: Window) -> SemanticPrior:
        """The part under the window."""
        if window.size == self.size:
            return self
        return SemanticPrior(window.sample(self.probabilities, self.size, SEMANTIC_STRIDE), self.labels, window.size)


def join_frames(frames: Sequence[Wire]) -> Wire:
    """The inverse of `frame`: one wire object of all pictures, which must be of one size."""
    joined = {}
    for name, value in vars(frames[0]).items():
        if isinstance(value, Tensor):
            joined[name] = torch.cat([getattr(f, name) for f in frames])
        elif isinstance(value, tuple) and value and isinstance(value[0], Tensor):
            joined[name] = tuple(map(torch.cat, zip(*(getattr(f, name) for f in frames), strict=True)))
    return replace(frames[0], **joined)


def cut_features(features: Sequence[Tensor], window: Window) -> tuple[Tensor, ...]:
    """The part of ANet's F^1..F^3 under the window."""
    return tuple(window.cut(f, stride) for f, stride in zip(features, FEATURE_STRIDES, strict=True))


@dataclass(frozen=True)
class Sampled(_Wire):
    """What the diffusion made: x0 (B, 3, H, W) in [-1, 1], and the mean luma (B,) that it was asked for, 0..1."""

    x0: Tensor
    exposure: Tensor


class Keeper:
    """What a caller keeps of the stages of a picture from one run to the next, and is told of it. This one keeps
    nothing."""

    keeps = False

    def __call__(self, what: tuple, make: Callable[[], Wire]) -> Wire:
        """What was made before for this `what`, with the same pictures and nets, or else what `make` returns. `what`
        starts with the stage's name and names everything else that the result depends on."""
        return make()

    def told(self, exposure: Tensor) -> None:
        """Is given the exposures (B,) that the result was made for."""


@dataclass
class ConditionOnDemand:
    """The condition of a picture that is too big to keep: computed for a window when it is needed.

    Conditions that fit into `cache` bytes are kept in half precision on the device `store`. `layout` returns the
    windows that the picture is divided into at present: the next step asks for no others, and when memory runs out
    they change. `exposure`: as in `RetinexCondition`.
    """

    make: Callable[[Window], RetinexCondition]
    store: torch.device
    cache: int = 0
    kept: dict[Window, RetinexCondition] = field(default_factory=dict)
    layout: Callable[[], Collection[Window]] | None = None
    exposure: Tensor = field(default_factory=lambda: torch.empty(0))

    def at(self, window: Window) -> RetinexCondition:
        """The condition of the window, as `RetinexCondition.at` has it."""
        present = None if self.layout is None else self.layout()
        if present is not None:
            for old in [w for w in self.kept if w not in present]:
                self.cache += _half_bytes(self.kept.pop(old))
        if window in self.kept:
            return self.kept[window]
        condition = self.make(window)
        need = _half_bytes(condition)
        if need <= self.cache and (present is None or window in present):
            self.cache -= need
            self.kept[window] = condition.to(self.store, torch.float16)
        return condition


def _half_bytes(condition: RetinexCondition) -> int:
    return sum(2 * m.numel() for m in (condition.reflectance, condition.illumination, *condition.features))
