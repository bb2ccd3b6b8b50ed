"""Black bars beside a picture, as in letterboxed films: they are no part of the photograph.

Bars would be lifted to grey, and they would make the picture count as darker than it is. So their pixels are treated as
transparent ones (see `alpha`), and keep their colours. A picture of nothing but zeros is all bar: there is no light in
it that could be lifted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

BLACK = 2.5 / 255  # largest R, G or B of a black pixel: files of lossy codecs are off by two levels
ALL = 0.98  # share of the pixels of a line that must be black, because bars hold specks
LEAST = 0.01  # width of a bar, as a share of the side; and 2 pixels
BLOCK = 16  # px; the last lines of a bar are soiled by the codec's blocks that hold the edge
LIT = 0.3  # share of the pixels beyond the edge that are not black
KEPT = 0.8  # share of the bars that must still be black in later frames of a clip, where subtitles may cross them
SAMPLES = 512  # of a line of a picture, about as many pixels are looked at
BAND = 128  # lines that are looked at at a time


@dataclass(frozen=True)
class Inside:
    """The part of a picture of `size` (H, W) between its black bars."""

    rows: slice
    columns: slice
    size: tuple[int, int]

    @property
    def whole(self) -> bool:
        """Whether there are no bars."""
        return (self.rows, self.columns) == tuple(slice(0, n) for n in self.size)

    @property
    def empty(self) -> bool:
        """Whether there is nothing but bar."""
        return self.rows.stop == 0

    def cut(self, x: Tensor) -> Tensor:
        """Crop of (..., H, W); a view."""
        return x[..., self.rows, self.columns]

    def mask(self) -> Tensor:
        """True inside, (1, 1, H, W) bool."""
        mask = torch.zeros((1, 1, *self.size), dtype=torch.bool)
        self.cut(mask).fill_(True)
        return mask


def inside_of(image: Tensor) -> Inside:
    """Finds the black bars of a picture (1, 3 or 4, H, W).

    They are found in pairs, above and below or left and right, of nearly the same width, and only where the picture
    begins all along an edge: a black sky or a black table is none. Pictures with transparent pixels have none, because
    their hidden colours must not decide. In a picture of zeros alone nothing is inside.
    """
    height, width = size = (image.shape[-2], image.shape[-1])
    if image.is_meta or bool((image[:, 3:] < 1).any()):  # a meta tensor has a size alone
        return Inside(slice(0, height), slice(0, width), size)
    lines = _Lines.of(image[0, :3])
    if bool((lines.black == 1).all()) and bool(image[:, :3].amax() <= 0):  # samples tell nearly all pictures from it
        return Inside(slice(0, 0), slice(0, 0), size)
    rows = _without_bars(lines)
    return Inside(rows, _without_bars(_Lines.of(image[0, :3, rows].transpose(1, 2))), size)


def inside_in_turn(before: Inside | None, frame: Tensor) -> Inside:
    """As `inside_of`, for a frame (1, 3 or 4, H, W) of a clip; `before` is that of the previous frame.

    A dark frame shows no edge, and subtitles cross a bar. So bars stay as they were found as long as they are black.
    """
    if before is None or before.whole or before.empty or before.size != tuple(frame.shape[-2:]):
        return inside_of(frame)
    black = frame[:, :3].amax(1) <= BLACK
    within = before.cut(black)
    still = black.sum() - within.sum() >= KEPT * (black.numel() - within.numel())
    return before if bool(still) else inside_of(frame)


def insides_of(images: Tensor) -> list[Inside]:
    """`inside_of` each of (B, 3 or 4, H, W) pictures."""
    return [inside_of(one) for one in images.split(1)]


def mask_of(insides: Sequence[Inside]) -> Tensor | None:
    """True inside, (B, 1, H, W) bool on the processor, for B pictures of one size; None if none of them has bars."""
    return None if all(inside.whole for inside in insides) else torch.cat([inside.mask() for inside in insides])


@dataclass(frozen=True)
class _Lines:
    """For every line of a picture the share of its pixels that are black, and the median of their largest channel."""

    black: Tensor
    level: Tensor

    @classmethod
    def of(cls, image: Tensor) -> _Lines:
        """The rows of (3, H, W), some at a time, because results for all of a big picture would fill the memory."""
        part = image[..., :: max(1, image.shape[-1] // SAMPLES)]
        peaks = [rows.amax(0).float() for rows in part.split(BAND, 1)]
        black = torch.cat([(p <= BLACK).float().mean(1) for p in peaks])
        return cls(black, torch.cat([p.median(1).values for p in peaks]))

    def backwards(self) -> _Lines:
        return _Lines(self.black.flip(0), self.level.flip(0))


def _without_bars(lines: _Lines) -> slice:
    """The lines between two bars; all of them if there is none."""
    length = len(lines.black)
    ends = [_edge(lines), _edge(lines.backwards())]
    least = max(2, round(LEAST * length))
    if min(ends) < least or abs(ends[0] - ends[1]) > max(2, min(ends) // 10):
        return slice(0, length)
    return slice(ends[0], length - ends[1])


def _edge(lines: _Lines) -> int:
    """Width of the bar that begins with the first line; 0 if there is none, or if it ends without an edge."""
    lit = (lines.black < ALL).nonzero()
    first = int(lit[0]) if len(lit) else 0
    if not first:
        return 0
    # The codec's dirt covers parts of a line, the picture begins along all of it.
    levels = lines.level[first - 1 : first + BLOCK]
    edge = first + int(levels.diff().argmax()) if len(levels) > 1 else first
    beyond = lines.black[edge : edge + BLOCK // 4]
    return edge if float(1 - beyond.mean()) >= LIT else 0
