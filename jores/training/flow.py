"""Objective of stage "diffuse" for a flow to the fine detail that R' * L' lacks, and for RNet (Eqs. 12 to 17).

R' * L' is close to the mean of all well-lit pictures that fit the dark one, so regression can only give smooth results.
The UNet therefore learns to sample one of them, as in rectified flow (Liu et al., ICLR 2023) and posterior-mean
rectified flow (Ohayon et al., ICLR 2025): x_t is made from the true picture, and the loss is the squared error.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..checkpoint import JoReSNets
from ..nets.adjustment import AdjustmentNet
from ..nets.decomposition import DecompositionNet
from ..nets.denoiser import fine_detail, without_mesh
from .adjust import statistics_of
from .frozen import UsesFrozen
from .perceptual import FeatureDistance


class FlowObjective(UsesFrozen):
    """|F - (y - eps)|^2 of the UNet's velocity F, and |x0' - x0|^2 / c^2 of RNet's result, at uniform random times.

    y is the fine detail of the true picture beside R' * L', in units of c = `detail_std`; x0 = R' * L' + c y. RNet gets
    the UNet's estimate, detached. Its error is squared as well, and it gets the noise level, so it learns to correct
    the error of the estimate at this level, not to smooth the sample. `prior_dropout` is the share of batches without
    c_seg, so that the UNet also works without a segmenter. With `perceptual` > 0 the distance of the features of both
    estimates to those of R' * L' + c y is added with this weight: few steps then give texture, not its mean.
    """

    def __init__(self, nets: JoReSNets, options: dict[str, float], distance: FeatureDistance | None = None) -> None:
        super().__init__(nets.dnet, nets.anet, *([distance] if distance else []))
        self.unet, self.rnet, self.options = nets.unet, nets.rnet, options
        self.detail_std = nets.config.denoiser.detail_std
        self.perceptual = (options.get("perceptual") or 0.0) if distance else 0.0

    @property
    def anet(self) -> AdjustmentNet:
        return self.frozen_net(AdjustmentNet)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        semantics = batch.get("semantics")
        if semantics is not None and torch.rand(()) < self.options["prior_dropout"]:
            semantics = None
        count = len(batch["high"])
        t = (torch.randperm(count) + torch.rand(count)) / count  # stratified over the times of the flow
        return self.at_time(batch, t.to(batch["high"].device), torch.randn_like(batch["high"]), semantics)

    def at_time(self, batch: dict[str, Tensor], t: Tensor, eps: Tensor, semantics: Tensor | None) -> dict[str, Tensor]:
        """Losses at the times t (B,) in [0, 1), with the noise eps (B, 3, c, c)."""
        low, c, when = batch["low"], self.detail_std, t.view(-1, 1, 1, 1)
        with torch.no_grad():
            out = self.anet(self.frozen_net(DecompositionNet)(low), statistics_of(self.anet, batch))
        conditions = out.reflectance, out.illumination, out.features
        picture = out.picture.float() * 2 - 1
        y = fine_detail(batch["high"] * 2 - 1 - picture) / c
        y_t = (1 - when) * eps + when * y
        velocity = self.unet.velocity(y_t, t, low, *conditions, semantics).float()
        estimate = picture + c * without_mesh(fine_detail(y_t + (1 - when) * velocity))
        x0_hat, x0 = estimate.detach().clamp(-1, 1), picture + c * y
        refined = self.rnet(x0_hat, noise_level(t, c), *conditions).float()
        flow = (velocity - (y - eps)).square().mean()
        refinement = (refined - x0).div(c).square().mean()
        terms = {"flow": flow, "refinement": refinement, "unrefined": (x0_hat - x0).div(c).square().mean(),
                 "detail": y.square().mean().sqrt()}  # fmt: skip
        if self.perceptual:
            terms["seen"], terms["seen_refined"] = self.frozen_net(FeatureDistance)(x0, estimate, refined)
            flow = flow + self.perceptual * terms["seen"]
            refinement = refinement + self.perceptual * terms["seen_refined"]
        return {"loss": flow + self.options["refine"] * refinement, **terms}


def noise_level(t: Tensor, detail_std: float) -> Tensor:
    """sqrt(alpha_bar) (B,) of the flow's times t (B,), as input of RNet."""
    return t / (t.square() + (detail_std * (1 - t)).square()).sqrt()
