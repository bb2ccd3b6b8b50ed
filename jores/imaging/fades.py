"""Detects fades from and to black by the mean luma of a shot's frames.

It distinguishes them from switched lamps and from automatic exposure. Levels are the mean lumas, 0..1, of successive
frames of one shot.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

FLAT = 0.02  # relative change of the mean luma that counts as constant within a fade
QUANTUM = 0.25 / 255  # the same, absolute
DEEP = 0.15  # largest ratio of a fade's darkest level to its brightest one
SHARE = 0.5  # largest share of a fade's change in one frame; a switched lamp changes everything in one frame
STEPS = 3  # smallest number of changing frames in a fade


@dataclass(frozen=True)
class Fade:
    """A fade: the indices of its darkest and its brightest level in the given sequence."""

    darkest: int
    brightest: int

    @property
    def rises(self) -> bool:
        """Whether it is a fade in."""
        return self.darkest < self.brightest


def fade_at(levels: Sequence[float], index: int) -> Fade | None:
    """The fade that contains frame `index`, or None.

    Dark frames before a fade in or after a fade out belong to the fade; steady bright frames after a fade in or before
    a fade out do not.
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
    """Whether a lamp was switched: the level changes more from frame `index` - 1 to `index` than in a fade."""
    rises = levels[index] > levels[index - 1]
    first, last = _run(levels, index, rises)
    part = levels[min(first, index - 1) : last + 1]
    return abs(levels[index] - levels[index - 1]) > SHARE * (max(part) - min(part))


def _run(levels: Sequence[float], index: int, rises: bool) -> tuple[int, int]:
    """First and last index of the longest sequence around `index` whose levels only rise (or only fall)."""
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
