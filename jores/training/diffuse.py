"""Stage "diffuse": trains the UNet and RNet together, with the other nets frozen (METHOD.md, 17; inferred)."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..checkpoint import SHIPPED_SEGMENTER, JoReSNets, save_bundle
from ..conditions import Given, RetinexCondition, SemanticPrior
from ..config import JoReSConfig
from ..diffusion.sampling import ddim_step
from ..diffusion.schedule import NoiseSchedule
from ..imaging.exposure import mean_luma
from ..imaging.resize import area_average
from ..metrics import gt_mean, niqe, spectrum_error
from ..nets.adjustment import AdjustmentNet
from ..nets.decomposition import DecompositionNet
from ..nets.segmentation import Segmenter
from ..options import SampleOptions
from ..pipeline import adjust, decompose, sample, segment
from ..semantics import load_segmenter
from ..tiling.windows import size_of
from .adjust import AdjustmentObjective, statistics_of
from .convert import to_tensor
from .data import CropSampler
from .flow import FlowObjective
from .frozen import UsesFrozen
from .losses import picture_loss
from .pairs import Pair, both_pictures
from .perceptual import FeatureDistance
from .records import Scores, append_record

VALIDATION = SampleOptions(steps=4)
HELD_CROPS, HELD_BATCHES, HELD_SEED = 8, 12, 5  # crops per batch, batches and seed for the losses of a validation


class DiffusionObjective(UsesFrozen):
    """A loss on v or eps, and one on x0' with x0_hat detached: no gradient of RNet reaches the UNet (METHOD.md, 17).

    As in PyDiff, noise levels are drawn continuously between the time steps. Options of the recipe:

    - prior_dropout: share of batches without c_seg, so that the pipeline also works without a segmenter.
    - own: share of batches whose x_t is made from the nets' own x0', as in sampling, instead of the true x0. Otherwise
      the nets learn that x_t contains the true picture, and their errors accumulate over the steps.
    - joint: options of stage "adjust". ANet is then trained, too, by its own loss; no gradient of the diffusion reaches
      it.
    """

    def __init__(self, nets: JoReSNets, options: dict[str, Any]) -> None:
        dnet, anet, joint = nets.dnet, nets.anet, options.get("joint")
        super().__init__(dnet, *([] if joint else [anet]))
        self.unet, self.rnet, self.options = nets.unet, nets.rnet, options
        self.schedule = NoiseSchedule(nets.config.schedule)
        self.adjusting = AdjustmentObjective(dnet, anet.requires_grad_(True), joint) if joint else None
        anet.exposure_head.requires_grad_(False)

    @property
    def anet(self) -> AdjustmentNet:
        """ANet, frozen or trained."""
        return self.adjusting.net if self.adjusting else self.frozen_net(AdjustmentNet)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        condition, terms = self._condition(batch)
        high, semantics = batch["high"], batch.get("semantics")
        if semantics is not None and torch.rand(()) < self.options["prior_dropout"]:
            semantics = None
        given = Given(batch["low"], condition, semantics)
        x0, eps, level = high * 2 - 1, torch.randn_like(high), self._noise_level(len(high), high.device)
        a, s = level.view(-1, 1, 1, 1), (1 - level.square()).clamp_min(0).sqrt().view(-1, 1, 1, 1)
        own = torch.rand(()) < self.options.get("own", 0.0)
        x_t = a * (self._own_x0(eps, given) if own else x0) + s * eps
        output = self.unet(x_t, level, given).float()
        estimate = self.schedule.x0(x_t, output, a, s)
        x0_hat = estimate.detach().clamp(-1, 1)
        refined = self.rnet(x0_hat, level, condition)
        target = None if own else self.schedule.target(x0, eps, a)
        diffusion = self._diffusion_loss(output, target, estimate, x0)
        structure, psnr = self.options["structure"], self.options.get("psnr", 0.0)
        refinement = picture_loss((refined.float() + 1) / 2, high, structure, 0, psnr)
        loss = diffusion + self.options["refine"] * refinement + terms.get("loss", 0)
        return {**terms, "loss": loss, "diffusion": diffusion, "refinement": refinement, "x0": F.l1_loss(x0_hat, x0)}

    @torch.no_grad()
    def _own_x0(self, eps: Tensor, given: Given) -> Tensor:
        """x0' of a single sampling step from pure noise `eps`."""
        (start,) = self.schedule.timesteps(1)
        level = torch.full((len(eps),), self.schedule.alpha_bar(start) ** 0.5, device=eps.device)

        def denoise(x_t: Tensor, _: int) -> Tensor:
            return self.unet(x_t, level, given).float()

        def refine(x0: Tensor, _: float) -> Tensor:
            return self.rnet(x0, level, given.condition).float()

        return ddim_step(denoise, eps, self.schedule, start, -1, refine=refine)[1]

    def _condition(self, batch: dict[str, Tensor]) -> tuple[RetinexCondition, dict[str, Tensor]]:
        """ANet's condition, detached, and the terms of ANet's loss in joint training."""
        if self.adjusting is None:
            with torch.no_grad():
                return self.anet(self.frozen[0](batch["low"]), statistics_of(self.anet, batch)), {}
        out, terms = self.adjusting.adjusted(batch)
        condition = RetinexCondition(
            out.reflectance.detach().clamp(0, 1),
            out.illumination.detach().clamp(0, 1),
            tuple(f.detach() for f in out.features),
            out.exposure,
        )
        return condition, terms

    def _noise_level(self, count: int, device: torch.device) -> Tensor:
        """Random noise levels (B,), sqrt(alpha_bar); the share `start_share` is pure noise, where sampling starts."""
        table = self.schedule.alphas_cumprod.sqrt()
        t = torch.rand(count, dtype=torch.float64) * (len(table) - 1)
        low = t.long()
        level = torch.lerp(table[low], table[low + 1], t - low)
        level = torch.where(torch.rand(count) < self.options["start_share"], table[-1], level)
        return level.float().to(device)

    def _diffusion_loss(self, output: Tensor, target: Tensor | None, estimate: Tensor, x0: Tensor) -> Tensor:
        """L1 on the prediction, or on x0 when x_t is self-generated, because the prediction has no target then."""
        loss = F.l1_loss(estimate, x0) if target is None else F.l1_loss(output, target)
        structure = self.options["unet_structure"]
        if structure and self.schedule.config.prediction == "v":
            loss = loss + picture_loss((estimate + 1) / 2, (x0 + 1) / 2, structure, 0)
        return loss


