"""Stage "expose": ANet's exposure head, on thumbnails of full pictures.

A stage of its own because it wants what the trunk does not: hundreds of small views per step, not a few large crops.
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
from ..nets.exposure_head import LightHead
from .convert import to_tensor
from .darkening import Darkening
from .data import (
    brightness_power,
    darkened_thumbnail,
    exposure_jitter,
    light_thumbnail,
    random_view,
    shadows_of,
    thumbnail,
)
from .pairs import Pair
from .records import Scores, append_record, means_of_kinds

POOL_SEED = 11
RETOUCHED = 0.3  # share of the views of a pair whose shadows are asked for at another brightness than the light one's


class ExposureObjective(nn.Module):
    """Mean |log(proposed / true)| of the mean luma and of the shadows' share."""

    def __init__(self, head: LightHead) -> None:
        super().__init__()
        self.net = head

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        proposed = self.net.exposure(batch["statistics"])
        wanted = self.net.share(batch["statistics"], batch["own"], batch["told"])
        exposure = (proposed.log() - batch["exposure"].log()).abs().mean()
        shadows = (wanted.log() - batch["shadows"].log()).abs().mean()
        return {"loss": exposure + shadows, "exposure": exposure, "shadows": shadows}


class Expose:
    """`data`: views per picture, batch, and the shares of a batch: `photos` are darkened photographs, `own` photographs
    as they are, `lit` the light pictures of the pairs, whose own brightness is right; the rest are dark ones."""

    name, best_score = "expose", "score"

    def __init__(
        self, nets: JoReSNets, pairs: list[Pair], photos: list[Pair] | None, val: list[Pair], data: dict[str, Any]
    ) -> None:
        self.nets, self.val, self.size = nets, val, data["batch"]
        rng, views = np.random.default_rng(POOL_SEED), range(data["views"])
        weights = [p.weight for p in pairs]
        own = data.get("own", 0.0) if photos else 0.0
        dark = 1 - data["lit"] - own - (data["photos"] if photos else 0.0)
        self.pools = [
            _Pool(dark, [_of_pair(p, rng, j > 0) for p in pairs for j in views], np.repeat(weights, len(views))),
            _Pool(data["lit"], [_as_it_is(p, rng) for p in pairs], weights),
        ]
        if photos:
            self.pools.append(_Pool(data["photos"], [_of_photo(p, rng, j > 0) for p in photos for j in views]))
            self.pools.append(_Pool(own, [_as_it_is(p, rng) for p in photos]))
        head = nets.anet.exposure_head.requires_grad_(True)
        if not isinstance(head, LightHead):
            raise ValueError("stage expose trains a light head: the recipe's config gives these nets none")
        statistics = torch.cat([pool.samples["statistics"] for pool in self.pools])
        head.centre.copy_(statistics.mean(0))
        head.spread.copy_(statistics.std(0).clamp_min(1e-4))
        self.objective = ExposureObjective(head)

    def batch(self, rng: np.random.Generator) -> dict[str, Tensor]:
        """Of the dark pictures statistics (B, 23) and own (B,), their `shadow_share`; exposure (B,) of the light ones;
        told (B,) and shadows (B,): a brightness that is asked for, and the shadows' share at it."""
        shares = np.array([pool.share for pool in self.pools])
        counts = rng.multinomial(self.size, shares / shares.sum())
        drawn = [pool.draw(count, rng) for count, pool in zip(counts, self.pools, strict=True)]
        return {key: torch.cat([part[key] for part in drawn]) for key in drawn[0]}

    def validate(self, objective: ExposureObjective) -> tuple[dict[str, float], list[Tensor]]:
        """The error on dark pictures of each kind, its sign (above zero: too bright), that of the shadows' share, and
        the error on the light pictures."""
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
    """Views of one kind, to be drawn by `weights`; `share` of a batch."""

    def __init__(self, share: float, samples: list[dict[str, Tensor]], weights: Any = None) -> None:
        self.share = share
        self.samples = {key: torch.stack([s[key] for s in samples]) for key in samples[0]}
        weights = np.ones(len(samples)) if weights is None else np.asarray(weights, float)
        self.drawn = np.cumsum(weights / weights.sum())

    def draw(self, count: int, rng: np.random.Generator) -> dict[str, Tensor]:
        places = np.searchsorted(self.drawn, rng.random(count), side="right")
        index = torch.from_numpy(places.clip(0, len(self.drawn) - 1))
        return {key: values[index] for key, values in self.samples.items()}


def _of_pair(pair: Pair, rng: np.random.Generator, cut: bool) -> dict[str, Tensor]:
    view = random_view(pair.high.shape, rng) if cut else (slice(None), slice(None))
    gain = exposure_jitter(rng) if cut else 1.0
    return _sample((thumbnail(pair.dark[view]) * gain).clamp(0, 1), thumbnail(pair.high[view]), rng, cut)


def _of_photo(photo: Pair, rng: np.random.Generator, cut: bool) -> dict[str, Tensor]:
    light = light_thumbnail(photo.high[random_view(photo.high.shape, rng)] if cut else photo.high)
    dark = darkened_thumbnail(light, Darkening.draw(rng).fitted(light), rng)
    return _sample(dark, nn.functional.avg_pool2d(light, light.shape[-1] // dark.shape[-1]), rng, cut)


def _as_it_is(pair: Pair, rng: np.random.Generator) -> dict[str, Tensor]:
    light = thumbnail(pair.high)
    return _sample(light, light, rng, False)


def _sample(dark: Tensor, light: Tensor, rng: np.random.Generator, retouch: bool) -> dict[str, Tensor]:
    asked = light.pow(brightness_power(rng)) if retouch and rng.random() < RETOUCHED else light
    told, exposure = mean_luma(torch.stack([asked, light])).clamp_min(1e-3)
    wanted, own = shadows_of(dark, asked).clamp_min(1e-3)
    statistics = brightness_statistics(dark[None])[0]
    return {"statistics": statistics, "own": own, "exposure": exposure, "told": told, "shadows": wanted}
