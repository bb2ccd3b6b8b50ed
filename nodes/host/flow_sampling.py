"""What stock samplers and schedulers need to sample a flow: a start at R' x L', and no step that is too large."""

from __future__ import annotations

import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from .texture import StockSampling, wrap_sampling

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

    def sample(call: StockSampling) -> Tensor:
        check_steps(call.sampler_function, call.sigmas)
        first = call.guider.inner_model.model_sampling.sigmas[-1]
        late = len(call.sigmas) > 1 and float(call.sigmas[0]) < 0.99 * float(first)
        empty = call.latent is not None and not torch.any(call.latent)
        latent = call.latent
        if call.denoise_mask is None or latent is None:
            return (call._replace(latent=call.mean_picture(call.noise)) if late and empty else call).run()
        # Outside of the mask the net must see what it was trained on; the latent comes back at the end.
        mask, mean = call.denoise_mask.to(latent), call.mean_picture(call.noise).to(latent)
        inside = mean if empty else torch.where(mask < 1, mean, latent)

        def held(x0: Tensor, _step: int = 0) -> Tensor:
            return torch.lerp(latent.to(x0), x0, mask.to(x0))

        return held(call._replace(latent=inside).run(held))

    wrap_sampling(model, WRAPPER_KEY, sample)


def check_steps(sampler_function: object, sigmas: Tensor) -> None:
    """Raises ValueError if one of CORRECTING is to make a step larger than LARGEST_STEP."""
    name = getattr(sampler_function, "__name__", "")
    ends = sigmas[1:][sigmas[1:] > 0]
    if name in CORRECTING and bool((sigmas[: len(ends)] > LARGEST_STEP * ends).any()):
        raise ValueError(
            f"the sampler '{name.removeprefix('sample_')}' divides by the noise level, which falls too far in one of "
            "these steps for a JoReS model: choose euler, ddim or dpmpp_2m, or karras with 10 steps or more"
        )
