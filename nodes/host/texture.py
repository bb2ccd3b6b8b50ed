"""The mix of what a flow draws with R' x L', its mean, at the end of the host's sampling."""

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
    """Makes every stock sampler end with a mix of its picture and R' x L'; see `ddim_in_tiles`.

    It is done once, after the last step: samplers of second order evaluate the model at the last sigma before, too, and
    multistep samplers go on from what they were given. Our own samplers have a texture of their own.
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
        if own or len(sigmas) < 2 or float(sigmas[-1]) != 0:  # what is not finished yet is mixed when it is
            return made
        options = told(extra_args["model_options"], MEAN_KEY)
        sigma = sigmas[-2].to(made) * made.new_ones(len(made))
        conds = [guider.conds["positive"]]
        (mean,) = comfy.samplers.calc_cond_batch(guider.inner_model, conds, made, sigma, options)
        latent, denoise_mask = (*rest, None, None)[:2]
        if isinstance(latent, Tensor) and isinstance(
            denoise_mask, Tensor
        ):  # where the latent's noise mask keeps the latent
            mean = torch.lerp(latent.to(mean), mean, denoise_mask.to(mean))
        return torch.lerp(mean, made, texture)

    model.remove_wrappers_with_key(WrappersMP.SAMPLER_SAMPLE, WRAPPER_KEY)  # the last such node decides
    model.add_wrapper_with_key(WrappersMP.SAMPLER_SAMPLE, WRAPPER_KEY, sample)


def mixes_itself(sampler: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Marks a sampler function whose result is mixed already."""
    setattr(sampler, WRAPPER_KEY, True)
    return sampler


def told(model_options: HostOptions, key: str) -> HostOptions:
    """The model's options with `key` among those that reach the UNet."""
    return {**model_options, "transformer_options": {**model_options.get("transformer_options", {}), key: True}}
