"""Fades from and to black, told from lamps and from cameras that adapt: by how the mean luma of a shot develops.

Levels are mean lumas, 0..1, of the frames of one shot in turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

FLAT = 0.02  # relative change of the mean luma that is still counted as constant within a fade
QUANTUM = 0.25 / 255
DEEP = 0.15  # how dark a fade gets at its dark end, against its bright one
SHARE = 0.5  # of a fade's change that one frame may make: a lamp that is switched makes all of it
STEPS = 3  # frames that a fade takes, at least


@dataclass(frozen=True)
class Fade:
    """Where a frame is in a fade: indices of the darkest and the brightest level of it among those that were given."""

    darkest: int
    brightest: int

    @property
    def rises(self) -> bool:
        return self.darkest < self.brightest


def fade_at(levels: Sequence[float], index: int) -> Fade | None:
    """The fade that the frame `index` is part of, if it is: not the steady light before a fade out or after one in.

    What lies dark before a fade in or after a fade out is part of it.
    """
    level = levels[index]
    for rises in (True, False):
        first, last = _run(levels, index, rises)
        part = levels[first : last + 1]
        darkest, brightest = min(part), max(part)
        if darkest > DEEP * brightest or not _gradual(part, brightest - darkest):
            continue
        fade = Fade(first + part.index(darkest), first + part.index(brightest))
        if fade.rises == rises and level < brightest * (1 - FLAT) - QUANTUM:
            return fade
    return None


def is_switched(levels: Sequence[float], index: int) -> bool:
    """Whether the change of the mean luma from the frame before to this one is larger than a step of a fade: a lamp
    was switched."""
    rises = levels[index] > levels[index - 1]
    first, last = _run(levels, index, rises)
    part = levels[min(first, index - 1) : last + 1]
    return abs(levels[index] - levels[index - 1]) > SHARE * (max(part) - min(part))


def _run(levels: Sequence[float], index: int, rises: bool) -> tuple[int, int]:
    """Indices of the first and last frame of the run around this one in which the mean luma rises (or falls) only."""
    sign = 1 if rises else -1
    first = last = index
    peak = levels[index]
    while last + 1 < len(levels) and sign * levels[last + 1] >= sign * peak - _slack(peak):
        last += 1
        peak = max(peak, levels[last]) if rises else min(peak, levels[last])
    peak = levels[index]
    while first > 0 and sign * levels[first - 1] <= sign * peak + _slack(peak):
        first -= 1
        peak = min(peak, levels[first]) if rises else max(peak, levels[first])
    return first, last


def _slack(level: float) -> float:
    return FLAT * level + QUANTUM


def _gradual(part: Sequence[float], total: float) -> bool:
    steps = [abs(b - a) for a, b in zip(part, part[1:], strict=False)]
    several = sum(step > total / 100 for step in steps) >= STEPS
    return several and total > QUANTUM and max(steps) <= SHARE * total
