"""The library's noise schedule as the host's model sampling."""

from __future__ import annotations

from typing import Any

import comfy.model_sampling
import torch
from torch import Tensor

from ...jores.config import ScheduleConfig
from ...jores.diffusion.schedule import NoiseSchedule

SMALLEST_SIGMA, LARGEST_SIGMA = 0.3, 3000.0  # as the host's schedulers are told; its tables hold all of them
FLOW_END = 0.05  # noise beside the detail of a flow


class _Discrete(comfy.model_sampling.ModelSamplingDiscrete):
    """alpha_bar of the library as the host's sigma = sqrt((1 - alpha_bar) / alpha_bar).

    The host needs a finite sigma at the last step. With zero terminal SNR it gets twice the last but one: float32 still
    resolves x there, and the nets are told the true noise level all the same (`JoReSDiffusion.process_timestep`).
    """

    def __init__(self, config: ScheduleConfig, **_settings: Any) -> None:
        if not isinstance(config, ScheduleConfig):  # nodes that set a dial of flow models build the schedule anew
            raise ValueError(
                "a node before this changes the model's noise schedule (ModelNoiseScale?), which a JoReS model has "
                "learned and cannot change: take that node out"
            )
        super().__init__()
        alphas = NoiseSchedule(config).alphas_cumprod
        sigmas = ((1 - alphas) / alphas).sqrt()
        if config.zero_terminal_snr:
            sigmas[-1] = 2 * sigmas[-2]
        self.num_timesteps, self.zsnr = config.timesteps, config.zero_terminal_snr
        self.linear_start, self.linear_end = config.beta_start, config.beta_end
        self.set_sigmas(sigmas)
        # A flow's detail is small beside the noise of a diffusion: x changes down to smaller sigmas.
        self.smallest = min(SMALLEST_SIGMA, FLOW_END * config.detail_std) if config.detail_std else SMALLEST_SIGMA

    @property
    def sigma_min(self) -> Tensor:
        """Where the host's schedulers end before 0. Below, the nets hardly change x any more, while samplers of second
        order divide by such a sigma what two steps differ by (heun with `normal` or `karras`)."""
        return self.sigmas[int((self.sigmas < self.smallest).sum().clamp_max(len(self.sigmas) - 1))]

    @property
    def sigma_max(self) -> Tensor:
        """Where they begin. Beyond, x is nothing but noise, and a first step from there is uselessly wide."""
        return self.sigmas[int((self.sigmas < LARGEST_SIGMA).sum().clamp_max(len(self.sigmas) - 1))]

    def noise_scaling(self, sigma: Tensor, noise: Tensor, latent_image: Tensor, max_denoise: bool = False) -> Tensor:
        """In float32: the first sigma times noise is beyond half precision."""
        return super().noise_scaling(sigma.float(), noise.float(), latent_image.float(), max_denoise)

    def percent_to_sigma(self, percent: float) -> float:
        """The host's own takes every schedule for 1000 steps long."""
        if percent <= 0.0:
            return 999999999.9
        if percent >= 1.0:
            return 0.0
        return self.sigma(torch.tensor((1.0 - percent) * (self.num_timesteps - 1))).item()


class EpsSampling(_Discrete, comfy.model_sampling.EPS):
    pass


class VSampling(_Discrete, comfy.model_sampling.V_PREDICTION):
    def calculate_denoised(self, sigma: Tensor, model_output: Tensor, model_input: Tensor) -> Tensor:
        """x0. At zero terminal SNR the last x_t is pure noise and says nothing about x0, which is -v exactly."""
        x0 = super().calculate_denoised(sigma, model_output, model_input)
        if not self.zsnr:
            return x0
        # Schedulers that go through log(sigma) come back a rounding below the table's value.
        terminal = (sigma > 0.99 * self.sigmas[-1].to(sigma)).view(-1, *(1,) * (x0.ndim - 1))
        return torch.where(terminal, -model_output, x0)


def model_sampling(config: ScheduleConfig) -> _Discrete:
    return (VSampling if config.prediction == "v" else EpsSampling)(config)


def sampling_sigmas(sampling: _Discrete, timesteps: list[int]) -> Tensor:
    """SIGMAS of the library's time steps, down to 0."""
    return torch.cat([sampling.sigmas[timesteps].cpu(), torch.zeros(1)])
