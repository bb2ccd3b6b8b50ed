"""Stage "adjust": trains ANet on a frozen DNet (METHOD.md, 7; inferred)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..checkpoint import JoReSNets, save_bundle
from ..conditions import GAIN_STRIDE, GlobalStatistics, RetinexCondition
from ..imaging.exposure import mean_luma
from ..nets.adjustment import AdjustmentNet
from ..nets.decomposition import DecompositionNet
from ..nets.lifting import brightness_guide, tightened
from ..pipeline import adjust, decompose
from .data import CropSampler
from .frozen import UsesFrozen
from .losses import picture_loss, smoothness_loss
from .pairs import Pair, both_pictures
from .records import Scores, append_record, means_of_kinds

SHEET_ROWS = 16  # pictures on the contact sheet of a validation


class AdjustmentObjective(UsesFrozen):
    """Loss of ANet. The trunk gets the true mean luma of the well-lit picture, and learns an L' for a given exposure.

    At inference the exposure head proposes the exposure (stage "expose").
    """

    def __init__(self, dnet: DecompositionNet, anet: AdjustmentNet, options: dict[str, float]) -> None:
        super().__init__(dnet)
        self.net, self.options = anet, options

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return self.adjusted(batch)[1]

    def adjusted(self, batch: dict[str, Tensor]) -> tuple[RetinexCondition, dict[str, Tensor]]:
        """The condition (not clamped to [0, 1]) and the terms of the loss L_A (METHOD.md, 7; inferred)."""
        low, high, o = batch["low"], batch["high"], self.options
        with torch.no_grad():
            dark, light = self.frozen[0](low), self.frozen[0](high)
            light = tightened(light, brightness_guide(high))  # as ANet does with the maps of the dark picture
        out = self.net(dark, statistics_of(self.net, batch), clamp=False)
        r, illumination = out.reflectance.float(), out.illumination.float()
        product = picture_loss(r * illumination, high, o["structure"], o["edges"], o.get("psnr", 0.0))
        maps = F.l1_loss(r, light.reflectance) + F.l1_loss(illumination, light.illumination)
        smooth = smoothness_loss(illumination, light.reflectance)
        loss = o["product"] * product + o["maps"] * maps + o.get("smooth", 0.0) * smooth
        return out, {"loss": loss, "product": product, "maps": maps, "smooth": smooth}


def statistics_of(net: AdjustmentNet, batch: dict[str, Tensor]) -> GlobalStatistics:
    """Global statistics for ANet. Their log gains are sampled under the crops: (B, 3 * bins, c/8, c/8)."""
    statistics = net.statistics(batch["thumbnail"], batch["exposure"], batch["input_mean"], batch["shadows"])
    size = batch["low"].shape[-1] // GAIN_STRIDE
    where = F.affine_grid(batch["place"], [*statistics.gains.shape[:2], size, size], align_corners=False)
    return replace(statistics, gains=F.grid_sample(statistics.gains, where, padding_mode="border", align_corners=False))


class Adjust:
    """Stage "adjust". `options` of the recipe: weights of the losses product, maps, smooth, structure, edges, psnr."""

    name, best_score = "adjust", "aimed_psnr_raw"

    def __init__(self, nets: JoReSNets, sampler: CropSampler, val: list[Pair], options: dict[str, float]) -> None:
        self.nets, self.batch, self.val = nets, sampler, val
        nets.anet.requires_grad_(True).exposure_head.requires_grad_(False)
        self.objective = AdjustmentObjective(nets.dnet, nets.anet, options)

    def validate(self, objective: AdjustmentObjective) -> tuple[dict[str, float], list[Tensor]]:
        """Scores of R' * L' for each kind of pair, at the proposed exposure and at the true one (prefix "aimed_").

        The weights to export are selected by the raw PSNR at the true exposure, averaged over the kinds.
        """
        nets = JoReSNets(self.nets.config, objective.frozen_net(DecompositionNet), objective.net)
        kinds: dict[str, Scores] = {}
        rows = []
        for pair in self.val:
            low, high = both_pictures(pair, objective)
            maps, scores = decompose(nets, low), kinds.setdefault(pair.kind, Scores())
            auto, aimed = adjust(nets, maps), adjust(nets, maps, exposure=mean_luma(high))
            scores.add(auto.picture, high)
            scores.add(aimed.picture, high, prefix="aimed_")
            scores.note("exposure_error", (auto.exposure / mean_luma(high)).log().abs())
            if len(rows) < SHEET_ROWS:
                illumination = aimed.illumination.expand(-1, 3, -1, -1)
                shown = [low, auto.picture, aimed.picture, high, aimed.reflectance, illumination]
                rows.append(F.interpolate(torch.cat(shown, 3), (200, 6 * 200), mode="area")[0])
        return means_of_kinds(kinds), rows

    def export(self, objective: AdjustmentObjective, path: Path, record: dict[str, Any]) -> None:
        save_bundle(path, replace(self.nets, adjustment=objective.net), append_record(self.nets, record))
