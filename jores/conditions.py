"""Data passed between the stages: frozen dataclasses, used in the library and on the wires of a graph."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from .tiling.windows import Window, size_of

FEATURE_STRIDES = (4, 8, 16)  # of ANet's feature maps F^1, F^2, F^3, in pixels
GAIN_STRIDE = 8  # at which ANet's log gains are sampled; the gain grid itself is coarser
SEMANTIC_STRIDE = 8  # at which class maps are sampled: the stride of the UNet's finest level that uses them


Wire = TypeVar("Wire", bound="_Wire")


@dataclass(frozen=True)
class _Wire:
    """Base class with methods for all tensor fields: move them between devices, select a picture of a batch."""

    def to(self: Wire, *args: Any, **kwargs: Any) -> Wire:
        """A copy with `Tensor.to` applied to all tensor fields."""
        return self._each(lambda tensor: tensor.to(*args, **kwargs))

    def frame(self: Wire, index: int) -> Wire:
        """The data of one picture, as a batch of one."""
        return self._each(lambda tensor: tensor[index : index + 1])

    def beside(self: Wire, others: Sequence[Wire]) -> Wire:
        """This, with each field that any of `others` has, so that they can be joined."""
        return self

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
    """DNet's output (METHOD.md, 4): R (B, 3, H, W) and L (B, 1, H, W), both in [0, 1].

    R * L is what DNet decomposed: the dark picture; with `deband`, as released, the same with deep shadows smoothed.

    `alpha` (B, 1, H, W) in [0, 1]: weight of the pixels in global statistics; None for opaque pictures. `source` (B,
    ...) identifies the pictures; only hosts use it.
    """

    reflectance: Tensor
    illumination: Tensor
    alpha: Tensor | None = None
    source: Tensor | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return size_of(self.reflectance)

    @property
    def picture(self) -> Tensor:
        """R * L: the dark picture as DNet saw it (METHOD.md, 1), (B, 3, H, W)."""
        return self.reflectance * self.illumination

    def at(self, window: Window) -> RetinexMaps:
        """R and L, cropped to the window; without alpha and source."""
        return RetinexMaps(window.cut(self.reflectance), window.cut(self.illumination))

    def beside(self, others: Sequence[RetinexMaps]) -> RetinexMaps:
        """With an alpha of 1 if any of `others` has an alpha and these, of opaque pictures, have none."""
        if self.alpha is not None or all(other.alpha is None for other in others):
            return self
        return replace(self, alpha=torch.ones_like(self.illumination))


@dataclass(frozen=True)
class GlobalStatistics(_Wire):
    """Global statistics of the full picture for ANet, which cannot be computed from a window.

    Attributes:
        exposure: target mean luma (B,) of the result, 0..1.
        mean: mean colour (B, 3) of the dark picture, 0..1.
        shadows: target and own `shadow_share`, (B, 2).
        gains: log gains (B, 3 * bins, h, w) that cover the full picture, or a window after `Window.sample`.
    """

    exposure: Tensor
    mean: Tensor
    shadows: Tensor
    gains: Tensor


@dataclass(frozen=True)
class RetinexCondition(_Wire):
    """ANet's output (METHOD.md, 6): R' (B, 3, H, W), L' (B, 1, H, W), features F^k, and the target exposure.

    `features` are those of the picture padded to a multiple of 16: F^k is (B, C_k, H / 2^(k+1), W / 2^(k+1)), k = 1..3.
    `exposure` (B,) is the target mean luma of L', 0..1; the UNet and RNet do not use it.
    """

    reflectance: Tensor
    illumination: Tensor
    features: tuple[Tensor, ...]
    exposure: Tensor = field(default_factory=lambda: torch.empty(0))

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return size_of(self.reflectance)

    @property
    def picture(self) -> Tensor:
        """R' * L', the brightened picture before diffusion: (B, 3, H, W) in [0, 1]."""
        return (self.reflectance * self.illumination).clamp(0, 1)

    def at(self, window: Window) -> RetinexCondition:
        """The condition, cropped to the window."""
        return RetinexCondition(
            window.cut(self.reflectance),
            window.cut(self.illumination),
            cut_features(self.features, window),
            self.exposure,
        )


@dataclass(frozen=True)
class SemanticPrior(_Wire):
    """c_seg (METHOD.md, 8): a soft ADE20K map (B, 150, h, w) whose classes sum to at most 1 ("others" is left out).

    Class probabilities are used instead of a network's features, so that any ADE20K segmenter can be used without
    retraining. `size` is the (H, W) of the segmented picture; the map is coarser. `source`: as in `RetinexMaps`.
    `seen` (B, 3, h', w') in [0, 1]: the lit picture that the segmenter saw; masks follow its edges.
    """

    probabilities: Tensor
    labels: tuple[str, ...]
    size: tuple[int, int]
    source: Tensor | None = None
    seen: Tensor | None = None

    def at(self, window: Window) -> SemanticPrior:
        """The prior, sampled under the window at SEMANTIC_STRIDE."""
        if window.size == self.size:
            return self
        return SemanticPrior(window.sample(self.probabilities, self.size, SEMANTIC_STRIDE), self.labels, window.size)


@dataclass(frozen=True)
class Given:
    """What the UNet is given beside x_t: the dark picture (B, 3, H, W) in [0, 1] and the two priors.

    `semantics` is the class map (B, 150, h, w) of a `SemanticPrior`, or None to skip semantic attention.
    """

    low: Tensor
    condition: RetinexCondition
    semantics: Tensor | None = None


def join_frames(frames: Sequence[Wire]) -> Wire:
    """Inverse of `frame`: concatenates objects of single pictures, which must have one size, to a batch."""
    frames, joined = [frame.beside(frames) for frame in frames], {}
    for name, value in vars(frames[0]).items():
        if isinstance(value, Tensor):
            joined[name] = torch.cat([getattr(f, name) for f in frames])
        elif isinstance(value, tuple) and value and isinstance(value[0], Tensor):
            joined[name] = tuple(map(torch.cat, zip(*(getattr(f, name) for f in frames), strict=True)))
    return replace(frames[0], **joined)


def cut_features(features: Sequence[Tensor], window: Window) -> tuple[Tensor, ...]:
    """ANet's features F^1..F^3, cropped to the window."""
    return tuple(window.cut(f, stride) for f, stride in zip(features, FEATURE_STRIDES, strict=True))


