"""DDIM with the refinement of x0 inside (Eqs. 13, 18 and 19): one step, and the loop over steps and windows."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from ..imaging.resize import crop_to, pad_to_multiple
from ..options import SampleOptions
from ..tiling.tiler import Tiler, Work
from ..tiling.windows import ALIGNMENT, Window
from .schedule import NoiseSchedule

Denoise = Callable[[Tensor, int], Tensor]
Refine = Callable[[Tensor, float], Tensor]
Callback = Callable[[float, int, Tensor | None], None]
PREVIEW = 1024  # px: a big picture's x0 is shown reduced
Stage = Callable[[Window], tuple[Denoise, Refine | None]]


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
    """Takes x_t (B, 3, H, W) of a picture of any size from noise to x0 in [-1, 1], in place.

    The windows' x_{t-1} are blended; they are linear in x0' and eps, so this blends both. RNet runs before.

    Args:
        options: steps, eta and seed are used; the noise of the steps (eta > 0) is drawn from seed + 1.
        stage: the window's own denoise and refine, as in `ddim_step`.
        like: a tensor of the device and dtype that they work with; x_t may lie elsewhere.
        callback: after every window as (steps done, a fraction; steps; None), and after every step with x0', at most
            about PREVIEW pixels wide where the picture is done in tiles. What it raises ends the sampling.
    """
    steps, eta, size = options.steps, options.eta, tuple(x_t.shape[-2:])
    taus, generator = [*schedule.timesteps(steps), -1], torch.Generator("cpu").manual_seed((options.seed + 1) % 2**64)
    for i in range(steps):
        fresh = fresh_noise(schedule, taus[i], taus[i + 1], eta, x_t, generator)
        shrink = _shrink(tiler, size) if callback is not None else 0

        def step(window: Window, i=i, fresh=fresh, shrink=shrink) -> tuple[Tensor, ...]:
            denoise, refine = stage(window)
            x, cut = window.cut(x_t).to(like), None if fresh is None else window.cut(fresh).to(like)
            made, x0 = ddim_step(denoise, x, schedule, taus[i], taus[i + 1], eta=eta, refine=refine, fresh=cut)
            if shrink > 1:
                x0 = F.avg_pool2d(pad_to_multiple(x0, ALIGNMENT), shrink)
            return (made.to(x_t), x0.to(x_t)) if shrink else (made.to(x_t),)

        work, previews = step, []
        if callback is not None:
            work = _counted(step, tiler.windows(size), lambda part, i=i: callback(i + part, steps, None))
        for rows, band in tiler.bands(size, work, (1, shrink) if shrink else (1,)):
            x_t[..., rows[0], :] = band[0]
            previews.extend(band[1:])
        if callback is not None:
            shown = tuple(-(-length // shrink) for length in size)
            callback(i + 1, steps, crop_to(torch.cat(previews, -2), shown))
    return x_t


def _counted(work: Work, total: int, tell: Callable[[float], None]) -> Work:
    """`work` that tells, after all windows but the last, what part of them is done."""
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
    """By how much x0 is reduced for the callback: 1 for a picture that is done as a whole."""
    if tiler.covers(size):
        return 1
    return next((s for s in (1, 2, 4, 8) if max(size) <= PREVIEW * s), 16)
