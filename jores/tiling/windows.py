"""Overlapping windows that cover a picture, and the weights by which their results are blended.

Along each axis all windows have one size and begin at multiples of ALIGNMENT. In the middle of an overlap the weight
moves smoothly from one window to the next. Near its border a net sees less of the surroundings than in training, so the
result there gets the weight 0.

A map of stride s is the picture reduced by the factor s: one of its positions (cells) covers s x s pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

ALIGNMENT = 16
"""Pixels. The coarsest maps have stride 16: from a multiple of 16 on, a window begins at a position of every map."""
MIN_TILE = 64
OVERLAP = 64


def size_of(x: Tensor) -> tuple[int, int]:
    """(H, W) of a (..., H, W) tensor."""
    return x.shape[-2], x.shape[-1]


@dataclass(frozen=True)
class Span:
    """A window along one axis: pixels [start, stop). `rise`, `fall`: where the weight goes up to 1, and down to 0."""

    start: int
    stop: int
    rise: tuple[float, float] | None = None
    fall: tuple[float, float] | None = None

    def __len__(self) -> int:
        return self.stop - self.start

    def positions(self, stride: int) -> slice:
        """The positions of the span in a map of this stride, made of the picture padded to a multiple of ALIGNMENT."""
        return slice(self.start // stride, (self.stop if stride == 1 else _up(self.stop)) // stride)

    def weights(self, stride: int = 1) -> Tensor:
        """(positions,) in [0, 1]. At every position the weights of all spans sum to 1."""
        positions = self.positions(stride)
        centres = (torch.arange(positions.start, positions.stop, dtype=torch.float32) + 0.5) * stride
        risen = _ramp(centres, self.rise) if self.rise else torch.ones_like(centres)
        return risen - _ramp(centres, self.fall) if self.fall else risen


@dataclass(frozen=True)
class Window:
    """A rectangle of the picture; its top left corner lies at multiples of ALIGNMENT."""

    rows: Span
    columns: Span

    @classmethod
    def whole(cls, size: tuple[int, int]) -> Window:
        return cls(Span(0, size[0]), Span(0, size[1]))

    @property
    def size(self) -> tuple[int, int]:
        return len(self.rows), len(self.columns)

    def cut(self, x: Tensor, stride: int = 1) -> Tensor:
        """The view of (..., H, W), or of a map of this stride, under the window."""
        return x[..., self.rows.positions(stride), self.columns.positions(stride)]

    def sample(self, coarse: Tensor, size: tuple[int, int], stride: int) -> Tensor:
        """The part under the window of a map (B, C, h, w) of any size that covers a picture of `size`.

        Bilinear, at the positions of a map of this stride. The result is the same as resizing the map to that
        stride and cutting it; but 150 classes at that size take too much memory.
        """
        for dim, (span, length) in enumerate(zip((self.rows, self.columns), size, strict=True), start=2):
            positions, count = span.positions(stride), coarse.shape[dim]
            total = (length if stride == 1 else _up(length)) // stride
            at = (torch.arange(positions.start, positions.stop, dtype=torch.float64) + 0.5) * (count / total) - 0.5
            at = at.clamp(0, count - 1)
            low = at.floor().long()
            part = (at - low).to(coarse).view(-1, *(1,) * (3 - dim))
            low, high = low.to(coarse.device), (low + 1).clamp(max=count - 1).to(coarse.device)
            coarse = torch.lerp(coarse.index_select(dim, low), coarse.index_select(dim, high), part)
        return coarse


def spans(start: int, stop: int, tile: int) -> list[Span]:
    """The fewest spans of at most `tile` pixels that cover [start, stop); `start` is a multiple of ALIGNMENT.

    The spans are as short as possible: 1500 pixels in tiles of at most 1024 become two spans of 816.
    """
    length = stop - start
    if length <= tile:
        return [Span(start, stop)]
    tile = tile // ALIGNMENT * ALIGNMENT
    overlap = overlap_of(tile)
    count = -(-(length - overlap) // (tile - overlap))
    side = _up(-(-(length + (count - 1) * overlap) // count))
    last = _up(length - side) // ALIGNMENT
    starts = [start + i * last // (count - 1) * ALIGNMENT for i in range(count)]
    # The ramp between two neighbours: half of their overlap, in its middle.
    ramps = []
    for before, after in zip(starts, starts[1:], strict=False):
        middle = (after + before + side) / 2
        ramps.append((middle - overlap / 4, middle + overlap / 4))
    bounds = [None, *ramps, None]
    return [Span(s, min(s + side, stop), bounds[i], bounds[i + 1]) for i, s in enumerate(starts)]


def rows_of_windows(area: Window, tile: int) -> Iterator[list[Window]]:
    """The windows of at most `tile` pixels a side that cover `area`, row by row from the top."""
    columns = spans(area.columns.start, area.columns.stop, tile)
    for row in spans(area.rows.start, area.rows.stop, tile):
        yield [Window(row, column) for column in columns]


def overlap_of(tile: int) -> int:
    """Pixels that neighbours share at least: OVERLAP, for small tiles half of them."""
    return min(OVERLAP, tile // 2 // ALIGNMENT * ALIGNMENT)


def _up(length: int) -> int:
    return -(-length // ALIGNMENT) * ALIGNMENT


def _ramp(x: Tensor, between: tuple[float, float]) -> Tensor:
    """0 before, 1 after, smoothstep between."""
    t = ((x - between[0]) / (between[1] - between[0])).clamp(0, 1)
    return t * t * (3 - 2 * t)
