"""What stock samplers and schedulers need to sample a flow: a start at R' x L', and no step that is too large."""

from __future__ import annotations

from collections.abc import Callable

import comfy.samplers
import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrapperExecutor, WrappersMP
from torch import Tensor

from .texture import HostOptions, mean_picture

WRAPPER_KEY = "jores_flow"
CORRECTING = ("sample_heun", "sample_dpm_2_ancestral")
"""Samplers that correct a step by what the model says at its end, divided by the noise level there."""
LARGEST_STEP = 20.0
"""Ratio of two noise levels in a row from which these samplers give noise instead of a picture (measured)."""


def sample_from_the_mean(model: ModelPatcher) -> None:
    """Lets stock samplers begin a flow anywhere between noise and picture, and refuses steps that they cannot make.

    A flow leads from R' x L' with noise to the picture. At the first noise level the noise hides R' x L', so an empty
    latent does as well. Some schedulers (`ddim_uniform`) begin later: there an empty latent is replaced by R' x L'.

    Raises (while sampling):
        ValueError: the sampler is one of CORRECTING, and a step is larger than LARGEST_STEP.
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
        check_steps(executor.class_obj, sigmas)
        first = guider.inner_model.model_sampling.sigmas[-1]
        late = len(sigmas) > 1 and float(sigmas[0]) < 0.99 * float(first)
        latent, denoise_mask = (*rest, None, None)[:2]
        if late and denoise_mask is None and isinstance(latent, Tensor) and not torch.any(latent):
            rest = (mean_picture(guider, extra_args, noise), *rest[1:])
        return executor(guider, sigmas, extra_args, callback, noise, *rest)

    model.add_wrapper_with_key(WrappersMP.SAMPLER_SAMPLE, WRAPPER_KEY, sample)


def check_steps(sampler: object, sigmas: Tensor) -> None:
    """Raises ValueError if one of CORRECTING is to make a step larger than LARGEST_STEP."""
    name = getattr(getattr(sampler, "sampler_function", None), "__name__", "")
    ends = sigmas[1:][sigmas[1:] > 0]
    if name in CORRECTING and bool((sigmas[: len(ends)] > LARGEST_STEP * ends).any()):
        raise ValueError(
            f"the sampler '{name.removeprefix('sample_')}' divides by the noise level, which falls too far in one of "
            "these steps for a JoReS model: choose euler, ddim or dpmpp_2m, or karras with 10 steps or more"
        )
