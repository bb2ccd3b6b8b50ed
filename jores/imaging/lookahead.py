"""Lookahead: brightness and scene cuts of frames that are not enhanced yet."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice, takewhile

from torch import Tensor

from .alpha import opaque
from .bars import Inside, inside_in_turn
from .exposure import mean_luma
from .temporal import frame_thumbnail, is_black, is_other_scene

REACH = 64
"""Frames before and after the present one that are searched for a fade. Only their thumbnails are held."""


@dataclass
class FrameSummary:
    """Summary of a frame.

    Attributes:
        thumbnail: see `temporal.frame_thumbnail`, in [0, 1].
        level: mean luma, 0..1.
        cut: the frame shows another scene than the frame before, has another size, or is the first one.
        black: the frame is black apart from noise.
        inside: the part of the frame between black bars.
    """

    thumbnail: Tensor
    level: float
    cut: bool
    black: bool
    inside: Inside


def summarise(before: FrameSummary | None, frame: Tensor) -> FrameSummary:
    """Summary of a frame (1, 3 or 4, H, W) in [0, 1]; `before` is that of the previous frame, None for the first."""
    inside = inside_in_turn(before and before.inside, frame)
    small = frame_thumbnail(opaque(frame, [inside])).clamp(0, 1)
    cut = before is None or before.inside.size != inside.size or is_other_scene(before.thumbnail, small)
    return FrameSummary(small, float(mean_luma(small)), cut, is_black(small), inside)


@dataclass
class Lookahead:
    """Summaries of later frames, from a second pass over the clip (`frames`) that runs ahead of the first."""

    frames: Iterable[Tensor] | None
    known: deque[FrameSummary] = field(default_factory=deque)  # the first entry is the present frame

    def __post_init__(self) -> None:
        self.coming = None if self.frames is None else iter(self.frames)

    def after(self, near: list[FrameSummary]) -> list[FrameSummary]:
        """Summaries of the later frames of the shot, at most REACH. Call it exactly once per frame.

        Without a second pass it returns `near`, the summaries of the frames that are read already.
        """
        if self.coming is None:
            return near
        if self.known:
            self.known.popleft()
        for frame in islice(self.coming, REACH + 1 - len(self.known)):
            self.known.append(summarise(self.known[-1] if self.known else None, frame))
        return list(takewhile(lambda later: not later.cut, islice(self.known, 1, None)))
