"""The library's sampler in the host's sampling, and RNet after each step of any sampler, as a `Refinement`."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import comfy.samplers
import comfy.utils
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...jores.conditions import RetinexCondition
from ...jores.config import JoReSConfig
from ...jores.diffusion.sampling import Callback, Denoise, Mean, Refine, ddim_in_tiles
from ...jores.diffusion.schedule import NoiseSchedule
from ...jores.options import SampleOptions
from ...jores.tiling.tiler import Tiler
from ...jores.tiling.windows import Window, size_of
from .checks import check_counts
from .fingerprints import same_pictures
from .model import CONDITION_KEY, ForRNet, JoReSDiffusion
from .model_sampling import sampling_sigmas
from .patchers import Adjusted
from .pictures import shown_size
from .shared import SharedByKey
from .texture import HostOptions, mixes_itself, with_option
from .windows import CUT_KEY, MEAN_KEY, TILED_KEY, conditioned_on, tiler_of

ROUNDING = 1e-6
SAME_SIGMA = 1e-3  # relative tolerance: sigmas of stock schedulers are rounded
POST_CFG = "sampler_post_cfg_function"
GUIDANCE = ("sampler_pre_cfg_function", "sampler_cfg_function")
NODE = "Apply RNet Refinement"


class Refinement:
    """Post-CFG function of the host that refines x0 by RNet while the noise level is between `start` and `end`.

    `refine` does the same for the library's sampler. Cloning a MODEL makes deep copies of its options; this object
    returns itself, because its net must not be copied.
    """

    def __init__(self, rnet: ModelPatcher, config: JoReSConfig, adjusted: Adjusted, start: float, end: float) -> None:
        self.rnet, self.config, self.adjusted, self.start, self.end = rnet, config, adjusted, start, end

    def __deepcopy__(self, memo: dict[int, Any]) -> Refinement:
        return self

    def check(self, conds: list[dict[str, Any]], count: int, frame: int | None = None) -> None:
        """Raises ValueError if RNet's condition was not made from the `count` pictures that are sampled.

        `frame`: index of the sampled picture in the batch, None if the batch is sampled at once.
        """
        own = self.adjusted if frame is None else self.adjusted.frame(frame)
        if frame is None or frame >= len(self.adjusted.low):
            check_counts(len(self.adjusted.low), count if frame is None else frame + 1, NODE)
        for cond in conds:
            sampled = cond.get(CONDITION_KEY)
            if sampled is None:
                continue
            if sampled.condition.size != own.condition.size:
                raise ValueError(
                    f"{NODE}: condition was made from a picture of {shown_size(own.low)}, but "
                    f"{shown_size(sampled.low)} is sampled: use the condition that 'Condition JoReS Diffusion' got"
                )
            if not same_pictures(own.source, sampled.source):
                raise ValueError(
                    f"{NODE}: condition was made from another picture than the one that is sampled: use the condition "
                    "that 'Condition JoReS Diffusion' got"
                )

    def refine(
        self,
        x0: Tensor,
        level: Tensor,
        frame: int | None = None,
        window: Window | None = None,
        tiler: Tiler | None = None,
        shared: SharedByKey[ForRNet] | None = None,
    ) -> Tensor:
        """x0 (B, 3, H, W) in [-1, 1], refined; unchanged outside of the range of noise levels.

        Args:
            level: noise level (B,), sqrt(alpha_bar).
            frame: index of the picture in the condition, None for the batch.
            window: the window that x0 is a crop of, None for the full picture.
            tiler: None processes x0 in one piece.
            shared: holds what all steps of this sampling need, if x0 is processed in one piece.
        """
        if not self.start - ROUNDING <= float(level[0]) <= self.end + ROUNDING:
            return x0
        condition = self._condition(x0, frame, window)

        def work(part: Window) -> tuple[Tensor]:
            if shared is None or window is not None or part.size != condition.size:
                given = self._given(condition.at(part), x0)
            else:
                key = (self, frame, len(x0), x0.device)
                given = shared.get(key, lambda: self._given(condition.at(part), x0))
            return (self.rnet.model(part.cut(x0).float().clamp(-1, 1), level, *given).to(x0.dtype),)

        if tiler is None:  # the caller chose a window that fits into memory
            return work(Window.whole(condition.size))[0]
        return tiler.run(condition.size, work)[0]

    def _condition(self, x0: Tensor, frame: int | None, window: Window | None) -> RetinexCondition:
        """The condition of x0. Raises ValueError if it was made from a picture of another size."""
        condition = self.adjusted.condition
        if frame is not None:
            condition = condition.frame(frame % len(self.adjusted.low))
        if window is not None:
            condition = condition.at(window)
        if condition.size != size_of(x0):
            raise ValueError(
                f"{NODE}: condition was made from a picture of {shown_size(condition.reflectance)}, but "
                f"{shown_size(x0)} is sampled: use the condition that 'Condition JoReS Diffusion' got"
            )
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
        self.check([*(args.get("cond") or []), *(args.get("uncond") or [])], len(x0))
        level, shared = base.noise_level(args["sigma"]), base.diffusion_model.for_rnet
        refined = self.refine(x0, level, tiler=self.kept_tiler(base, x0), shared=shared)
        sigmas = args["model_options"].get("transformer_options", {}).get("sample_sigmas")
        return refined if sigmas is None else torch.lerp(x0, refined, _share(base, float(args["sigma"].max()), sigmas))


def _share(base: JoReSDiffusion, sigma: float, sigmas: Tensor) -> float:
    """`refined_share` of the step of a stock sampler that begins at `sigma`, one of `sigmas` or between two of them."""
    sampling, following = base.model_sampling, sigmas[sigmas < sigma * (1 - SAME_SIGMA)][:1]
    t = float(sampling.timestep(sigmas.new_tensor(sigma)))
    ends = len(following) == 0 or float(following) == 0
    return base.schedule.refined_share(t, -1.0 if ends else float(sampling.timestep(following)))


def _plain(options: HostOptions, guider: comfy.samplers.CFGGuider) -> HostOptions:
    """Options without the functions of guidance nodes (APG, PerpNeg) if the negative conditioning is not evaluated.

    At cfg 1 it is not, and the host gives these functions zeros in its place.
    """
    special = type(guider).predict_noise is not comfy.samplers.CFGGuider.predict_noise  # with two scales, for example
    if special or not math.isclose(guider.cfg, 1.0) or options.get("disable_cfg1_optimization"):
        return options
    return {name: value for name, value in options.items() if name not in GUIDANCE}


def _both(report: Callback | None, callback: Callable[[dict[str, object]], None] | None) -> Callback:
    """A callback for the library that calls `report`, and after every step the host's `callback`."""

    def tell(done: float, total: int, x0: Tensor | None) -> None:
        if report is not None:
            report(done, total, x0)
        if callback is not None and x0 is not None:
            callback({"i": int(done) - 1, "denoised": x0, "x": x0})

    return tell


