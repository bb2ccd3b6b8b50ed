"""Objective of stage "diffuse" for a flow to the fine detail that R' * L' lacks, and for RNet.

Ours, beside METHOD.md, 12 and 17: the paper, as read, diffuses the whole picture.

R' * L' is close to the mean of all well-lit pictures that fit the dark one, so regression can only give smooth results.
The UNet therefore learns to sample one of them, as in rectified flow (Liu et al., ICLR 2023) and posterior-mean
rectified flow (Ohayon et al., ICLR 2025): x_t is made from the true picture, and the loss is the squared error.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from ..checkpoint import JoReSNets
from ..conditions import Given
from ..nets.adjustment import AdjustmentNet
from ..nets.decomposition import DecompositionNet
from ..nets.denoiser import fine_detail, without_mesh
from .adjust import statistics_of
from .critic import DetailCritic
from .frozen import UsesFrozen
from .perceptual import FeatureDistance

OWN_STEPS = (2, 4, 4, 4, 8)  # numbers of steps after which a picture is finished in training
TERMS = ("flow", "refinement", "unrefined", "detail", "seen", "seen_refined", "own_error", "own_seen", "own_detail",
         "critic", "real")  # fmt: skip
UNKNOWN = dict.fromkeys(TERMS, torch.tensor(torch.nan))  # a log has one set of columns


class FlowObjective(UsesFrozen):
    """|F - (y - eps)|^2 of the UNet's velocity F, and |x0' - x0|^2 / c^2 of RNet's result, at uniform random times.

    y is the fine detail of the true picture beside R' * L', in units of c = `detail_std`; x0 = R' * L' + c y. RNet gets
    the UNet's estimate, detached. Its error is squared as well, and it gets the noise level, so it learns to correct
    the error of the estimate at this level, not to smooth the sample. `prior_dropout` is the share of batches without
    c_seg, so that the UNet also works without a segmenter. With `perceptual` > 0 the distance of the features of both
    estimates to those of R' * L' + c y is added with this weight: few steps then give texture, not its mean.

    In sampling y_t is not made of the true y, but of what the nets have drawn in the steps before. For the share `own`
    of the batches it is so in training, too: y_t is where sampling in a few steps stands before its last one, and the
    losses are those of the finished picture: `perceptual`, `own_error` for the squared error, which would take the
    drawn detail away again, and `adversary` for what a critic says.

    Raises:
        ValueError: the recipe has `own` without `perceptual`, or `adversary` without `own`.
    """

    def __init__(self, nets: JoReSNets, options: dict[str, float], distance: FeatureDistance | None = None) -> None:
        super().__init__(nets.dnet, nets.anet, *([distance] if distance else []))
        self.unet, self.rnet, self.options = nets.unet, nets.rnet, options
        self.detail_std = nets.config.denoiser.detail_std
        self.perceptual = (options.get("perceptual") or 0.0) if distance else 0.0
        self.own, self.adversary = options.get("own") or 0.0, options.get("adversary") or 0.0
        if self.own and not self.perceptual or self.adversary and not self.own:
            raise ValueError("options of the recipe: `own` needs `perceptual` > 0, and `adversary` needs `own` > 0")
        self.critic = DetailCritic() if self.adversary else None

    @property
    def anet(self) -> AdjustmentNet:
        return self.frozen_net(AdjustmentNet)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        semantics = batch.get("semantics")
        if semantics is not None and torch.rand(()) < self.options["prior_dropout"]:
            semantics = None
        if torch.rand(()) < self.own:
            steps = OWN_STEPS[int(torch.randint(len(OWN_STEPS), ()))]
            return UNKNOWN | self.finished(batch, steps, torch.randn_like(batch["high"]), semantics)
        count = len(batch["high"])
        t = (torch.randperm(count) + torch.rand(count)) / count  # stratified over the times of the flow
        return UNKNOWN | self.at_time(batch, t.to(batch["high"].device), torch.randn_like(batch["high"]), semantics)

    def at_time(self, batch: dict[str, Tensor], t: Tensor, eps: Tensor, semantics: Tensor | None) -> dict[str, Tensor]:
        """Losses at the times t (B,) in [0, 1), with the noise eps (B, 3, c, c)."""
        given = self._given(batch, semantics)
        y = given.detail(batch["high"])
        y_t = torch.lerp(eps, y, t.view(-1, 1, 1, 1))
        velocity, y_hat = self._drawn(given, y_t, t)
        refined = self._refined(given, y_hat.detach(), t)
        flow = (velocity - (y - eps)).square().mean()
        refinement = (refined - y).square().mean()
        terms = {"flow": flow, "refinement": refinement, "unrefined": (y_hat.detach() - y).square().mean(),
                 "detail": y.square().mean().sqrt()}  # fmt: skip
        if self.perceptual:
            terms["seen"], terms["seen_refined"] = self._seen(given, y, y_hat, refined)
            flow = flow + self.perceptual * terms["seen"]
            refinement = refinement + self.perceptual * terms["seen_refined"]
        return {"loss": flow + self.options["refine"] * refinement, **terms}

    def finished(
        self, batch: dict[str, Tensor], steps: int, eps: Tensor, semantics: Tensor | None
    ) -> dict[str, Tensor]:
        """Losses of the picture that sampling in `steps` steps from the noise eps ends with."""
        given = self._given(batch, semantics)
        y, y_t, times = given.detail(batch["high"]), eps, torch.arange(steps, device=eps.device) / steps
        with torch.no_grad():
            for t, after in pairwise(times.expand(len(eps), steps).unbind(1)):
                y_t = self._euler_step(given, y_t, t, after)
        last = times[-1].expand(len(eps))
        _, y_hat = self._drawn(given, y_t, last)
        refined = self._refined(given, y_hat.detach(), last)
        errors = [(drawn - y).square().mean() for drawn in (y_hat, refined)]
        seen = self._seen(given, y, y_hat, refined)
        unet, rnet = (self.options["own_error"] * e + self.perceptual * s for e, s in zip(errors, seen, strict=True))
        terms = {"own_error": errors[1], "own_seen": seen[1], "own_detail": refined.detach().square().mean().sqrt()}
        loss = unet + self.options["refine"] * rnet
        if self.critic is not None:
            (for_unet, for_rnet), critic = self.critic.losses(y, [y_hat, refined], given.picture)
            loss = loss + critic + self.adversary * (for_unet + self.options["refine"] * for_rnet)
            terms |= {"critic": critic, "real": for_rnet}
        return {"loss": loss, **terms}

    def _given(self, batch: dict[str, Tensor], semantics: Tensor | None) -> FlowGiven:
        with torch.no_grad():
            out = self.anet(self.frozen_net(DecompositionNet)(batch["low"]), statistics_of(self.anet, batch))
        return FlowGiven(batch["low"], out, semantics, picture=out.picture.float() * 2 - 1, detail_std=self.detail_std)

    def _drawn(self, given: FlowGiven, y_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """The UNet's velocity at y_t, and the y that it estimates."""
        velocity = self.unet.raw_output(y_t, t, given).float()
        return velocity, without_mesh(fine_detail(y_t + (1 - t.view(-1, 1, 1, 1)) * velocity))

    def _refined(self, given: FlowGiven, y_hat: Tensor, t: Tensor) -> Tensor:
        """RNet's y' for an estimate of y."""
        x0 = given.picture + self.detail_std * y_hat
        refined = self.rnet(x0.clamp(-1, 1), noise_level(t, self.detail_std), given.condition).float()
        return (refined - given.picture) / self.detail_std

    def _euler_step(self, given: FlowGiven, y_t: Tensor, t: Tensor, after: Tensor) -> Tensor:
        """y at the next time: as `ddim_step` goes on, from RNet's y' and the UNet's noise."""
        y_hat = self._drawn(given, y_t, t)[1]
        when, then = t.view(-1, 1, 1, 1), after.view(-1, 1, 1, 1)
        noise = (y_t - when * y_hat) / (1 - when)
        return torch.lerp(noise, self._refined(given, y_hat, t), then)

    def _seen(self, given: FlowGiven, y: Tensor, *details: Tensor) -> list[Tensor]:
        """Distance in features of R' * L' and each of the details to that with the true y."""
        distance, picture = self.frozen_net(FeatureDistance), given.picture
        return distance(picture + self.detail_std * y, *(picture + self.detail_std * d for d in details))


@dataclass(frozen=True, kw_only=True)
class FlowGiven(Given):
    """What the UNet and RNet are given beside y_t; `picture` is R' * L' in [-1, 1]."""

    picture: Tensor
    detail_std: float

    def detail(self, high: Tensor) -> Tensor:
        """y (B, 3, H, W) of the true pictures in [0, 1]."""
        return fine_detail(high * 2 - 1 - self.picture) / self.detail_std


def noise_level(t: Tensor, detail_std: float) -> Tensor:
    """sqrt(alpha_bar) (B,) of the flow's times t (B,), as input of RNet."""
    return t / (t.square() + (detail_std * (1 - t)).square()).sqrt()
