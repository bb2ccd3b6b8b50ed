"""Stage "adjust": ANet on top of a frozen DNet (Eq. 7)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..checkpoint import JoReSNets, save_bundle
from ..conditions import GAIN_SIDE, RetinexCondition
from ..imaging.exposure import mean_luma
from ..nets.adjustment import AdjustmentNet
from ..nets.decomposition import DecompositionNet
from ..pipeline import adjust, decompose
from .data import Sampler
from .frozen import UsesFrozen
from .losses import picture_loss
from .pairs import Pair, both_pictures
from .records import Scores, append_record


class AdjustmentObjective(UsesFrozen):
    """The trunk is told the true mean brightness of the whole picture, so that L' follows the dial; that of an unseen
    picture is the exposure head's to propose (stage "expose")."""

    def __init__(self, dnet: DecompositionNet, anet: AdjustmentNet, options: dict[str, float]) -> None:
        super().__init__(dnet)
        self.net, self.options = anet, options

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return self.adjusted(retouch(batch, self.options["retouch"]))[1]

    def adjusted(self, batch: dict[str, Tensor]) -> tuple[RetinexCondition, dict[str, Tensor]]:
        """The (unclamped) condition and L_A, Eq. 7."""
        low, high, o = batch["low"], batch["high"], self.options
        with torch.no_grad():
            dark, light = self.frozen[0](low), self.frozen[0](high)
        out = self.net(dark, batch["exposure"], batch["input_mean"], gains_of(self.net, batch), clamp=False)
        r, illumination = out.reflectance.float(), out.illumination.float()
        product = picture_loss(r * illumination, high, o["structure"], o["edges"], o.get("psnr", 0.0))
        maps = F.l1_loss(r, light.reflectance) + F.l1_loss(illumination, light.illumination)
        return out, {"loss": o["product"] * product + o["maps"] * maps, "product": product, "maps": maps}


def gains_of(net: AdjustmentNet, batch: dict[str, Tensor]) -> Tensor:
    """ANet's gains under the crops, (B, 3, c/8, c/8)."""
    gains, side = net.propose_gains(batch["thumbnail"], batch["exposure"]), batch["low"].shape[-1] // GAIN_SIDE
    where = F.affine_grid(batch["place"], [*gains.shape[:2], side, side], align_corners=False)
    return F.grid_sample(gains, where, padding_mode="border", align_corners=False)


def retouch(batch: dict[str, Tensor], share: float) -> dict[str, Tensor]:
    """Rescales the target of a share of the samples by 0.6..1.2, and the exposure with it: the dial must be obeyed for
    brightnesses that no photographer chose."""
    exposure = batch["exposure"]
    chosen = torch.rand(exposure.shape, device=exposure.device) < share
    factor = torch.where(chosen, torch.empty_like(exposure).uniform_(0.6, 1.2), torch.ones_like(exposure))
    high = (batch["high"] * factor.view(-1, 1, 1, 1)).clamp(0, 1)
    return {**batch, "high": high, "exposure": exposure * factor}


class Adjust:
    name, best_score = "adjust", "psnr_gt_mean"

    def __init__(self, nets: JoReSNets, sampler: Sampler, val: list[Pair], options: dict[str, float]) -> None:
        self.nets, self.batch, self.val = nets, sampler, val
        nets.anet.requires_grad_(True).exposure_head.requires_grad_(False)
        self.objective = AdjustmentObjective(nets.dnet, nets.anet, options)

    def validate(self, objective: AdjustmentObjective) -> tuple[dict[str, float], list[Tensor]]:
        """Figures of R' * L' at the proposed exposure, and at the true one ("told")."""
        nets = JoReSNets(self.nets.config, objective.frozen_net(DecompositionNet), objective.net)
        scores, rows = Scores(), []
        for i, pair in enumerate(self.val):
            low, high = both_pictures(pair, objective)
            maps = decompose(nets, low)
            auto, told = adjust(nets, maps), adjust(nets, maps, exposure=mean_luma(high))
            scores.add(auto.picture, high)
            scores.add(told.picture, high, prefix="told_")
            scores.note("exposure_error", (auto.exposure / mean_luma(high)).log().abs())
            if i % 3 == 0:
                shown = [auto.picture, told.picture, high, auto.reflectance, auto.illumination.expand(-1, 3, -1, -1)]
                rows.append(torch.cat([s[0] for s in shown], 2)[:, ::2, ::2])
        return scores.means(), rows

    def export(self, objective: AdjustmentObjective, path: Path, record: dict[str, Any]) -> None:
        save_bundle(path, replace(self.nets, adjustment=objective.net), append_record(self.nets, record))
