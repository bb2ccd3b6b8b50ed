"""The library's noise schedule as a model sampling of the host."""

from __future__ import annotations

from typing import Any

import comfy.model_sampling
import torch
from torch import Tensor

from ...jores.config import ScheduleConfig
from ...jores.diffusion.schedule import NoiseSchedule

SMALLEST_SIGMA, LARGEST_SIGMA = 0.3, 3000.0  # bounds for the host's schedulers; the table of sigmas is not limited
FLOW_END = 0.05  # smallest sigma of a flow, relative to the standard deviation of its detail
SAME_SIGMA = 1e-3  # relative tolerance: sigmas of stock schedulers are rounded


class _Discrete(comfy.model_sampling.ModelSamplingDiscrete):
    """The host's sigma = sqrt((1 - alpha_bar) / alpha_bar) for the library's alpha_bar.

    The host needs a finite last sigma. With zero terminal SNR it is set to twice the last but one, where float32 still
    resolves x. The nets get the true noise level in any case (`JoReSDiffusion.process_timestep`).

    Raises:
        ValueError: another node replaced the config.
    """

    def __init__(self, config: ScheduleConfig, **_settings: Any) -> None:
        if not isinstance(config, ScheduleConfig):  # nodes that set a parameter of flow models create a new schedule
            raise ValueError(
                "a node before this changes the model's noise schedule (ModelNoiseScale?), but a JoReS model only "
                "works with the schedule that it was trained with: take that node out"
            )
        super().__init__()
        alphas = NoiseSchedule(config).alphas_cumprod
        sigmas = ((1 - alphas) / alphas).sqrt()
        if config.zero_terminal_snr:
            sigmas[-1] = 2 * sigmas[-2]
        self.num_timesteps, self.zsnr = config.timesteps, config.zero_terminal_snr
        self.linear_start, self.linear_end = config.beta_start, config.beta_end
        self.set_sigmas(sigmas)
        # The detail of a flow is small, so x still changes at smaller sigmas than in a diffusion.
        self.smallest = min(SMALLEST_SIGMA, FLOW_END * config.detail_std) if config.detail_std else SMALLEST_SIGMA

    @property
    def sigma_min(self) -> Tensor:
        """Last sigma of the host's schedulers before 0.

        At smaller sigmas the nets hardly change x, and second-order samplers, which divide by sigma, amplify small
        differences (heun with `normal` or `karras`).
        """
        return self.sigmas[int((self.sigmas < self.smallest).sum().clamp_max(len(self.sigmas) - 1))]

    @property
    def sigma_max(self) -> Tensor:
        """First sigma of the host's schedulers. At larger sigmas x is only noise; the first step would be too large."""
        return self.sigmas[int((self.sigmas < LARGEST_SIGMA).sum().clamp_max(len(self.sigmas) - 1))]

    def noise_scaling(self, sigma: Tensor, noise: Tensor, latent_image: Tensor, max_denoise: bool = False) -> Tensor:
        """In float32, because the first sigma times noise overflows half precision."""
        return super().noise_scaling(sigma.float(), noise.float(), latent_image.float(), max_denoise)

    def percent_to_sigma(self, percent: float) -> float:
        """As in the host, which assumes 1000 time steps, but for the schedule's own number."""
        if percent <= 0.0:
            return 999999999.9
        if percent >= 1.0:
            return 0.0
        return self.sigma(torch.tensor((1.0 - percent) * (self.num_timesteps - 1))).item()


class EpsSampling(_Discrete, comfy.model_sampling.EPS):
    pass


class VSampling(_Discrete, comfy.model_sampling.V_PREDICTION):
    def calculate_denoised(self, sigma: Tensor, model_output: Tensor, model_input: Tensor) -> Tensor:
        """x0. With zero terminal SNR the last x_t is pure noise, and x0 is exactly -v."""
        x0 = super().calculate_denoised(sigma, model_output, model_input)
        if not self.zsnr:
            return x0
        # Schedulers that compute with log(sigma) return values that are rounded slightly below the table's.
        terminal = (sigma > 0.99 * self.sigmas[-1].to(sigma)).view(-1, *(1,) * (x0.ndim - 1))
        return torch.where(terminal, -model_output, x0)


def model_sampling(config: ScheduleConfig) -> _Discrete:
    """The host's model sampling for a noise schedule."""
    return (VSampling if config.prediction == "v" else EpsSampling)(config)


def sampling_sigmas(sampling: _Discrete, timesteps: list[int]) -> Tensor:
    """SIGMAS (steps + 1,) of the library's time steps; the last one is 0."""
    return torch.cat([sampling.sigmas[timesteps].cpu(), torch.zeros(1)])
