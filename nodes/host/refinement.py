"""RNet in the host's sampling: after each step of any sampler, as a `Refinement`."""

from __future__ import annotations

import logging
from typing import Any

import comfy.utils
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...jores.conditions import RetinexCondition
from ...jores.config import JoReSConfig
from ...jores.tiling.tiler import Tiler
from ...jores.tiling.windows import Window, size_of
from .checks import check_counts
from .fingerprints import same_pictures
from .joined import CONDITION_KEY
from .model import ForRNet, JoReSDiffusion
from .model_sampling import SAME_SIGMA
from .patchers import Adjusted
from .pictures import shown_size
from .shared import SharedByKey
from .texture import HostOptions
from .windows import tiler_of

log = logging.getLogger(__name__)

ROUNDING = 1e-6
NODE = "Apply RNet Refinement"
SAME_LIGHT = 0.5 / 255
SAME_CONDITION = "use the condition that 'Condition JoReS Diffusion' got"


class Refinement:
    """Post-CFG function of the host that refines x0 by RNet while the noise level is between `start` and `end`.

    `refine` does the same for the library's sampler. Cloning a MODEL makes deep copies of its options; this object
    returns itself, because its net must not be copied.
    """

    def __init__(self, rnet: ModelPatcher, config: JoReSConfig, adjusted: Adjusted, start: float, end: float) -> None:
        self.rnet, self.config, self.adjusted, self.start, self.end = rnet, config, adjusted, start, end
        self.warned = False

    def __deepcopy__(self, memo: dict[int, Any]) -> Refinement:
        return self

    def of_frame(self, index: int) -> Refinement:
        """The refinement of picture `index` of the batch alone. Raises ValueError if its condition has too few."""
        if index >= len(self.adjusted.low):
            check_counts(len(self.adjusted.low), index + 1, NODE)
        part = Refinement(self.rnet, self.config, self.adjusted.frame(index), self.start, self.end)
        part.warned = self.warned or index > 0  # once for a batch
        return part

    def check(self, positive: list[HostOptions], others: list[HostOptions], count: int) -> None:
        """Raises ValueError if RNet's condition is not that of the `count` pictures that are sampled."""
        own = self.adjusted
        check_counts(len(own.low), count, NODE)
        for cond in [*positive, *others]:
            sampled = cond.get(CONDITION_KEY)
            if sampled is None:
                continue
            if sampled.condition.size != own.condition.size:
                raise _other_size(own.low, sampled.low)
            if not same_pictures(own.source, sampled.source):
                raise ValueError(
                    f"{NODE}: condition was made from another picture than the one that is sampled: {SAME_CONDITION}"
                )
        self._check_light([cond[CONDITION_KEY].condition for cond in positive if CONDITION_KEY in cond])

    def _check_light(self, sampled: list[RetinexCondition]) -> None:
        """Raises ValueError if none of these conditions has RNet's light; a warning if some have another."""
        same = [same_light(self.adjusted.condition, condition) for condition in sampled]
        if same and not any(same):
            raise ValueError(
                f"{NODE}: condition has another light (exposure, brightness, denoise or illumination) than the one "
                f"that is sampled: {SAME_CONDITION}"
            )
        if not all(same) and not self.warned:
            self.warned = True
            log.warning(
                "%s: only a part of the picture, or of the steps, has the light of condition. RNet knows that one "
                "alone, so the rest comes out worse: bypass this node where regions have lights of their own",
                NODE,
            )

    def refine(
        self,
        x0: Tensor,
        level: Tensor,
        shared: SharedByKey[ForRNet],
        window: Window | None = None,
        tiler: Tiler | None = None,
    ) -> Tensor:
        """x0 (B, 3, H, W) in [-1, 1], refined; unchanged outside of the range of noise levels.

        Args:
            level: noise level (B,), sqrt(alpha_bar).
            shared: holds what all steps of this sampling need, if the full picture is processed in one piece.
            window: the window that x0 is a crop of, None for the full picture.
            tiler: None processes x0 in one piece.
        """
        if not self.start - ROUNDING <= float(level[0]) <= self.end + ROUNDING:
            return x0
        condition = self._condition(x0, window)

        def given(part: Window) -> ForRNet:
            if window is not None or part.size != condition.size:
                return self._given(condition.at(part), x0)
            return shared.get((self, len(x0), x0.device), lambda: self._given(condition.at(part), x0))

        def work(part: Window) -> tuple[Tensor]:
            refined = self.rnet.model(part.cut(x0).float().clamp(-1, 1), level, *given(part))
            return (refined.to(x0.dtype),)

        if tiler is None:  # the caller chose a window that fits into memory
            return work(Window.whole(condition.size))[0]
        return tiler.run(condition.size, work)[0]

    def _condition(self, x0: Tensor, window: Window | None) -> RetinexCondition:
        """The condition of x0. Raises ValueError if it was made from a picture of another size."""
        condition = self.adjusted.condition
        if window is not None:
            condition = condition.at(window)
        if condition.size != size_of(x0):
            raise _other_size(condition.reflectance, x0)
        return condition

    def _given(self, condition: RetinexCondition, x0: Tensor) -> ForRNet:
        """What RNet takes from a condition, for the batch and on the device of x0."""
        maps = (condition.reflectance, condition.illumination, *condition.features)
        r, light, *features = (
            comfy.utils.repeat_to_batch_size(m.to(x0.device, torch.float32), len(x0)) for m in maps
        )  # fmt: skip
        return RetinexCondition(r, light, ()), self.rnet.model.modulations(tuple(features), r)

    def kept_tiler(self, base: Any, x: Tensor) -> Tiler:
        """RNet's tiler for this sampling."""
        size = size_of(x)
        return base.diffusion_model.tilers.get(("rnet", size, len(x)), lambda: tiler_of(0, self.config, size, len(x)))

    def __call__(self, args: HostOptions) -> Tensor:
        x0, base = args["denoised"], args["model"]
        self.check(args.get("cond") or [], args.get("uncond") or [], len(x0))
        level, shared = base.noise_level(args["sigma"]), base.diffusion_model.for_rnet
        refined = self.refine(x0, level, shared, tiler=self.kept_tiler(base, x0))
        sigmas = args["model_options"].get("transformer_options", {}).get("sample_sigmas")
        return refined if sigmas is None else torch.lerp(x0, refined, _share(base, float(args["sigma"].max()), sigmas))