def few_step_sampler(
    schedule: NoiseSchedule,
    options: SampleOptions,
    frame: int | None,
    tiler: Tiler | None = None,
    report: Callback | None = None,
) -> Callable[..., Tensor]:
    """A sampler function for the host's KSAMPLER: `ddim_in_tiles`, with x_t of unit variance as in the library.

    Stock samplers compute eps from the refined x0, the method from the UNet's x0, so RNet is called after eps. `frame`:
    index in the batch, None for all pictures. `tiler`: None leaves tiling to the model. `report`: a library callback.
    """

    def sample(
        model: Any, x: Tensor, sigmas: Tensor, extra_args: HostOptions, callback: Any = None, disable: Any = None
    ) -> Tensor:
        sigma_of = dict(zip(schedule.timesteps(options.steps), sigmas[:-1], strict=True))
        nets = _HostNets(model, x, extra_args, schedule, sigma_of, frame, tiler is not None)
        noise, tell = x / (1 + sigmas[0] ** 2).sqrt(), _both(report, callback)
        return ddim_in_tiles(tiler or Tiler(), noise, schedule, options, nets.stage, like=x, callback=tell)

    return mixes_itself(sample)


class _HostNets:
    """The UNet and RNet as the host has them, as the functions of `ddim_step`, in one sampling of the pictures `x`.

    `model` and `extra_args` are what the host gives to a sampler; `cut_here`: the windows are the library's, so the
    model does not tile. `sigma_of`: sigma by time step.
    """

    def __init__(
        self,
        model: Any,
        x: Tensor,
        extra_args: HostOptions,
        schedule: NoiseSchedule,
        sigma_of: dict[int, Tensor],
        frame: int | None,
        cut_here: bool,
    ) -> None:
        self.model, self.x, self.extra_args, self.schedule = model, x, extra_args, schedule
        self.sigma_of, self.frame, self.cut_here = sigma_of, frame, cut_here
        self.guider, self.one = model.inner_model, x.new_ones(len(x))
        given = extra_args["model_options"]
        hooks = given.get(POST_CFG, [])
        self.refiners = [hook for hook in hooks if isinstance(hook, Refinement)]
        for hook in self.refiners:
            hook.check([cond for conds in self.guider.conds.values() for cond in conds or []], len(x), frame)
        others = [hook for hook in hooks if hook not in self.refiners]
        self.options = _plain({**given, POST_CFG: others}, self.guider)
        if cut_here:
            self.options = with_option(self.options, TILED_KEY)

    def stage(self, window: Window) -> tuple[Denoise, Refine, Mean | None]:
        """The functions for one window, as `ddim_in_tiles` takes them."""
        mean = partial(self.mean, window) if self.schedule.config.detail_std else None
        return partial(self.denoise, window), partial(self.refine, window), mean

    def denoise(self, window: Window, x_t: Tensor, t: int) -> Tensor:
        return self.schedule.output(x_t, self._x0(window, x_t, t, self.options), self.schedule.alpha_bar(t))

    def mean(self, window: Window, x_t: Tensor, t: int) -> Tensor:
        return self._x0(window, x_t, t, with_option(self.options, MEAN_KEY))

    def refine(self, window: Window, x0: Tensor, alpha_bar: float) -> Tensor:
        part = window if self._is_cut(window) else None
        base, level = self.guider.inner_model, self.one * alpha_bar**0.5
        for hook in self.refiners:
            tiler = None if self.cut_here else hook.kept_tiler(base, self.x)
            x0 = hook.refine(x0, level, self.frame, part, tiler, base.diffusion_model.for_rnet)
        mask = self.extra_args.get("denoise_mask")
        if mask is not None and self.refiners:  # RNet ran after the host's mask
            x0 = torch.where(mask > 0, x0, self.model.latent_image.to(x0))
        return x0

    def _x0(self, window: Window, x_t: Tensor, t: int, options: HostOptions) -> Tensor:
        """The x0 that the host's guider estimates."""
        sigma, cut = self.sigma_of[t], self._is_cut(window)
        extra_args = {**self.extra_args, "model_options": with_option(options, CUT_KEY) if cut else options}
        with conditioned_on(self.guider, window, x_t) if cut else nullcontext():
            return self.model(x_t * (1 + sigma**2).sqrt(), sigma * self.one, **extra_args)

    def _is_cut(self, window: Window) -> bool:
        return window.size != size_of(self.x)


