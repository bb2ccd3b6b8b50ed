"""Interpolates the sample of a flow and R' x L', its mean, at the end of the host's sampling."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import comfy.samplers
import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrapperExecutor, WrappersMP
from torch import Tensor

from .windows import MEAN_KEY

WRAPPER_KEY = "jores_texture"
HostOptions = dict[str, Any]  # what the host calls model_options


def mix_after_sampling(model: ModelPatcher, texture: float) -> None:
    """Adds an interpolation of the result and R' x L' to the end of every stock sampler; see `ddim_in_tiles`.

    It is done once, after the last step, because second-order samplers evaluate the model several times at the last
    sigma, and multistep samplers use earlier results. The library's sampler has its own `texture` and is skipped.
    """

    def sample(
        executor: WrapperExecutor,
        guider: comfy.samplers.CFGGuider,
        sigmas: Tensor,
        extra_args: HostOptions,
        callback: Callable | None,
        noise: Tensor,
        *rest: Tensor | bool | None,
    ) -> Tensor:
        made = executor(guider, sigmas, extra_args, callback, noise, *rest)
        own = getattr(getattr(executor.class_obj, "sampler_function", None), WRAPPER_KEY, False)
        if own or len(sigmas) < 2 or float(sigmas[-1]) != 0:  # done already, or not the end of the sampling
            return made
        mean = mean_picture(guider, extra_args, made)
        latent, denoise_mask = (*rest, None, None)[:2]
        if isinstance(latent, Tensor) and isinstance(
            denoise_mask, Tensor
        ):  # the latent's noise mask keeps the latent outside of it
            mean = torch.lerp(latent.to(mean), mean, denoise_mask.to(mean))
        return torch.lerp(mean, made, texture)

    model.remove_wrappers_with_key(WrappersMP.SAMPLER_SAMPLE, WRAPPER_KEY)  # the last such node decides
    if texture < 1:
        model.add_wrapper_with_key(WrappersMP.SAMPLER_SAMPLE, WRAPPER_KEY, sample)


def mean_picture(guider: comfy.samplers.CFGGuider, extra_args: HostOptions, like: Tensor) -> Tensor:
    """R' x L' in [-1, 1] of the positive conditioning, (B, 3, H, W) as `like`."""
    options = with_option(extra_args["model_options"], MEAN_KEY)
    sigmas = guider.inner_model.model_sampling.sigmas
    middle = sigmas[len(sigmas) // 2]  # any level will do, but of one near 0 little is left in float32
    levels = middle.to(like) * like.new_ones(len(like))
    return comfy.samplers.calc_cond_batch(guider.inner_model, [guider.conds["positive"]], like, levels, options)[0]


def mixes_itself(sampler: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Marks a sampler function that does the interpolation itself."""
    setattr(sampler, WRAPPER_KEY, True)
    return sampler


def with_option(model_options: HostOptions, key: str) -> HostOptions:
    """A copy of the model's options with `key` set in the transformer options, which reach the UNet."""
    return {**model_options, "transformer_options": {**model_options.get("transformer_options", {}), key: True}}