@dataclass(frozen=True)
class Sampled(_Wire):
    """Result of the diffusion: x0 (B, 3, H, W) in [-1, 1], and the target mean luma (B,), 0..1."""

    x0: Tensor
    exposure: Tensor


class Keeper:
    """Interface of a cache for the results of the stages, which a caller may keep between runs.

    This base class caches nothing.
    """

    keeps = False

    def __call__(self, what: tuple, make: Callable[[], Wire]) -> Wire:
        """The cached result for the key `what`, or else the result of `make`.

        `what` starts with the name of the stage and holds everything that the result depends on, besides the pictures
        and the nets.
        """
        return make()

    def on_exposure(self, exposure: Tensor) -> None:
        """Is called with the target exposures (B,) of the result."""


class Listener(Keeper):
    """Caches nothing; `exposure` is the mean target exposure of the last picture."""

    exposure = 0.0

    def on_exposure(self, exposure: Tensor) -> None:
        self.exposure = exposure.mean().item()


@dataclass
class ConditionOnDemand:
    """The condition of a picture that is too big to store: computed per window on demand.

    Attributes:
        make: computes the condition of a window.
        store: device on which conditions are cached, in half precision.
        cache: free bytes of the cache.
        kept: the cached conditions.
        layout: returns the present windows of the picture; others are not needed any more. They change when memory runs
            out.
        exposure: as in `RetinexCondition`.
    """

    make: Callable[[Window], RetinexCondition]
    store: torch.device
    cache: int = 0
    kept: dict[Window, RetinexCondition] = field(default_factory=dict)
    layout: Callable[[], Collection[Window]] | None = None
    exposure: Tensor = field(default_factory=lambda: torch.empty(0))

    def at(self, window: Window) -> RetinexCondition:
        """The condition of the window, as from `RetinexCondition.at`."""
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