def same_light(a: RetinexCondition, b: RetinexCondition) -> bool:
    """Whether R' x L' of two conditions of one picture are the same, to half a level of 8 bits in the mean."""
    if a.illumination.data_ptr() == b.illumination.data_ptr():  # of one node, or the same frame of its batch
        return True
    return float((a.picture.float() - b.picture.to(a.picture.device).float()).abs().mean()) < SAME_LIGHT


def _share(base: JoReSDiffusion, sigma: float, sigmas: Tensor) -> float:
    """`refined_share` of the step of a stock sampler that begins at `sigma`, one of `sigmas` or between two of them."""
    sampling, following = base.model_sampling, sigmas[sigmas < sigma * (1 - SAME_SIGMA)][:1]
    t = float(sampling.timestep(sigmas.new_tensor(sigma)))
    ends = len(following) == 0 or float(following) == 0
    return base.schedule.refined_share(t, -1.0 if ends else float(sampling.timestep(following)))


def _other_size(made_from: Tensor, sampled: Tensor) -> ValueError:
    """The error of a condition that was made from a picture of another size than the sampled one."""
    return ValueError(
        f"{NODE}: condition was made from a picture of {shown_size(made_from)}, but {shown_size(sampled)} is sampled: "
        f"{SAME_CONDITION}"
    )
