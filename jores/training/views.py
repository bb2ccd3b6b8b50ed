"""What the exposure head learns from: pictures seen as a whole, each with the light that was right for it.

A sample is a dict of tensors: `fine`, the `fine_thumbnail` of the dark picture; `statistics`; `own`, its
`shadow_share`; `exposure`, the mean luma of the well-lit picture; `requested`, another mean luma, and `shadows`, the
`shadow_share` of the well-lit picture at that one; `expert`, the number of the expert that learns from it, or FOR_ALL.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..imaging.exposure import brightness_statistics, mean_luma
from .darkening import Darkening
from .data import (
    OVERSAMPLING,
    brightness_power,
    coarse_thumbnail,
    darkened_thumbnail,
    exposure_jitter,
    fine_thumbnail,
    random_view,
    shadows_of,
    view_of,
)
from .pairs import Pair
from .paper import Paper

FOR_ALL = -1  # in place of an expert's number
LEGIBLE = 0.25  # share of the sheets of paper that are not darkened
CLOSE, CLOSE_UPS = 0.5, (0.2, 0.5)  # share of the views of photographs that are close-ups, and their sides
RETOUCHED = 0.3  # share of the views whose shadows are trained at another brightness than that of the well-lit picture


class Pool:
    """Samples of one kind, drawn in proportion to `weights`; `share` is their share of a batch."""

    def __init__(self, share: float, samples: list[dict[str, Tensor]], weights: Any = None) -> None:
        self.share = share
        self.samples = {key: torch.stack([s[key] for s in samples]) for key in samples[0]}
        weights = np.ones(len(samples)) if weights is None else np.asarray(weights, float)
        self.drawn = np.cumsum(weights / weights.sum())

    def draw(self, count: int, rng: np.random.Generator) -> dict[str, Tensor]:
        places = np.searchsorted(self.drawn, rng.random(count), side="right")
        index = torch.from_numpy(places.clip(0, len(self.drawn) - 1))
        return {key: values[index] for key, values in self.samples.items()}


def of_pair(pair: Pair, rng: np.random.Generator, cut: bool, expert: int) -> dict[str, Tensor]:
    """The dark picture of a pair, or, if `cut` is set, a random view of it, at times at another brightness."""
    view = random_view(pair.high.shape, rng) if cut else (slice(None), slice(None))
    gain = exposure_jitter(rng) if cut else 1.0
    return _sample(
        (fine_thumbnail(pair.dark[view]) * gain).clamp(0, 1), coarse_thumbnail(pair.high[view]), rng, cut, expert
    )


def of_photo(photo: Pair, rng: np.random.Generator, cut: bool) -> dict[str, Tensor]:
    """A photograph, or a random view of it, darkened; FOR_ALL."""
    if not cut:
        return _darkened(fine_thumbnail(photo.high), rng, cut, FOR_ALL)
    view = close_up if rng.random() < CLOSE else random_view
    return _darkened(fine_thumbnail(photo.high[view(photo.high.shape, rng)]), rng, cut, FOR_ALL)


def close_up(shape: tuple[int, ...], rng: np.random.Generator) -> tuple[slice, slice]:
    """A random small part of a picture (rows, columns), as evenly bright as a meadow or a wall may be."""
    return view_of(shape, [rng.uniform(*CLOSE_UPS)] * 2, rng)


def of_paper(photo: Pair, rng: np.random.Generator, expert: int) -> dict[str, Tensor]:
    """A photograph with a sheet of paper over it; a share of LEGIBLE is lit well, as `unchanged`."""
    bright = Paper.draw(rng)(fine_thumbnail(photo.high))
    if rng.random() < LEGIBLE:
        return _sample(bright, F.avg_pool2d(bright, OVERSAMPLING), rng, False, expert)
    return _darkened(bright, rng, False, expert)


def _darkened(bright: Tensor, rng: np.random.Generator, retouch: bool, expert: int) -> dict[str, Tensor]:
    """Of the `fine_thumbnail` of a well-lit picture."""
    dark = darkened_thumbnail(bright, Darkening.draw(rng).fitted(bright), rng, 1)
    return _sample(dark, F.avg_pool2d(bright, OVERSAMPLING), rng, retouch, expert)


def unchanged(pair: Pair, rng: np.random.Generator, expert: int) -> dict[str, Tensor]:
    """The well-lit picture of a pair, or a photograph, whose own brightness is the target."""
    return _sample(fine_thumbnail(pair.high), coarse_thumbnail(pair.high), rng, False, expert)


def _sample(fine: Tensor, bright: Tensor, rng: np.random.Generator, retouch: bool, expert: int) -> dict[str, Tensor]:
    """Of the `fine_thumbnail` of a dark picture and the `coarse_thumbnail` of the well-lit one."""
    dark = F.avg_pool2d(fine, OVERSAMPLING)
    requested = bright.pow(brightness_power(rng)) if retouch and rng.random() < RETOUCHED else bright
    mean, exposure = mean_luma(torch.stack([requested, bright])).clamp_min(1e-3)
    wanted, own = shadows_of(dark, requested).clamp_min(1e-3)
    statistics = brightness_statistics(dark[None])[0]
    return {
        "fine": fine, "statistics": statistics, "own": own, "exposure": exposure, "requested": mean, "shadows": wanted,
        "expert": torch.tensor(expert),
    }  # fmt: skip
