"""Processes big pictures in limited memory, window by window.

Global statistics, noise and the semantic prior are computed once for the full picture and cropped to the windows. The
results of the windows are blended at every diffusion step, so the next step starts from a picture without seams.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..limits import MIN_TILE
from ..out_of_memory import is_out_of_memory
from .windows import ALIGNMENT, Window, rows_of_windows

log = logging.getLogger(__name__)

Work = Callable[[Window], tuple[Tensor, ...]]


@dataclass
class Tiler:
    """Applies a function to windows of at most `tile` x `tile` pixels and blends the results.

    With `tile` 0 there is a single window, the full picture. When memory runs out, `tile` is halved permanently and the
    present window is repeated in smaller parts. So use the same Tiler for all stages of a picture.

    Raises:
        ValueError: `tile` is neither 0 nor at least MIN_TILE.
    """

    tile: int = 0

    def __post_init__(self) -> None:
        if self.tile and self.tile < MIN_TILE:
            raise ValueError(f"tile must be 0 or at least {MIN_TILE} pixels, not {self.tile}")

    def covers(self, size: tuple[int, int]) -> bool:
        """Whether one window covers a picture of this size (H, W)."""
        return not self.tile or max(size) <= self.tile

    def windows(self, size: tuple[int, int]) -> int:
        """Number of windows for a picture of this size (H, W)."""
        return len(self.layout(size))

    def layout(self, size: tuple[int, int]) -> frozenset[Window]:
        """The windows for a picture of this size (H, W), with the present `tile`."""
        return _layout(size, 0 if self.covers(size) else self.tile)

    def run(self, size: tuple[int, int], work: Work, strides: tuple[int, ...] = (1,)) -> tuple[Tensor, ...]:
        """Applies `work` to every window of a picture of this size (H, W), and returns the blended maps.

        Args:
            work: from a window to one tensor (B, C, h, w) per entry of `strides`.
            strides: of these tensors (see `windows`): 1, or a divisor of 16 for a map of the padded window.

        Raises:
            The exceptions of `work`; out of memory only if the tile cannot be halved any more.
        """
        return self._made(Window.whole(size), work, strides)

    def bands(
        self, size: tuple[int, int], work: Work, strides: tuple[int, ...] = (1,)
    ) -> Iterator[tuple[tuple[slice, ...], tuple[Tensor, ...]]]:
        """As `run`, but yields horizontal bands from top to bottom: (rows of the band in each map, maps of the band).

        Later windows do not read the rows of a yielded band, so it may overwrite the input.
        """
        whole = Window.whole(size)
        if self.covers(size):
            made = self._made(whole, work, strides)
            yield tuple(slice(0, m.shape[-2]) for m in made), made
        else:
            yield from self._bands(whole, work, strides)

    def _made(self, window: Window, work: Work, strides: tuple[int, ...]) -> tuple[Tensor, ...]:
        while self.covers(window.size):
            try:
                return work(window)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                self._halve(window, error)
        bands = [made for _rows, made in self._bands(window, work, strides)]
        return tuple(torch.cat(column, -2) for column in zip(*bands, strict=True))

    def _bands(
        self, area: Window, work: Work, strides: tuple[int, ...]
    ) -> Iterator[tuple[tuple[slice, ...], tuple[Tensor, ...]]]:
        rows = list(rows_of_windows(area, self.tile))
        carry: list[Tensor] | None = None
        for row, after in zip(rows, [*rows[1:], None], strict=True):
            bands = self._row(row, area, work, strides)
            stop = row[0].rows.stop if after is None else after[0].rows.start
            done = replace(row[0].rows, stop=stop)
            if carry is not None:
                for band, rest in zip(bands, carry, strict=True):
                    band[..., : rest.shape[-2], :] += rest
            rows_done = tuple(done.positions(stride) for stride in strides)
            heights = [positions.stop - positions.start for positions in rows_done]
            carry = [band[..., height:, :].clone() for band, height in zip(bands, heights, strict=True)]
            yield rows_done, tuple(band[..., :height, :] for band, height in zip(bands, heights, strict=True))

    def _row(self, row: list[Window], area: Window, work: Work, strides: tuple[int, ...]) -> list[Tensor]:
        """The weighted sum over the windows of one row, for each map."""
        bands: list[Tensor] = []
        for window in row:
            made = self._made(window, work, strides)
            for i, (part, stride) in enumerate(zip(made, strides, strict=True)):
                columns, left = window.columns.positions(stride), area.columns.positions(stride)
                if len(bands) == i:
                    bands.append(part.new_zeros((*part.shape[:-1], left.stop - left.start)))
                weights = window.rows.weights(stride)[:, None] * window.columns.weights(stride)
                bands[i][..., columns.start - left.start : columns.stop - left.start] += part * weights.to(part)
        return bands

    def _halve(self, window: Window, error: BaseException) -> None:
        longest = max(window.size)
        if longest <= MIN_TILE:
            raise error
        self.tile = max(MIN_TILE, longest // 2 // ALIGNMENT * ALIGNMENT)
        log.warning(
            "out of memory at %d x %d pixels: continuing with tiles of %d pixels", *reversed(window.size), self.tile
        )


@functools.lru_cache(maxsize=4)
def _layout(size: tuple[int, int], tile: int) -> frozenset[Window]:
    whole = Window.whole(size)
    return frozenset(w for row in rows_of_windows(whole, tile) for w in row) if tile else frozenset({whole})
