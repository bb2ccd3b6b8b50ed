"""DDIM with refinement of x0 in every step (METHOD.md, 13, 18 and 19; partly inferred): a step, and the loop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

from ..imaging.resize import crop_to, pad_to_multiple
from ..options import SampleOptions
from ..tiling.tiler import Tiler, Work
from ..tiling.windows import ALIGNMENT, Window, size_of
from .schedule import NoiseSchedule

Denoise = Callable[[Tensor, int], Tensor]
Refine = Callable[[Tensor, float], Tensor]
Mean = Callable[[Tensor, int], Tensor]
Callback = Callable[[float, int, Tensor | None], None]
PREVIEW = 1024  # px: the callback gets x0 of a big picture reduced to about this size
Stage = Callable[[Window], tuple[Denoise, Refine | None, Mean | None]]


def ddim_step(
    denoise: Denoise,
    x_t: Tensor,
    schedule: NoiseSchedule,
    t: int,
    t_next: int,
    *,
    eta: float = 0.0,
    refine: Refine | None = None,
    noise: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """One step from time t to t_next (-1: the clean picture). Returns the next x_t, and the x0' it was computed from.

    Args:
        denoise: (x_t, t) -> output of the UNet ("v" or "eps", see the schedule).
        eta: 0 is deterministic given the start noise (the default), 1 adds noise at every step (PyDiff).
        refine: (x0, alpha_bar) -> x0', RNet. As in PyDiff and Diff-Retinex, the next x_t is computed from the refined
            x0' and the eps of the UNet. That the paper refines at every step, including the last, is inferred from its
            captions.
        noise: standard normal noise of this step, or None; see `step_noise`.
    """
    alpha_bar, alpha_next = schedule.alpha_bar(t), schedule.alpha_bar(t_next)
    x0, eps = schedule.x0_and_eps(x_t, denoise(x_t, t), alpha_bar)
    x0 = x0.clamp(-1, 1)
    if refine is not None:
        x0 = refine(x0, alpha_bar)
    sigma = ddim_sigma(alpha_bar, alpha_next, eta)
    x_t = alpha_next**0.5 * x0 + max(0.0, 1 - alpha_next - sigma**2) ** 0.5 * eps
    return (x_t if noise is None else x_t + sigma * noise), x0


def partly(refine: Refine | None, share: float) -> Refine | None:
    """`refine`, of which only a share is taken over."""
    if refine is None or share == 1:
        return refine
    return lambda x0, alpha_bar: torch.lerp(x0, refine(x0, alpha_bar), share)


def step_noise(
    schedule: NoiseSchedule, t: int, t_next: int, eta: float, like: Tensor, generator: torch.Generator | None
) -> Tensor | None:
    """Standard normal noise (1, 3, H, W) for a step that adds noise, or None.

    It is drawn on the CPU, so that a seed gives the same picture on every device. It is the same for all pictures of a
    batch, so that clips do not flicker and a result does not depend on the rest of its batch.
    """
    if ddim_sigma(schedule.alpha_bar(t), schedule.alpha_bar(t_next), eta) == 0:
        return None
    return torch.randn((1, *like.shape[1:]), generator=generator, dtype=torch.float32).to(like)


def ddim_sigma(alpha_bar: float, alpha_prev: float, eta: float) -> float:
    """sigma_t (METHOD.md, 18; in DDIM's paper formula 16)."""
    if eta == 0 or alpha_prev == 1.0:
        return 0.0
    return eta * ((1 - alpha_prev) / (1 - alpha_bar) * (1 - alpha_bar / alpha_prev)) ** 0.5


def start_noise(shape: tuple[int, ...], seed: int, like: Tensor) -> Tensor:
    """Standard normal noise from a CPU generator, moved to the device and dtype of `like`."""
    generator = torch.Generator("cpu").manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float32).to(like)


