"""The library's sampler and RNet inside the host's sampling: both as functions, which the host copies by reference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import comfy.utils
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ..jores.diffusion.sampling import ddim_sample
from ..jores.diffusion.schedule import NoiseSchedule
from .patchers import Adjusted
from .pictures import shown_size

ROUNDING = 1e-6
POST_CFG = "sampler_post_cfg_function"


def refinement(rnet: ModelPatcher, adjusted: Adjusted, start: float, end: float) -> Callable[[dict[str, Any]], Tensor]:
    """The host's post-CFG function that puts x0 through RNet where the noise level lies between `start` and `end`.

    Its attribute `refine` is the same without the host's envelope, for our own sampler. Functions, not an object:
    cloning a MODEL copies its options deeply, and would copy the network with the object.
    """

    def refine(x0: Tensor, level: Tensor, frame: int | None = None) -> Tensor:
        if not start - ROUNDING <= float(level[0]) <= end + ROUNDING:
            return x0
        condition = adjusted.condition
        if frame is not None:
            condition = condition.frame(frame % len(adjusted.low))
        if condition.size != tuple(x0.shape[-2:]):
            raise ValueError(
                f"Apply RNet Refinement: condition was made from a picture of {shown_size(condition.reflectance)}, but "
                f"{shown_size(x0)} is sampled: use the condition that 'Condition JoReS Diffusion' got"
            )
        maps = (condition.reflectance, condition.illumination, *condition.features)
        maps = [comfy.utils.repeat_to_batch_size(m.to(x0.device, torch.float32), len(x0)) for m in maps]
        refined = rnet.model(x0.float().clamp(-1, 1), level, maps[0], maps[1], tuple(maps[2:]))
        return refined.to(x0.dtype)

    def post_cfg(args: dict[str, Any]) -> Tensor:
        return refine(args["denoised"], args["model"].noise_level(args["sigma"]))

    post_cfg.refine = refine
    return post_cfg


def few_step_sampler(schedule: NoiseSchedule, steps: int, eta: float, seed: int, frame: int) -> Callable[..., Tensor]:
    """A sampler function for the host's KSAMPLER: `ddim_sample`, with x_t kept at unit variance as in the library.

    Stock samplers take eps from the refined x0; the method takes it from the UNet's own x0. So RNet is lifted out of
    the model's options here, and called between the two.
    """

    def sample(
        model: Any, x: Tensor, sigmas: Tensor, extra_args: dict[str, Any], callback: Any = None, disable: Any = None
    ) -> Tensor:
        options = extra_args["model_options"]
        hooks = options.get(POST_CFG, [])
        refiners = [hook.refine for hook in hooks if hasattr(hook, "refine")]
        plain = {**options, POST_CFG: [hook for hook in hooks if not hasattr(hook, "refine")]}
        sigma_of = dict(zip(schedule.timesteps(steps), sigmas[:-1], strict=True))
        one = x.new_ones(len(x))

        def denoise(x_t: Tensor, t: int) -> Tensor:
            sigma = sigma_of[t]
            x0 = model(x_t * (1 + sigma**2).sqrt(), sigma * one, **{**extra_args, "model_options": plain})
            return schedule.output(x_t, x0, schedule.alpha_bar(t))

        def refine(x0: Tensor, alpha_bar: float) -> Tensor:
            for refiner in refiners:
                x0 = refiner(x0, one * alpha_bar**0.5, frame)
            return x0

        def report(done: int, _total: int, x0: Tensor) -> None:
            if callback is not None:
                callback({"i": done - 1, "denoised": x0, "x": x0})

        generator = torch.Generator("cpu").manual_seed(seed + 1)
        noise = x / (1 + sigmas[0] ** 2).sqrt()
        return ddim_sample(
            denoise, noise, schedule, steps, eta=eta, refine=refine, generator=generator, callback=report
        )  # fmt: skip

    return sample
