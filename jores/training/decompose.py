"""Stage "decompose": pre-trains DNet on pairs of one scene at two exposures (METHOD.md, 5; as RetinexNet and KinD)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..checkpoint import JoReSNets, save_bundle
from ..metrics import psnr
from ..nets.decomposition import DecompositionNet
from .data import CropSampler
from .losses import smoothness_loss
from .pairs import Pair, both_pictures
from .records import Scores, append_record


class DecompositionObjective(nn.Module):
    """Loss of DNet, whose R * L equals the picture by construction. Its terms are:

    - reflectance: R of the dark and of the well-lit picture are equal.
    - cross: R of one picture times L of the other one gives the other picture.
    - smooth: L is smooth except at edges of R.
    """

    def __init__(self, net: DecompositionNet, reflectance: float, cross: float, smooth: float) -> None:
        super().__init__()
        self.net, self.weights = net, (reflectance, cross, smooth)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        low, high = batch["low"], batch["high"]
        dark, light = self.net(low), self.net(high)
        r_low, r_high = dark.reflectance.float(), light.reflectance.float()
        same = F.l1_loss(r_low, r_high)
        cross = F.l1_loss(r_high.detach() * dark.illumination, low) + F.l1_loss(r_low * light.illumination, high)
        smooth = smoothness_loss(dark.illumination, r_low.detach())
        smooth = smooth + smoothness_loss(light.illumination, r_high.detach())
        a, b, c = self.weights
        return {"loss": a * same + b * cross + c * smooth, "same": same, "cross": cross, "smooth": smooth}


class Decompose:
    """Stage "decompose". `options` of the recipe: weights of the losses reflectance, cross and smooth."""

    name, best_score = "decompose", "reflectance_psnr"

    def __init__(self, nets: JoReSNets, sampler: CropSampler, val: list[Pair], options: dict[str, float]) -> None:
        self.nets, self.batch, self.val = nets, sampler, val
        self.objective = DecompositionObjective(nets.dnet.requires_grad_(True), **options)

    def validate(self, objective: DecompositionObjective) -> tuple[dict[str, float], list[Tensor]]:
        """PSNR in dB between R of both pictures, and of R (dark) * L (well lit) against the well-lit picture."""
        scores, rows = Scores(), []
        for i, pair in enumerate(self.val):
            low, high = both_pictures(pair, objective)
            dark, light = objective.net(low), objective.net(high)
            scores.note("reflectance_psnr", psnr(dark.reflectance, light.reflectance))
            scores.note("oracle_illumination_psnr", psnr(dark.reflectance * light.illumination, high))
            if i % 8 == 0:
                maps = [dark.reflectance, dark.illumination * 4, light.reflectance, light.illumination, high]
                rows.append(torch.cat([m.expand(-1, 3, -1, -1)[0] for m in maps], 2)[:, ::2, ::2])
        return scores.means(), rows

    def export(self, objective: DecompositionObjective, path: Path, record: dict[str, Any]) -> None:
        save_bundle(path, replace(self.nets, decomposition=objective.net), append_record(self.nets, record))