def recipe_sampler(eta: float, texture: float) -> Callable[..., Tensor]:
    """`few_step_sampler` for any guider of the host, which gives the schedule, the steps and the seed.

    All pictures of the batch are sampled at once, with the noise of the host. The returned function raises ValueError
    for other models and other sigmas.
    """

    def sample(
        model: Any, x: Tensor, sigmas: Tensor, extra_args: HostOptions, callback: Any = None, disable: Any = None
    ) -> Tensor:
        base, steps = model.inner_model.inner_model, len(sigmas) - 1
        if not isinstance(schedule := getattr(base, "schedule", None), NoiseSchedule):
            raise ValueError(
                f"Select JoReS Sampler: the guider's model is a {type(base).__name__}, not a JoReS model: connect the "
                "model of 'Load JoReS Model', or choose a stock sampler"
            )
        own = sampling_sigmas(base.model_sampling, schedule.timesteps(steps)).to(sigmas)
        if not torch.allclose(own, sigmas, rtol=SAME_SIGMA):
            raise ValueError(
                f"Select JoReS Sampler: these {steps} steps are not the method's own: connect all sigmas of 'Schedule "
                "JoReS Sigmas', not a part of them"
            )
        options = SampleOptions(steps, extra_args.get("seed") or 0, eta=eta, texture=texture)
        sampler = few_step_sampler(schedule, options, frame=None)
        return sampler(model, x, sigmas, extra_args, callback, disable)

    return mixes_itself(sample)
