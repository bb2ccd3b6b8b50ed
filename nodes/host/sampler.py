"""The library's sampler as one of the host's, with the host's UNet, guider and patches."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import comfy.samplers
import torch
from torch import Tensor

from ...jores.diffusion.sampling import Callback, Denoise, Mean, Refine, ddim_in_tiles
from ...jores.diffusion.schedule import NoiseSchedule
from ...jores.options import SampleOptions
from ...jores.tiling.tiler import Tiler
from ...jores.tiling.windows import Window, size_of
from .joined import uses_negative
from .model import JoReSDiffusion
from .model_sampling import SAME_SIGMA, sampling_sigmas
from .refinement import Refinement
from .texture import HostOptions, mixes_itself, with_option
from .windows import CUT_KEY, MEAN_KEY, TILED_KEY, conditioned_on

POST_CFG = "sampler_post_cfg_function"
GUIDANCE = ("sampler_pre_cfg_function", "sampler_cfg_function")


def _plain(options: HostOptions, guider: comfy.samplers.CFGGuider) -> HostOptions:
    """Options without the functions of guidance nodes (APG, PerpNeg) if the negative conditioning is not evaluated.

    At cfg 1 it is not, and the host gives these functions zeros in its place.
    """
    if uses_negative(guider, options):
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
        nets = _HostNets(model, x, sigmas, extra_args, frame, cut_here=tiler is not None)
        noise, tell = x / (1 + sigmas[0] ** 2).sqrt(), _both(report, callback)
        return ddim_in_tiles(tiler or Tiler(), noise, nets.schedule, options, nets.stage, like=x, callback=tell)

    return mixes_itself(sample)


class _HostNets:
    """The UNet and RNet as the host has them, as the functions of `ddim_step`, in one sampling of the pictures `x`.

    `model`, `sigmas` and `extra_args` are what the host gives to a sampler; `frame`: as in `few_step_sampler`;
    `cut_here`: the windows are the library's, so the model does not tile.
    """

    def __init__(
        self, model: Any, x: Tensor, sigmas: Tensor, extra_args: HostOptions, frame: int | None, *, cut_here: bool
    ) -> None:
        self.model, self.x, self.extra_args, self.cut_here = model, x, extra_args, cut_here
        self.guider, self.one = model.inner_model, x.new_ones(len(x))
        self.base: JoReSDiffusion = self.guider.inner_model
        self.schedule = self.base.schedule
        self.sigma_of = dict(zip(self.schedule.timesteps(len(sigmas) - 1), sigmas[:-1], strict=True))
        given = extra_args["model_options"]
        hooks = given.get(POST_CFG, [])
        self.refiners = self._refiners(hooks, frame)
        others = [hook for hook in hooks if not isinstance(hook, Refinement)]
        self.options = _plain({**given, POST_CFG: others}, self.guider)
        if cut_here:
            self.options = with_option(self.options, TILED_KEY)

    def _refiners(self, hooks: list[Callable], frame: int | None) -> list[Refinement]:
        """RNet as the graph applies it, for the sampled pictures; raises ValueError if it was told of others."""
        ours = [hook for hook in hooks if isinstance(hook, Refinement)]
        if frame is not None:
            ours = [hook.of_frame(frame) for hook in ours]
        conds = {name: conds or [] for name, conds in self.guider.conds.items()}
        unused = (
            ["positive"] if uses_negative(self.guider, self.extra_args["model_options"]) else ["positive", "negative"]
        )
        others = [cond for name, joined in conds.items() if name not in unused for cond in joined]
        for hook in ours:
            hook.check(conds.get("positive", []), others, len(self.x))
        return ours

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
        level, shared = self.one * alpha_bar**0.5, self.base.diffusion_model.for_rnet
        for hook in self.refiners:
            tiler = None if self.cut_here else hook.kept_tiler(self.base, self.x)
            x0 = hook.refine(x0, level, shared, part, tiler)
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
        sampler = few_step_sampler(options, frame=None)
        return sampler(model, x, sigmas, extra_args, callback, disable)

    return mixes_itself(sample)
