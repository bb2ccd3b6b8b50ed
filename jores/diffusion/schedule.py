"""Noise schedule: tables in float64, computed once (METHOD.md, 2).

The formula is that of DDPM, as in the ancestors; ours are zero terminal SNR (Lin et al., WACV 2024) and the flow.
"""

# The schedule of a flow. A rectified flow leads from noise eps to the detail y that R' * L' lacks, in units of its
# standard deviation c: y_t = (1 - t) eps + t y. With x0 = R' * L' + c y, the x_t = a x0 + s eps of a diffusion contains
# the same y_t if a / s = t / (c (1 - t)). So the flow is a diffusion around R' * L' with this spacing of alpha_bar, in
# which a DDIM step is an Euler step. All that works with a diffusion (the host's samplers, RNet on x0) works with the
# flow. Posterior-mean rectified flow (Ohayon et al., ICLR 2025) also starts at R' * L' plus noise.

from __future__ import annotations

import torch
from torch import Tensor

from ..config import ScheduleConfig

LEARNED_STEPS = 8  # a flow is trained on what it draws itself in up to so many steps
LAST_AS_OF = 4  # the last of more steps begins where that of so many does; where that of 8 does, LPIPS is higher


class NoiseSchedule:
    """alpha_bar_t for t = 0..T-1, and conversions between x_t, x0, eps and the UNet's output.

    `alphas_cumprod` (T,) is a float64 tensor on the CPU; single values are Python floats, because some accelerators
    lack float64.
    """

    def __init__(self, config: ScheduleConfig) -> None:
        self.config = config
        if config.detail_std:
            self.alphas_cumprod = _flow_table(config.timesteps, config.detail_std)
            return
        betas = torch.linspace(config.beta_start, config.beta_end, config.timesteps, dtype=torch.float64)
        alphas_cumprod = torch.cumprod(1 - betas, 0)
        self.alphas_cumprod = rescale_zero_terminal_snr(alphas_cumprod) if config.zero_terminal_snr else alphas_cumprod

    @property
    def most_steps(self) -> int:
        """The largest number of steps: T, for a flow less; see `timesteps`."""
        total = self.config.timesteps
        return 1 + (LAST_AS_OF - 1) * total // LAST_AS_OF if self.config.detail_std else total

    def timesteps(self, steps: int) -> list[int]:
        """`steps` evenly spaced time steps, from T-1 downwards: 999, 749, 499, 249 for 4 of 1000, as in PyDiff.

        The last of more than LEARNED_STEPS of a flow begins where that of LAST_AS_OF does. With less noise the net
        takes what it drew for the scene's own detail, and sharpens it at every step.

        Raises:
            ValueError: there are not so many.
        """
        total, most = self.config.timesteps, self.most_steps
        if not 1 <= steps <= most:
            raise ValueError(f"steps must be between 1 and {most}, not {steps}")
        if most < total and steps > LEARNED_STEPS:
            return [total - 1 - i * (most - 1) // (steps - 1) for i in range(steps)]
        return [total - 1 - i * total // steps for i in range(steps)]

    def refined_share(self, t: float, t_next: float) -> float:
        """Share of RNet's correction that a step from time t to t_next (-1: the clean picture) takes over.

        All of it, unless a step of a flow is shorter than one of LEARNED_STEPS: corrections add up, and shall be those
        of LEARNED_STEPS.
        """
        return min(1.0, LEARNED_STEPS * (t - t_next) / self.config.timesteps) if self.config.detail_std else 1.0

    def alpha_bar(self, t: int) -> float:
        """alpha_bar_t; 1 for t < 0 (the clean picture)."""
        return float(self.alphas_cumprod[t]) if t >= 0 else 1.0

    def x0_and_eps(self, x_t: Tensor, output: Tensor, alpha_bar: float) -> tuple[Tensor, Tensor]:
        """The predicted x0 (METHOD.md, 13; not clamped) and eps for an output of the UNet."""
        a, s = alpha_bar**0.5, (1 - alpha_bar) ** 0.5
        return self.x0(x_t, output, a, s), a * output + s * x_t if self.config.prediction == "v" else output

    def x0(self, x_t: Tensor, output: Tensor, a: float | Tensor, s: float | Tensor) -> Tensor:
        """The predicted x0; a = sqrt(alpha_bar) and s = sqrt(1 - alpha_bar) are numbers or (B, 1, 1, 1)."""
        return a * x_t - s * output if self.config.prediction == "v" else (x_t - s * output) / a

    def output(self, x_t: Tensor, x0: Tensor, alpha_bar: float) -> Tensor:
        """Inverse of `x0_and_eps`: the output of the UNet for this x0. Needs alpha_bar < 1."""
        a, s = alpha_bar**0.5, (1 - alpha_bar) ** 0.5
        return (a * x_t - x0) / s if self.config.prediction == "v" else (x_t - a * x0) / s

    def target(self, x0: Tensor, eps: Tensor, noise_level: Tensor) -> Tensor:
        """Training target of the UNet; noise_level = sqrt(alpha_bar), broadcastable to x0."""
        if self.config.prediction == "eps":
            return eps
        return noise_level * eps - (1 - noise_level.square()).clamp_min(0).sqrt() * x0


def _flow_table(timesteps: int, detail_std: float) -> Tensor:
    """alpha_bar for the flow's times t = 1 - k / T, k = 1..T: from nearly clean to pure noise."""
    t = 1 - torch.arange(1, timesteps + 1, dtype=torch.float64) / timesteps
    signal, noise = t, detail_std * (1 - t)
    return signal.square() / (signal.square() + noise.square())


def rescale_zero_terminal_snr(alphas_cumprod: Tensor) -> Tensor:
    """Shifts and scales sqrt(alpha_bar) so that the last value is 0 and the first one is unchanged."""
    root = alphas_cumprod.sqrt()
    return ((root - root[-1]) * root[0] / (root[0] - root[-1])).square()
