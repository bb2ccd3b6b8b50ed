"""Clips: the pipeline frame by frame, in constant memory, without the flicker that independent frames have.

Within a shot the light is steadied first, the gain from dark to bright changes as slowly as a camera's exposure, and
the results are averaged over time where nothing moves. Across a cut nothing is carried over: a frame that is a shot of
its own comes out as a single picture does, bit by bit. In a fade from or to black the light is left as it is, and the
gain is that of the bright end: the result fades as the clip does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice, repeat, takewhile
from math import log

import torch
from torch import Tensor

from .checkpoint import JoReSNets
from .conditions import Keeper
from .diffusion.sampling import Callback
from .imaging.alpha import opaque
from .imaging.exposure import DARKEST, exposure_gain, mean_luma
from .imaging.fades import fade_at, is_switched
from .imaging.guided_filter import worked_size
from .imaging.outlook import REACH, Glance, Outlook, glance_at
from .imaging.temporal import BLACK, LIGHT_STEP, SteadyLight, TemporalFilter, follow, shows_nothing, thumbnail
from .nets.segmentation import Segmenter
from .options import ClipOptions, FinishOptions, SampleOptions
from .pipeline import checked, enhance, finish, wanted_exposure
from .tiling.tiler import Tiler

LOOKAHEAD = 6
"""Frames read ahead of the one that is enhanced: the exposure of a shot's first frames is taken from all of them."""

HELD_BYTES = 40
"""Bytes per pixel that stay on `device` from one frame to the next: the running averages, and the steadied frame."""

GAIN_PACE = 0.1  # share of a change of the wanted gain that one frame follows


@dataclass
class Frame:
    """One frame on its way: (1, 3 or 4, H, W) as it came, later with its light steadied, and its result."""

    original: Tensor
    mask: Tensor | None
    keeper: Keeper
    glance: Glance
    cut: bool  # a shot begins here
    judged: bool = False  # `cut` also knows of lamps
    alone: bool = False  # and ends here
    fading: bool = False
    low: Tensor = field(default_factory=lambda: torch.empty(0))
    picture: Tensor = field(default_factory=lambda: torch.empty(0))


@torch.inference_mode()
def enhance_frames(
    frames: Iterable[Tensor],
    nets: JoReSNets,
    segmenter: Segmenter | None = None,
    options: SampleOptions = SampleOptions(),
    finishing: FinishOptions = FinishOptions(),
    clip: ClipOptions = ClipOptions(),
    *,
    masks: Iterable[Tensor] | None = None,
    callback: Callback | None = None,
) -> Iterator[Tensor]:
    """Dark frames (1, 3 or 4, H, W) in, enhanced ones of the same shape out, one for one, float32 in [0, 1].

    Any number of frames may come: no more than two times LOOKAHEAD + 1 of them are held at any time.

    Args:
        options: the exposure is what the frames of a shot get in the mean.
        masks: one (1, 1, H, W) for each frame, or a single one for all.
        callback: as in `pipeline.enhance`, frame after frame.

    Raises:
        ValueError: fewer masks than frames, and more than one.
    """
    incoming = _with_masks(frames, masks, repeat(Keeper()) if clip.keepers is None else clip.keepers)
    place = _place(nets, options, clip.device)

    def alone(image: Tensor, mask: Tensor | None, keeper: Keeper) -> Tensor:
        return enhance(place(image), nets, segmenter, options, finishing, mask=mask, callback=callback, keeper=keeper)

    if not clip.smooth:
        for frame, mask, keeper in incoming:
            yield alone(frame, mask, keeper)
        return

    def work(frame: Frame, aim: Tensor | None) -> Tensor:
        """A frame by itself is finished here; the others are mixed with their originals once they are steady."""
        if frame.alone:
            return alone(frame.original, frame.mask, frame.keeper)
        if aim is not None:
            frame.keeper.told(aim)
        aimed = replace(options, exposure=aim, brightness=0.0)
        return enhance(place(frame.low), nets, segmenter, aimed, callback=callback)

    ahead = frames if clip.ahead is None and isinstance(frames, Sequence) else clip.ahead
    lit = _lit(_tagged(incoming), Outlook(ahead), nets, options, place, work)
    steady = TemporalFilter()
    for frame, following, _ in _with_following(lit):
        if frame.alone:
            yield frame.picture
            continue
        if frame.cut or frame.fading:
            steady = TemporalFilter()
            for later in reversed(following):  # as above: the first frame is as steady as the later ones
                if not (frame.fading or later.fading):
                    steady(place(later.low), place(later.picture))
        picture = steady(place(frame.low), place(frame.picture))
        yield finish(picture * 2 - 1, place(frame.original), finishing, mask=frame.mask)


def _place(nets: JoReSNets, options: SampleOptions, device: torch.device | str | None) -> Callable[[Tensor], Tensor]:
    """Moves a frame or its result to the device where full frames are processed, decided once for each size."""
    whole: dict[tuple[int, int], bool] = {}

    def place(frame: Tensor) -> Tensor:
        size = (frame.shape[-2], frame.shape[-1])
        if device is None or worked_size(size, options.working_size) != size:
            return frame
        if size not in whole:
            whole[size] = Tiler.choose(options.tile, nets.config, frame, torch.device(device)).covers(size)
        return frame.to(device) if whole[size] else frame

    return place


