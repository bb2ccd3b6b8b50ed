"""What is known of a clip's frames before they are enhanced: how bright they are, and where scenes change."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice, takewhile

from torch import Tensor

from .alpha import opaque
from .exposure import mean_luma
from .temporal import is_other_scene, shows_nothing, thumbnail

REACH = 64
"""Frames, before and after the one that is enhanced, over which a fade is followed: of these, thumbnails are held."""


@dataclass
class Glance:
    """What is known of a frame at once: its thumbnail, its mean luma, whether it shows another scene than the frame
    before, and whether it is black but for noise."""

    thumbnail: Tensor
    level: float
    cut: bool
    empty: bool


def glance_at(before: Glance | None, frame: Tensor) -> Glance:
    small = thumbnail(opaque(frame)).clamp(0, 1)
    cut = before is None or is_other_scene(before.thumbnail, small)
    return Glance(small, float(mean_luma(small)), cut, shows_nothing(small))


@dataclass
class Outlook:
    """What comes behind a frame, from a second look at the clip that runs ahead."""

    frames: Iterable[Tensor] | None
    known: deque[Glance] = field(default_factory=deque)  # the first one is that of the frame that is asked for

    def __post_init__(self) -> None:
        self.coming = None if self.frames is None else iter(self.frames)

    def after(self, near: list[Glance]) -> list[Glance]:
        """What is known of the later frames of the shot; `near`: of those that are held. Once for each frame."""
        if self.coming is None:
            return near
        if self.known:
            self.known.popleft()
        for frame in islice(self.coming, REACH + 1 - len(self.known)):
            self.known.append(glance_at(self.known[-1] if self.known else None, frame))
        return list(takewhile(lambda later: not later.cut, islice(self.known, 1, None)))
