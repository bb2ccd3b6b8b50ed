"""Stage "expose": trains ANet's exposure head on thumbnails of full pictures.

It is separate from stage "adjust" because its batches differ: hundreds of thumbnails instead of a few large crops.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..checkpoint import JoReSNets, save_bundle
from ..imaging.exposure import brightness_statistics, mean_luma
from ..nets.exposure_head import LightHead, LightMixture
from .convert import to_tensor
from .darkening import Darkening
from .data import (
    brightness_power,
    darkened_thumbnail,
    exposure_jitter,
    fine_thumbnail,
    random_view,
    shadows_of,
    thumbnail,
)
from .pairs import Pair
from .records import Scores, append_record, means_of_kinds

POOL_SEED = 11
FOR_ALL = -1  # in place of an expert's number
RETOUCHED = 0.3  # share of the views whose shadows are trained at another brightness than that of the well-lit picture


class ExposureObjective(nn.Module):
    """Mean absolute log error of the proposed mean luma, plus that of the proposed `shadow_share`.

    Of a mixture, each expert learns from its own samples and from those that are for all. The sorter learns by
    cross-entropy whose a sample is.
    """

    def __init__(self, head: LightHead | LightMixture) -> None:
        super().__init__()
        self.net = head

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        statistics, expert = batch["statistics"], batch["expert"]
        exposure, shadows = statistics.new_zeros(()), statistics.new_zeros(())
        for i, head in enumerate(self.net.heads):
            its = self._learns(i, expert).float()
            its = its / its.sum().clamp_min(1)
            wanted = head.share(statistics, batch["own"], batch["requested"])
            exposure = exposure + (its * (head.exposure(statistics).log() - batch["exposure"].log()).abs()).sum()
            shadows = shadows + (its * (wanted.log() - batch["shadows"].log()).abs()).sum()
        loss = exposure + shadows
        if isinstance(self.net, LightMixture):
            logits = self.net.sorter.outputs(statistics)
            wrong = nn.functional.cross_entropy(logits, expert, ignore_index=FOR_ALL, reduction="sum")
            loss = loss + wrong / (expert != FOR_ALL).sum().clamp_min(1)  # a batch may hold nothing but FOR_ALL
        count = len(self.net.heads)
        return {"loss": loss, "exposure": exposure / count, "shadows": shadows / count}

    def standardise(self, statistics: Tensor, expert: Tensor) -> None:
        """Sets `centre` and `spread` of each head to those of the samples that it learns from."""
        for i, head in enumerate(self.net.heads):
            head.standardise(statistics[self._learns(i, expert)])
        if isinstance(self.net, LightMixture):
            self.net.sorter.standardise(statistics)

    def _learns(self, i: int, expert: Tensor) -> Tensor:
        """Whether head `i` learns from samples that are for `expert` (B,)."""
        return (expert == i) | (expert == FOR_ALL) | (len(self.net.heads) == 1)


class Expose:
    """Stage "expose". The statistics of all views are computed once, at the start.

    `data` of the recipe: `views` per picture, `batch`, and shares of a batch: `photos` are darkened photographs, `own`
    unchanged photographs, `lit` well-lit pictures of the pairs (unchanged, so their own brightness is the target); the
    rest are dark pictures of the pairs. `experts`: of each set of --data, the number of the expert that learns from it;
    without it every expert learns from all.
    """

    name, best_score = "expose", "score"

    def __init__(
        self, nets: JoReSNets, pairs: list[Pair], photos: list[Pair] | None, val: list[Pair], data: dict[str, Any]
    ) -> None:
        self.nets, self.val, self.size = nets, val, data["batch"]
        rng, views = np.random.default_rng(POOL_SEED), range(data["views"])
        weights = [p.weight for p in pairs]
        head = nets.anet.exposure_head
        if not isinstance(head, LightHead | LightMixture):
            raise ValueError(
                "stage expose trains a LightHead; this preset has the exposure head of release 0.1: choose another"
            )
        expert = _experts(data.get("experts"), pairs, head, bool(photos))
        own = data.get("own", 0.0) if photos else 0.0
        dark = 1 - data["lit"] - own - (data["photos"] if photos else 0.0)
        self.pools = [
            _Pool(dark, [_of_pair(p, rng, j > 0, e) for p, e in expert for j in views], np.repeat(weights, len(views))),
            _Pool(data["lit"], [_unchanged(p, rng, e) for p, e in expert], weights),
        ]
        if photos:
            self.pools.append(_Pool(data["photos"], [_of_photo(p, rng, j > 0) for p in photos for j in views]))
            self.pools.append(_Pool(own, [_unchanged(p, rng, FOR_ALL) for p in photos]))
        self.objective = ExposureObjective(head.requires_grad_(True))
        self.objective.standardise(*(torch.cat([p.samples[k] for p in self.pools]) for k in ("statistics", "expert")))

    def batch(self, rng: np.random.Generator) -> dict[str, Tensor]:
        """One batch, float32.

        Of the dark pictures: statistics (B, 23), the `brightness_statistics`, and own (B,), the `shadow_share`.
        expert (B,), int64: the expert that learns from it, or FOR_ALL.
        exposure (B,): mean luma of the well-lit pictures. requested (B,): another mean luma; shadows (B,): the
        `shadow_share` of the well-lit picture at that mean luma.
        """
        shares = np.array([pool.share for pool in self.pools])
        counts = rng.multinomial(self.size, shares / shares.sum())
        drawn = [pool.draw(count, rng) for count, pool in zip(counts, self.pools, strict=True)]
        return {key: torch.cat([part[key] for part in drawn]) for key in drawn[0]}

    def validate(self, objective: ExposureObjective) -> tuple[dict[str, float], list[Tensor]]:
        """Mean absolute log error and bias (above 0: too bright) of the exposure and of the `shadow_share` on dark
        pictures, for each kind of pair, and the error of the exposure on well-lit pictures."""
        kinds: dict[str, Scores] = {}
        device = next(objective.parameters()).device
        for pair in self.val:
            scores, thumbnails = kinds.setdefault(pair.kind, Scores()), [thumbnail(pair.dark), thumbnail(pair.high)]
            true = mean_luma(to_tensor(pair.high)[None]).to(device)
            views = torch.stack(thumbnails).to(device)
            dark, lit = objective.net(views).log() - true.log()
            wanted = objective.net.shadows(views[:1], true)[0, 0].log() - shadows_of(*thumbnails)[0].to(device).log()
            for key, value in (("exposure_error", dark.abs()), ("exposure_bias", dark), ("shadow_error", wanted.abs()),
                               ("shadow_bias", wanted), ("well_lit_error", lit.abs())):  # fmt: skip
                scores.note(key, value)
        means = means_of_kinds(kinds)
        return {**means, "score": -means["exposure_error"] - means["shadow_error"]}, []

    def export(self, objective: ExposureObjective, path: Path, record: dict[str, Any]) -> None:
        anet = copy.deepcopy(self.nets.anet)  # its own head goes on learning
        anet.exposure_head.load_state_dict(objective.net.state_dict())
        save_bundle(path, replace(self.nets, adjustment=anet), append_record(self.nets, record))


class _Pool:
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


def _experts(
    experts: list[int] | None, pairs: list[Pair], head: LightHead | LightMixture, photos: bool
) -> list[tuple[Pair, int]]:
    """Each pair with the expert that learns from it. All experts learn from photographs, if there are any.

    Raises:
        ValueError: a list that does not fit, or leaves an expert without a picture.
    """
    if experts is None:
        return [(pair, FOR_ALL) for pair in pairs]
    sets, count = 1 + max(pair.group for pair in pairs), len(head.heads)
    if len(experts) != sets:
        raise ValueError(
            f"the recipe has experts for {len(experts)} sets, --data names {sets}: name as many, or write a recipe "
            "with experts: null"
        )
    if unknown := [e for e in experts if e not in range(count)]:
        raise ValueError(f"experts: {unknown[0]} is not one of the {count} experts, which are numbered from 0")
    if not photos and (idle := [i for i in range(count) if i not in experts]):
        raise ValueError(
            f"experts: no set of --data is for expert {idle[0]}: name one, give --photos, or write experts: null"
        )
    return [(pair, experts[pair.group]) for pair in pairs]


def _of_pair(pair: Pair, rng: np.random.Generator, cut: bool, expert: int) -> dict[str, Tensor]:
    view = random_view(pair.high.shape, rng) if cut else (slice(None), slice(None))
    gain = exposure_jitter(rng) if cut else 1.0
    return _sample((thumbnail(pair.dark[view]) * gain).clamp(0, 1), thumbnail(pair.high[view]), rng, cut, expert)


def _of_photo(photo: Pair, rng: np.random.Generator, cut: bool) -> dict[str, Tensor]:
    bright = fine_thumbnail(photo.high[random_view(photo.high.shape, rng)] if cut else photo.high)
    dark = darkened_thumbnail(bright, Darkening.draw(rng).fitted(bright), rng)
    return _sample(dark, nn.functional.avg_pool2d(bright, bright.shape[-1] // dark.shape[-1]), rng, cut, FOR_ALL)


def _unchanged(pair: Pair, rng: np.random.Generator, expert: int) -> dict[str, Tensor]:
    bright = thumbnail(pair.high)
    return _sample(bright, bright, rng, False, expert)


def _sample(dark: Tensor, bright: Tensor, rng: np.random.Generator, retouch: bool, expert: int) -> dict[str, Tensor]:
    requested = bright.pow(brightness_power(rng)) if retouch and rng.random() < RETOUCHED else bright
    mean, exposure = mean_luma(torch.stack([requested, bright])).clamp_min(1e-3)
    wanted, own = shadows_of(dark, requested).clamp_min(1e-3)
    statistics = brightness_statistics(dark[None])[0]
    return {
        "statistics": statistics, "own": own, "exposure": exposure, "requested": mean, "shadows": wanted,
        "expert": torch.tensor(expert),
    }  # fmt: skip