def _with_masks(
    frames: Iterable[Tensor], masks: Iterable[Tensor] | None, keepers: Iterable[Keeper]
) -> Iterator[tuple[Tensor, Tensor | None, Keeper]]:
    """Each frame with its mask, of which a single one serves all, and with what keeps its results."""
    if masks is None:
        yield from ((frame, None, keeper) for frame, keeper in zip(frames, keepers, strict=False))
        return
    given, mask, single = iter(masks), None, False
    for count, (frame, keeper) in enumerate(zip(frames, keepers, strict=False)):
        following = None if single else next(given, None)
        if following is None:
            if count != 1 and not single:
                raise ValueError(f"masks: {count} for more frames than that: give one for each, or a single one")
            following, single = mask, True
        mask = following
        yield frame, mask, keeper


def _tagged(incoming: Iterable[tuple[Tensor, Tensor | None, Keeper]]) -> Iterator[Frame]:
    before = None
    for frame, mask, keeper in incoming:
        before = glance_at(before, checked(frame))
        yield Frame(frame, mask, keeper, before, before.cut)


def _lit(
    frames: Iterator[Frame],
    outlook: Outlook,
    nets: JoReSNets,
    options: SampleOptions,
    place: Callable[[Tensor], Tensor],
    work: Callable[[Frame, Tensor | None], Tensor],
) -> Iterator[Frame]:
    """Steadies the illumination and the gain of each shot, and enhances its frames."""
    light, gain = SteadyLight(), None
    past: deque[float] = deque(maxlen=REACH)

    def wanted(low: Tensor) -> Tensor:
        if shows_nothing(thumbnail(low)):  # a noisy leader stays black, or it would flash before the first cut
            return torch.ones(1, device=low.device)
        aim = wanted_exposure(nets, low, options.exposure, options.brightness)
        return exposure_gain(mean_luma(low), aim.to(low.device))

    for number, (frame, following, last) in enumerate(_with_following(frames)):
        after = outlook.after([f.glance for f in following])
        shot = _judged(frame, following, past, after)
        frame.alone = frame.cut and not shot and (not frame.glance.empty or (last and not number))
        if frame.alone:
            frame.picture = work(frame, None)
            yield frame
            continue
        low = _rgb(frame, place)
        if frame.cut:
            light, gain = SteadyLight(), None
        levels = [*past, frame.glance.level, *(g.level for g in after)]
        here = len(past)
        fade = fade_at(levels, here)
        past.append(frame.glance.level)
        if fade is not None:
            frame.fading = True
            if fade.rises or gain is None:
                end = fade.brightest - here
                gain = wanted((after[end - 1].thumbnail if end > 0 else frame.glance.thumbnail).to(low.device))
            light.restart(low)
        else:
            if frame.cut:
                still = [f for i, f in enumerate((frame, *shot)) if fade_at(levels, here + i) is None]
                gain = _settle(light, still, wanted, place)
            low = light(low)
            # Not the exposure itself: when a lamp enters the picture, the rest of it should stay as bright as it was.
            gain = follow(gain, wanted(low), GAIN_PACE)
        frame.low = low.to(frame.original.device)
        frame.picture = work(frame, (gain * mean_luma(low)).clamp(DARKEST, 1)).to(frame.low.device)
        yield frame


def _settle(
    light: SteadyLight, shot: list[Frame], wanted: Callable[[Tensor], Tensor], place: Callable[[Tensor], Tensor]
) -> Tensor:
    """Starts the steadied illumination at the mean of a shot's first frames; returns their mean gain (1,). Only one of
    them at a time is on the device.
    """
    for later in reversed(shot[1:]):  # backwards, so that the first frame does not set the level by itself
        light(_rgb(later, place))
    return torch.stack([wanted(_rgb(frame, place)).log() for frame in shot]).mean(0).exp()


def _judged(frame: Frame, following: list[Frame], past: deque[float], after: list[Glance]) -> list[Frame]:
    """The later frames of a frame's shot. Decides of it, and of the next one for good, if a lamp was switched there."""
    if frame.cut:
        past.clear()
    shot = [frame, *following]
    levels = [*past, frame.glance.level, *(g.level for g in after)]
    here = len(past)
    for number, later in enumerate(shot):
        place = here + number
        if later.cut and number:
            return shot[1:number]
        if not later.judged and not later.cut and 0 < place < len(levels):
            ratio = (levels[place] + BLACK) / (levels[place - 1] + BLACK)
            switched = abs(log(ratio)) > LIGHT_STEP and is_switched(levels, place)
            if number < 2:
                later.cut, later.judged = switched, True
            if switched and number == 0:
                past.clear()
            elif switched:
                return shot[1:number]
    return following


def _rgb(frame: Frame, place: Callable[[Tensor], Tensor]) -> Tensor:
    return opaque(place(frame.original).float()).clamp(0, 1)


def _with_following(frames: Iterator[Frame]) -> Iterator[tuple[Frame, list[Frame], bool]]:
    """Each frame with up to LOOKAHEAD later ones of its shot, and whether it is the clip's last."""
    queue = deque(islice(frames, LOOKAHEAD + 1))
    while queue:
        frame = queue.popleft()
        yield frame, list(takewhile(lambda later: not later.cut, queue)), not queue
        queue.extend(islice(frames, 1))
