"""Big pictures in bounded memory: the same stages, window by window.

What belongs to the whole picture (exposure, brightness, noise, semantics) is made once and cut; what the nets make of
the windows is blended at every step of the diffusion, so that the next step starts everywhere from one picture and
neighbours cannot drift apart.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from .conditions import RetinexCondition, SemanticPrior
from .config import JoReSConfig
from .diffusion.sampling import Callback, Denoise, Refine, ddim_step, fresh_noise
from .diffusion.schedule import NoiseSchedule
from .imaging.padding import crop_to, pad_to_multiple
from .imaging.tiles import ALIGNMENT, MIN_TILE, Window, rows_of_windows
from .memory import auto_tile, free_memory, is_out_of_memory

FEATURE_SIDES = (4, 8, 16)  # pixels in a cell of ANet's F^1, F^2, F^3
GAIN_SIDE = 8  # finer than ANet's gains for any picture worth looking at
SEMANTIC_SIDE = 8  # finer than any class map, and the finest level of the compact UNet that looks at it
PREVIEW = 1024  # px: a big picture's x0 is shown reduced

log = logging.getLogger(__name__)

Work = Callable[[Window], tuple[Tensor, ...]]
Stage = Callable[[Window], tuple[Denoise, Refine | None]]


@dataclass
class Tiler:
    """Runs work on windows of at most `tile` pixels a side (0: on whole pictures) and blends what comes back.

    When memory runs out, the tile is halved for good and the window at hand is done again in parts: keep one Tiler for
    all stages of a picture.
    """

    tile: int = 0

    def __post_init__(self) -> None:
        if self.tile and self.tile < MIN_TILE:
            raise ValueError(f"tile must be 0 or at least {MIN_TILE} pixels, not {self.tile}")

    @classmethod
    def choose(cls, tile: int | Tiler | None, config: JoReSConfig, images: Tensor, device: torch.device) -> Tiler:
        """`tile` in pixels (0: whole), an existing Tiler, or None: what fits into the memory of `device`."""
        if isinstance(tile, Tiler):
            return tile
        if tile is None:
            tile = auto_tile(free_memory(device) // len(images), config, *images.shape[-2:])
        return cls(tile)

    def covers(self, size: tuple[int, int]) -> bool:
        return not self.tile or max(size) <= self.tile

    def windows(self, size: tuple[int, int]) -> int:
        """How many windows a picture of this size takes."""
        whole = Window.whole(size)
        return 1 if self.covers(size) else sum(map(len, rows_of_windows(whole, self.tile)))

    def run(self, size: tuple[int, int], work: Work, sides: tuple[int, ...] = (1,)) -> tuple[Tensor, ...]:
        """`work` on every window of a picture of this size, blended to whole maps.

        Args:
            work: gives one (B, C, h, w) tensor for every entry of `sides`.
            sides: pixels in a cell of that tensor: 1, or a divisor of 16 for a map of the padded window.
        """
        return self._made(Window.whole(size), work, sides)

    def bands(
        self, size: tuple[int, int], work: Work, sides: tuple[int, ...] = (1,)
    ) -> Iterator[tuple[tuple[slice, ...], tuple[Tensor, ...]]]:
        """The same from top to bottom, in bands as soon as they are final: (their rows in each map, the rows).

        No window that is still to come looks at a band that was given out, so it may be written over the input.
        """
        whole = Window.whole(size)
        if self.covers(size):
            made = self._made(whole, work, sides)
            yield tuple(slice(0, m.shape[-2]) for m in made), made
        else:
            yield from self._bands(whole, work, sides)

    def _made(self, window: Window, work: Work, sides: tuple[int, ...]) -> tuple[Tensor, ...]:
        while self.covers(window.size):
            try:
                return work(window)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                self._halve(window, error)
        bands = [made for _rows, made in self._bands(window, work, sides)]
        return tuple(torch.cat(column, -2) for column in zip(*bands, strict=True))

    def _bands(
        self, area: Window, work: Work, sides: tuple[int, ...]
    ) -> Iterator[tuple[tuple[slice, ...], tuple[Tensor, ...]]]:
        rows = list(rows_of_windows(area, self.tile))
        carry: list[Tensor] | None = None
        for row, after in zip(rows, [*rows[1:], None], strict=True):
            bands = self._row(row, area, work, sides)
            stop = row[0].rows.stop if after is None else after[0].rows.start
            done = replace(row[0].rows, stop=stop)
            if carry is not None:
                for band, rest in zip(bands, carry, strict=True):
                    band[..., : rest.shape[-2], :] += rest
            rows_done = tuple(done.cells(side) for side in sides)
            heights = [cells.stop - cells.start for cells in rows_done]
            carry = [band[..., height:, :].clone() for band, height in zip(bands, heights, strict=True)]
            yield rows_done, tuple(band[..., :height, :] for band, height in zip(bands, heights, strict=True))

    def _row(self, row: list[Window], area: Window, work: Work, sides: tuple[int, ...]) -> list[Tensor]:
        """The windows of a row, side by side and each times its weights."""
        bands: list[Tensor] = []
        for window in row:
            made = self._made(window, work, sides)
            for i, (part, side) in enumerate(zip(made, sides, strict=True)):
                columns, left = window.columns.cells(side), area.columns.cells(side)
                if len(bands) == i:
                    bands.append(part.new_zeros((*part.shape[:-1], left.stop - left.start)))
                weights = window.rows.weights(side)[:, None] * window.columns.weights(side)
                bands[i][..., columns.start - left.start : columns.stop - left.start] += part * weights.to(part)
        return bands

    def _halve(self, window: Window, error: BaseException) -> None:
        longest = max(window.size)
        if longest <= MIN_TILE:
            raise error
        self.tile = max(MIN_TILE, longest // 2 // ALIGNMENT * ALIGNMENT)
        log.warning("out of memory at %d x %d pixels: going on in tiles of %d", *reversed(window.size), self.tile)


def cut_condition(condition: RetinexCondition, window: Window) -> RetinexCondition:
    """A condition of the whole picture, as the window's own."""
    return RetinexCondition(
        window.cut(condition.reflectance),
        window.cut(condition.illumination),
        cut_features(condition.features, window),
        condition.exposure,
    )