def ddim_in_tiles(
    tiler: Tiler,
    x_t: Tensor,
    schedule: NoiseSchedule,
    options: SampleOptions,
    stage: Stage,
    *,
    like: Tensor,
    callback: Callback | None = None,
) -> Tensor:
    """The sampling loop: changes x_t (B, 3, H, W) in place from noise to x0 in [-1, 1], window by window; returns it.

    At every step the x_{t-1} of all windows are blended. x_{t-1} is linear in x0' and eps, so this blends both, after
    RNet refined the x0 of each window.

    Args:
        options: steps, eta, seed and texture are used; the noise of the steps (eta > 0) is drawn from seed + 1.
        stage: for a window, the functions `denoise` and `refine` of `ddim_step`, and for a flow also (x_t, t) -> R' x
            L' in [-1, 1], the mean of the pictures that the flow samples from. The last step interpolates between the
            sample and this mean, which is the optimal trade-off of squared error and realism (Freirich et al., 2021).
        like: a tensor with the device and dtype of these functions; x_t may be on another device.
        callback: called after every window with (steps done, with a fraction; number of steps; None), and after every
            step with x0' in place of None. In tiles, x0' is reduced to about PREVIEW pixels. An exception of the
            callback ends the sampling.
    """
    size, steps = size_of(x_t), options.steps
    if tiler.covers(size):  # what a single window takes from the priors is kept for all steps
        stage = lru_cache(maxsize=1)(stage)
    generator = torch.Generator("cpu").manual_seed((options.seed + 1) % 2**64)
    for done, (t, t_next) in enumerate(pairwise([*schedule.timesteps(steps), -1])):
        noise = step_noise(schedule, t, t_next, options.eta, x_t, generator)
        shrink = _shrink(tiler, size) if callback is not None else 0
        work: Work = _Step(schedule, t, t_next, options, stage, x_t, noise, like, shrink)
        if callback is not None:
            work = _counted(work, tiler.windows(size), lambda part, done=done: callback(done + part, steps, None))
        x0 = _overwritten(x_t, tiler, work, shrink)
        if callback is not None:
            callback(done + 1, steps, x0)
    return x_t


def _overwritten(x_t: Tensor, tiler: Tiler, work: Work, shrink: int) -> Tensor | None:
    """Replaces x_t by what `work` makes of its windows, in place. Returns x0' reduced by `shrink`, if that is not 0."""
    size, previews = size_of(x_t), []
    for rows, band in tiler.bands(size, work, (1, shrink) if shrink else (1,)):
        x_t[..., rows[0], :] = band[0]
        previews.extend(band[1:])
    return crop_to(torch.cat(previews, -2), tuple(-(-length // shrink) for length in size)) if shrink else None


@dataclass(frozen=True)
class _Step:
    """One step from time t to t_next for any window; see `ddim_in_tiles`.

    Attributes:
        x_t, noise: of the complete picture.
        shrink: factor by which x0' is reduced; 0: it is not wanted.
    """

    schedule: NoiseSchedule
    t: int
    t_next: int
    options: SampleOptions
    stage: Stage
    x_t: Tensor
    noise: Tensor | None
    like: Tensor
    shrink: int

    def __call__(self, window: Window) -> tuple[Tensor, ...]:
        """x_t at t_next and, if it is wanted, x0', on the device of x_t."""
        denoise, refine, mean = self.stage(window)
        refine = partly(refine, self.schedule.refined_share(self.t, self.t_next))
        x, noise = window.cut(self.x_t).to(self.like), self.noise
        if noise is not None:
            noise = window.cut(noise).to(self.like)
        eta, texture = self.options.eta, self.options.texture
        made, x0 = ddim_step(denoise, x, self.schedule, self.t, self.t_next, eta=eta, refine=refine, noise=noise)
        if mean is not None and self.t_next < 0 and texture < 1:
            made = x0 = torch.lerp(mean(x, self.t), made.float(), texture)
        if self.shrink > 1:
            x0 = F.avg_pool2d(pad_to_multiple(x0, ALIGNMENT), self.shrink)
        return (made.to(self.x_t), x0.to(self.x_t)) if self.shrink else (made.to(self.x_t),)


def _counted(work: Work, total: int, tell: Callable[[float], None]) -> Work:
    """`work` with a report after every window except the last: the fraction of the `total` windows that are done."""
    done = 0

    def counted(window: Window) -> tuple[Tensor, ...]:
        nonlocal done
        result = work(window)
        done += 1
        if done < total:
            tell(done / total)
        return result

    return counted


def _shrink(tiler: Tiler, size: tuple[int, int]) -> int:
    """Factor by which x0 is reduced for the callback; 1 for a single window."""
    if tiler.covers(size):
        return 1
    return next((s for s in (1, 2, 4, 8) if max(size) <= PREVIEW * s), 16)
