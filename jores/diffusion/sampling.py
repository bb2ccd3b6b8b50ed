"""A step of DDIM with the refinement of x0 inside (Eqs. 13, 18 and 19); `tiling.ddim_in_tiles` loops over them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .schedule import NoiseSchedule

Denoise = Callable[[Tensor, int], Tensor]
Refine = Callable[[Tensor, float], Tensor]
Callback = Callable[[int, int, Tensor], None]


def ddim_step(
    denoise: Denoise,
    x_t: Tensor,
    schedule: NoiseSchedule,
    t: int,
    t_next: int,
    *,
    eta: float = 0.0,
    refine: Refine | None = None,
    fresh: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """One step from time t to t_next (-1: the clean picture). Returns the next x_t, and x0' on which it was built.

    Args:
        denoise: (x_t, t) -> network output ("v" or "eps", as the schedule says).
        eta: 0 is deterministic after the start noise (our default), 1 draws fresh noise at every step (PyDiff).
        refine: (x0, alpha_bar) -> x0', RNet. As in PyDiff and Diff-Retinex the next x_t is made of the refined x0' and
            the UNet's own eps; that the paper refines at every step, the last included, is inferred from its captions.
        fresh: the noise of this step, see `fresh_noise`.
    """
    alpha_bar, alpha_next = schedule.alpha_bar(t), schedule.alpha_bar(t_next)
    x0, eps = schedule.x0_and_eps(x_t, denoise(x_t, t), alpha_bar)
    x0 = x0.clamp(-1, 1)
    if refine is not None:
        x0 = refine(x0, alpha_bar)
    sigma = ddim_sigma(alpha_bar, alpha_next, eta)
    x_t = alpha_next**0.5 * x0 + max(0.0, 1 - alpha_next - sigma**2) ** 0.5 * eps
    return (x_t if fresh is None else x_t + sigma * fresh), x0


def fresh_noise(
    schedule: NoiseSchedule, t: int, t_next: int, eta: float, like: Tensor, generator: torch.Generator | None
) -> Tensor | None:
    """(1, 3, H, W) standard normal noise for a step that adds some, else None.

    It comes from a CPU generator, so that one seed means one picture on every device, and all pictures of a batch share
    it: a clip then does not flicker, and a picture does not depend on its neighbours.
    """
    if ddim_sigma(schedule.alpha_bar(t), schedule.alpha_bar(t_next), eta) == 0:
        return None
    return torch.randn((1, *like.shape[1:]), generator=generator, dtype=torch.float32).to(like)


def ddim_sigma(alpha_bar: float, alpha_prev: float, eta: float) -> float:
    """sigma_t of Eq. 18 (DDIM, formula 16)."""
    if eta == 0 or alpha_prev == 1.0:
        return 0.0
    return eta * ((1 - alpha_prev) / (1 - alpha_bar) * (1 - alpha_bar / alpha_prev)) ** 0.5


def start_noise(shape: tuple[int, ...], seed: int, like: Tensor) -> Tensor:
    """Standard normal noise from a CPU generator, moved to the device and dtype of `like`."""
    generator = torch.Generator("cpu").manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float32).to(like)