def cut_features(features: Sequence[Tensor], window: Window) -> tuple[Tensor, ...]:
    """ANet's F^1..F^3 of the whole picture under the window."""
    return tuple(window.cut(f, side) for f, side in zip(features, FEATURE_SIDES, strict=True))


def cut_prior(prior: SemanticPrior, window: Window) -> SemanticPrior:
    """The semantic prior of the whole picture where the window is."""
    if window.size == prior.size:
        return prior
    return SemanticPrior(window.sample(prior.probabilities, prior.size, SEMANTIC_SIDE), prior.labels, window.size)


@dataclass
class ConditionOnDemand:
    """A condition too big to keep: made window by window when it is asked for.

    What fits into `cache` bytes is remembered, in half precision, where the picture lies.
    """

    make: Callable[[Window], RetinexCondition]
    store: torch.device
    cache: int = 0
    kept: dict[Window, RetinexCondition] = field(default_factory=dict)

    def window(self, window: Window) -> RetinexCondition:
        if window in self.kept:
            return self.kept[window]
        condition = self.make(window)
        maps = (condition.reflectance, condition.illumination, *condition.features)
        need = sum(2 * m.numel() for m in maps)
        if need <= self.cache:
            self.cache -= need
            self.kept[window] = condition.to(self.store, torch.float16)
        return condition


def ddim_in_tiles(
    tiler: Tiler,
    x_t: Tensor,
    schedule: NoiseSchedule,
    steps: int,
    stage: Stage,
    *,
    like: Tensor,
    eta: float = 0.0,
    generator: torch.Generator | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """Takes x_t (B, 3, H, W) of a picture of any size from noise to x0 in [-1, 1], in place.

    The windows' x_{t-1} are blended; they are linear in x0' and eps, so this blends both. RNet runs before.

    Args:
        stage: the window's own denoise and refine, as in `ddim_step`.
        like: a tensor of the device and dtype that they work with; x_t may lie elsewhere.
        callback: after every window as (steps done, a fraction; steps; None), and after every step with x0', at most
            about PREVIEW pixels wide where the picture is done in tiles. What it raises ends the sampling.
    """
    taus, size = [*schedule.timesteps(steps), -1], tuple(x_t.shape[-2:])
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
