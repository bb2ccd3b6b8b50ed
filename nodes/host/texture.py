"""Interpolates the sample of a flow and R' x L', its mean, at the end of the host's sampling."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import comfy.samplers
import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrapperExecutor, WrappersMP
from torch import Tensor

from .windows import MEAN_KEY

WRAPPER_KEY = "jores_texture"
HostOptions = dict[str, Any]  # what the host calls model_options


class StockSampling(NamedTuple):
    """One call of a stock sampler, as the host hands it to wrappers: the sampler, then its arguments in their order."""

    executor: WrapperExecutor
    guider: comfy.samplers.CFGGuider
    sigmas: Tensor
    extra_args: HostOptions
    callback: Callable | None
    noise: Tensor
    latent: Tensor | None = None
    denoise_mask: Tensor | None = None
    disable_pbar: bool = False

    @property
    def sampler_function(self) -> object:
        return getattr(self.executor.class_obj, "sampler_function", None)

    def run(self, shown: Callable[[Tensor, int], Tensor] | None = None) -> Tensor:
        """Calls the sampler, with a copy of the sigmas, because uni_pc changes the last one in place.

        `shown` changes the x0 (B, 3, H, W) of every step, by its number, on the way to the host, which shows them as
        previews, and gives the last one as `denoised_output`. The sampler goes on with its own.
        """
        callback = self.callback
        if callback is not None and shown is not None:
            callback = _changed(callback, shown, len(self.sigmas) - 2)
        return self.executor(*self._replace(sigmas=self.sigmas.clone(), callback=callback)[1:])

    def mean_picture(self, like: Tensor, at: int = 0) -> Tensor:
        """R' x L' in [-1, 1] of the positive conditioning at step `at`, (B, 3, H, W) as `like`."""
        options = with_option(self.extra_args["model_options"], MEAN_KEY)
        model, conds = self.guider.inner_model, [self.guider.conds["positive"]]
        sampling = model.model_sampling  # any level of that step will do, but of one near 0 little is left in float32
        level = self.sigmas[at].to(like).clamp(float(sampling.sigma_min), float(sampling.sigma_max))
        levels = level * like.new_ones(len(like))
        return comfy.samplers.calc_cond_batch(model, conds, like, levels, options)[0]


def _changed(host: Callable, shown: Callable[[Tensor, int], Tensor], last: int) -> Callable:
    """The callback `host` behind `shown`; `last`: number of the last step, beyond which adaptive samplers count on."""
    return lambda step, x0, x, total: host(step, shown(x0, min(step, last)), x, total)


def wrap_sampling(model: ModelPatcher, key: str, sample: Callable[[StockSampling], Tensor]) -> None:
    """Adds a wrapper of every stock sampler of the MODEL: `sample` is called in its place, and may `run` it."""
    model.add_wrapper_with_key(WrappersMP.SAMPLER_SAMPLE, key, lambda *call: sample(StockSampling(*call)))


def mix_after_sampling(model: ModelPatcher, texture: float) -> None:
    """Adds an interpolation of the result and R' x L' to the end of every stock sampler; see `ddim_in_tiles`.

    It is done once, after the last step, because second-order samplers evaluate the model several times at the last
    sigma, and multistep samplers use earlier results. The x0 that the host is shown are interpolated at every step. The
    library's sampler has its own `texture` and is skipped.
    """

    def sample(call: StockSampling) -> Tensor:
        def mixed(x0: Tensor, at: int) -> Tensor:
            mean = call.mean_picture(x0, at)
            if call.latent is not None and call.denoise_mask is not None:  # outside of its noise mask the latent stays
                mean = torch.lerp(call.latent.to(mean), mean, call.denoise_mask.to(mean))
            return torch.lerp(mean, x0.to(mean), texture)

        if getattr(call.sampler_function, WRAPPER_KEY, False) or len(call.sigmas) < 2:  # done already, or no sampling
            return call.run()
        made = call.run(mixed)
        return mixed(made, -2) if float(call.sigmas[-1]) == 0 else made  # the rest of the steps may follow

    model.remove_wrappers_with_key(WrappersMP.SAMPLER_SAMPLE, WRAPPER_KEY)  # the last such node decides
    if texture < 1:
        wrap_sampling(model, WRAPPER_KEY, sample)


def mixes_itself(sampler: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Marks a sampler function that does the interpolation itself."""
    setattr(sampler, WRAPPER_KEY, True)
    return sampler


def with_option(model_options: HostOptions, key: str) -> HostOptions:
    """A copy of the model's options with `key` set in the transformer options, which reach the UNet."""
    return {**model_options, "transformer_options": {**model_options.get("transformer_options", {}), key: True}}