class Diffuse:
    """Stage "diffuse".

    The weights to export are selected by PSNR. Those of a flow are selected by RNet's loss on validation pairs; with
    `own`, by the distance in features of the pictures that it finishes.
    """

    name = "diffuse"

    def __init__(
        self, nets: JoReSNets, sampler: CropSampler, val: list[Pair], options: dict[str, float], segmenter: str | None
    ) -> None:
        self.nets, self.batch, self.val = nets, sampler, val
        flows = bool(nets.config.denoiser.detail_std)
        self.best_score = "closeness" if flows else "psnr_gt_mean"
        net = load_segmenter(segmenter or SHIPPED_SEGMENTER)
        shown = [*sampler.pairs, *sampler.photos, *(val if flows else ())]
        for pair in shown:
            pair.semantics = partial(class_map, net, pair)  # computed when the pair is first drawn
        self.priors = [
            segment(net, to_tensor(pair.dark)[None], nets) for pair in val
        ]  # as at inference, without the ground truth
        nets.unet.requires_grad_(True)
        nets.rnet.requires_grad_(True)
        distance = FeatureDistance(net) if flows and options.get("perceptual") else None
        self.objective = FlowObjective(nets, options, distance) if flows else DiffusionObjective(nets, options)
        self.held = CropSampler(val, crop=sampler.crop, batch=HELD_CROPS) if flows else None

    def validate(self, objective: DiffusionObjective | FlowObjective) -> tuple[dict[str, float], list[Tensor]]:
        """Scores of the pipeline at 4 steps and the true exposure, and of R' * L' (prefix "retinex_")."""
        nets = _nets(self.nets.config, objective)
        scores, rows = Scores(), []
        for i, (pair, prior) in enumerate(zip(self.val, self.priors, strict=True)):
            low, high = both_pictures(pair, objective)
            condition = adjust(nets, decompose(nets, low), exposure=mean_luma(high))
            image = (sample(nets, condition, prior, VALIDATION, low=low) + 1) / 2
            for prefix, result in (("", image), ("retinex_", condition.picture)):
                scores.add(result, high, prefix=prefix)
                scores.note(f"{prefix}niqe", niqe(result))
                scores.note(f"{prefix}spectrum", spectrum_error(gt_mean(result, high), high))
            if i % 3 == 0:
                shown = [(low * 4).clamp(0, 1), condition.picture, image, high]
                rows.append(F.interpolate(torch.cat(shown, 3), (400, 4 * 400), mode="area")[0])
        return scores.means() | self._losses(objective), rows

    def _losses(self, objective: DiffusionObjective | FlowObjective) -> dict[str, float]:
        """Losses of a flow on fixed crops of the validation pairs, with fixed noise and times; {} for a diffusion."""
        if self.held is None or not isinstance(objective, FlowObjective):
            return {}
        rng, generator, losses = np.random.default_rng(HELD_SEED), torch.Generator().manual_seed(HELD_SEED), Scores()
        device = next(objective.parameters()).device
        for _ in range(HELD_BATCHES):
            batch = {key: value.to(device) for key, value in self.held(rng).items()}
            eps = torch.randn(batch["high"].shape, generator=generator).to(device)
            t = (torch.arange(HELD_CROPS, device=device) + 0.5) / HELD_CROPS
            terms = objective.at_time(batch, t, eps, batch.get("semantics"))
            if objective.own:
                terms |= objective.finished(batch, VALIDATION.steps, eps, batch.get("semantics"))
            for key, value in terms.items():
                losses.note(f"held_{key}", value)
        means = losses.means()
        return {**means, "closeness": -means["held_own_seen" if objective.own else "held_refinement"]}

    def export(self, objective: DiffusionObjective | FlowObjective, path: Path, record: dict[str, Any]) -> None:
        nets = _nets(self.nets.config, objective)
        save_bundle(path, nets, append_record(self.nets, record))


def _nets(config: JoReSConfig, objective: DiffusionObjective | FlowObjective) -> JoReSNets:
    return JoReSNets(config, objective.frozen_net(DecompositionNet), objective.anet, objective.unet, objective.rnet)


@torch.inference_mode()
def class_map(net: Segmenter, pair: Pair) -> np.ndarray:
    """Soft class map (150, h, w) uint8 of the full well-lit picture, similar to that of R' * L'."""
    prior: SemanticPrior = net(to_tensor(pair.high)[None])
    probabilities = prior.probabilities.float()
    halved = area_average(probabilities, [max(1, -(-n // 2)) for n in size_of(probabilities)])  # crops want no more
    return halved[0].mul(255).round().byte().cpu().numpy()
