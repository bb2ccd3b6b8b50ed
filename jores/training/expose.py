"""Stage "expose": ANet's exposure head, on thumbnails of whole pictures.

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
from ..imaging.exposure import DIM, brightness_statistics, mean_luma
from ..nets.adjustment import ExposureHead
from .convert import to_tensor
from .darkening import Darkening
from .data import darkened_thumbnail, exposure_jitter, random_view, thumbnail
from .pairs import Pair
from .records import Scores, append_record

POOL_SEED = 11


class ExposureObjective(nn.Module):
    """Mean |log(proposed / true mean luma)|."""

    def __init__(self, head: ExposureHead) -> None:
        super().__init__()
        self.net = head

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"loss": (self.net(batch["thumbnail"]).log() - batch["exposure"].log()).abs().mean()}


class Expose:
    """`data`: views per picture, batch, and the shares of a batch: `photos` are darkened photographs (some of them left
    in their light), `lit` the well-lit pictures of the pairs, whose own brightness is right unless it is below DIM;
    the rest are dark ones."""

    name, best_score = "expose", "score"

    def __init__(
        self, nets: JoReSNets, pairs: list[Pair], photos: list[Pair] | None, val: list[Pair], data: dict[str, Any]
    ) -> None:
        self.nets, self.val, self.size = nets, val, data["batch"]
        rng, views = np.random.default_rng(POOL_SEED), range(data["views"])
        self.pools = [
            (1 - data["lit"] - data["photos"], _stack([_of_pair(p, rng, j > 0) for p in pairs for j in views])),
            (data["lit"], _stack([_lit(p) for p in pairs])),
        ]
        if photos:
            self.pools.append((data["photos"], _stack([_of_photo(p, rng, j > 0) for p in photos for j in views])))
        head = nets.anet.exposure_head.requires_grad_(True)
        statistics = brightness_statistics(torch.cat([thumbnails for _, (thumbnails, _) in self.pools]))
        head.centre.copy_(statistics.mean(0))
        head.spread.copy_(statistics.std(0).clamp_min(1e-4))
        self.objective = ExposureObjective(head)

    def batch(self, rng: np.random.Generator) -> dict[str, Tensor]:
        """thumbnail (B, 3, 48, 64), exposure (B,)."""
        shares = np.array([share for share, _ in self.pools])
        counts = rng.multinomial(self.size, shares / shares.sum())
        drawn = []
        for count, (_, (thumbnails, exposures)) in zip(counts, self.pools, strict=True):
            index = torch.from_numpy(rng.integers(len(exposures), size=count))
            drawn.append((thumbnails[index], exposures[index]))
        thumbnails, exposures = (torch.cat(part) for part in zip(*drawn, strict=True))
        return {"thumbnail": thumbnails, "exposure": exposures}

    def validate(self, objective: ExposureObjective) -> tuple[dict[str, float], list[Tensor]]:
        """The error on dark pictures, its sign (above zero: proposed too bright), and the error on well-lit ones."""
        scores, device = Scores(), next(objective.parameters()).device
        for pair in self.val:
            true = mean_luma(to_tensor(pair.high)[None])
            thumbnails = torch.stack([thumbnail(pair.dark), thumbnail(pair.high)]).to(device)
            dark, lit = objective.net(thumbnails).log().cpu() - torch.cat([true, true.clamp_min(DIM)]).log()
            scores.note("exposure_error", dark.abs())
            scores.note("exposure_bias", dark)
            scores.note("well_lit_error", lit.abs())
        means = scores.means()
        return {**means, "score": -means["exposure_error"]}, []

    def export(self, objective: ExposureObjective, path: Path, record: dict[str, Any]) -> None:
        anet = copy.deepcopy(self.nets.anet)  # its own head goes on learning
        anet.exposure_head.load_state_dict(objective.net.state_dict())
        save_bundle(path, replace(self.nets, adjustment=anet), append_record(self.nets, record))


def _of_pair(pair: Pair, rng: np.random.Generator, cut: bool) -> tuple[Tensor, Tensor]:
    view = random_view(pair.high.shape, rng) if cut else (slice(None), slice(None))
    gain = exposure_jitter(rng) if cut else 1.0
    return (thumbnail(pair.dark[view]) * gain).clamp(0, 1), _mean(thumbnail(pair.high[view]))


def _of_photo(photo: Pair, rng: np.random.Generator, cut: bool) -> tuple[Tensor, Tensor]:
    light = photo.high[random_view(photo.high.shape, rng)] if cut else photo.high
    return darkened_thumbnail(light, Darkening.draw(rng), rng), _wanted(thumbnail(light))


def _lit(pair: Pair) -> tuple[Tensor, Tensor]:
    light = thumbnail(pair.high)
    return light, _wanted(light)


def _wanted(light: Tensor) -> Tensor:
    """How bright a picture should be of which this is the light one: as it is, but no darker than DIM."""
    return _mean(light).clamp_min(DIM)


def _mean(picture: Tensor) -> Tensor:
    return mean_luma(picture[None])[0]


def _stack(samples: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    thumbnails, exposures = zip(*samples, strict=True)
    return torch.stack(thumbnails), torch.stack(exposures)
