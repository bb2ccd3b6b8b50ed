"""Clips: runs the pipeline frame by frame, in constant memory, and reduces flicker.

Within a shot, the illumination is steadied first, the gain from dark to bright changes slowly, and the results are
averaged over time where nothing moves. Nothing is carried over a cut: a shot of a single frame gives the same result,
bit by bit, as a single picture. In a fade from or to black the illumination is left unchanged and the gain is that of
the bright end, so the result fades as the clip does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import cycle, islice, repeat, takewhile
from math import log

import torch
from torch import Tensor

from .budget import choose_tiler
from .checkpoint import JoReSNets
from .conditions import Keeper
from .diffusion.sampling import Callback
from .imaging.alpha import opaque
from .imaging.exposure import DARKEST, exposure_gain, mean_luma
from .imaging.fades import fade_at, is_switched
from .imaging.lookahead import REACH, FrameSummary, Lookahead, summarise
from .imaging.resize import reduced_size
from .imaging.temporal import (
    LIGHT_STEP,
    LOG_FLOOR,
    SteadyIllumination,
    TemporalFilter,
    follow,
    frame_thumbnail,
    is_black,
)
from .nets.segmentation import Segmenter
from .options import ClipOptions, FinishOptions, SampleOptions
from .picture_statistics import check_exposure, wanted_exposure
from .pipeline import Setup, checked, enhance_by, finish
from .retinex import as_decomposed

LOOKAHEAD = 6
"""Frames that are read ahead. A shot starts with the mean gain of its first LOOKAHEAD + 1 frames."""

HELD_BYTES = 40
"""Bytes per pixel that stay on the device between frames: the running averages and the steadied frame."""

GAIN_PACE = 0.1  # share of a change of the gain that one frame follows


@dataclass
class Frame:
    """State of one frame: the original (1, 3 or 4, H, W), the steadied frame `low`, and its result `picture`."""

    original: Tensor
    mask: Tensor | None
    keeper: Keeper
    summary: FrameSummary
    cut: bool  # a shot begins with this frame
    judged: bool = False  # `cut` is final: switched lamps are considered, too
    alone: bool = False  # the shot has no other frame
    fading: bool = False
    low: Tensor = field(default_factory=lambda: torch.empty(0))
    picture: Tensor = field(default_factory=lambda: torch.empty(0))


@torch.no_grad()
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
    """Enhances frames (1, 3 or 4, H, W) in [0, 1] one by one; yields results of the same shape, float32 in [0, 1].

    At most 2 * (LOOKAHEAD + 1) frames are held at a time, however long the clip is.

    Args:
        options: its exposure is the mean over the frames of a shot.
        masks: one (1, 1, H, W) for each frame, or a single one for all; of `cycle` and `repeat` as many as are needed.
        callback: as in `pipeline.enhance`, frame after frame.

    Raises:
        ValueError: the number of masks is neither 1 nor that of the frames, which may show at the end; there are
            fewer keepers than frames; or as `pipeline.enhance`.
    """
    check_exposure(options.exposure, 1)
    incoming = _with_masks(frames, masks, repeat(Keeper()) if clip.keepers is None else clip.keepers)
    place = _place(nets, options, clip)
    work = _Work(Setup(nets, segmenter, callback, tiler=clip.tiler), options, finishing, place)
    if not clip.smooth:
        yield from (work.alone(*given) for given in incoming)
        return
    ahead = frames if clip.ahead is None and isinstance(frames, Sequence) else clip.ahead
    lit = _lit(_tagged(incoming), Lookahead(ahead), work)
    for frame in _averaged(lit, place):
        if frame.alone:
            yield frame.picture
            continue
        inside = frame.summary.inside
        yield finish(frame.picture * 2 - 1, place(frame.original), finishing, mask=frame.mask, insides=[inside])


@dataclass(frozen=True)
class _Work:
    """What one frame is enhanced by; `place` moves it to the device if it fits."""

    setup: Setup
    options: SampleOptions
    finishing: FinishOptions
    place: Callable[[Tensor], Tensor]

    def alone(self, image: Tensor, mask: Tensor | None, keeper: Keeper) -> Tensor:
        """The result of a frame that has no others in its shot: that of a picture."""
        return enhance_by(replace(self.setup, keeper=keeper), self.place(image), self.options, self.finishing, mask)

    def aimed(self, frame: Frame, aim: Tensor) -> Tensor:
        """A steadied frame at the exposure `aim` (1,), not yet composited: that comes after the temporal average."""
        frame.keeper.on_exposure(aim)
        steadied = self.options.exposure is None and not self.options.brightness and not frame.fading
        options = replace(self.options, exposure=aim, brightness=0.0, steadied=steadied)
        return enhance_by(self.setup, self.place(frame.low), options)

    def wanted_gain(self, low: Tensor) -> Tensor:
        """Gain (1,) from a dark frame to the exposure that it should get."""
        if is_black(frame_thumbnail(low)):  # a black leader stays black: its noise would flash before the first cut
            return torch.ones(1, device=low.device)
        nets, options = self.setup.nets, self.options
        aim = wanted_exposure(nets, as_decomposed(nets, low), options.exposure, options.brightness)
        return exposure_gain(mean_luma(low), aim.to(low.device))


def _place(nets: JoReSNets, options: SampleOptions, clip: ClipOptions) -> Callable[[Tensor], Tensor]:
    """A function that moves frames to the clip's device if those of that size fit into one window.

    It is decided once per size.
    """
    fits: dict[tuple[int, int], bool] = {}
    device = clip.device

    def place(frame: Tensor) -> Tensor:
        size = (frame.shape[-2], frame.shape[-1])
        if device is None or reduced_size(size, options.working_size) != size:
            return frame
        if size not in fits:
            tiler = clip.tiler or choose_tiler(options.tile, nets.config, frame, torch.device(device))
            fits[size] = tiler.covers(size)
        return frame.to(device) if fits[size] else frame

    return place


def _with_masks(
    frames: Iterable[Tensor], masks: Iterable[Tensor] | None, keepers: Iterable[Keeper]
) -> Iterator[tuple[Tensor, Tensor | None, Keeper]]:
    """Each frame with its mask and its keeper. A single mask is used for all frames."""
    if masks is None:
        yield from ((frame, None, keeper) for frame, keeper in _with_keepers(frames, keepers))
        return
    given, mask, single, count = iter(masks), None, False, -1
    for count, (frame, keeper) in enumerate(_with_keepers(frames, keepers)):
        following = None if single else next(given, None)
        if following is None:
            if count != 1 and not single:
                raise ValueError(f"masks: {count} for more frames than that: give one mask per frame, or a single one")
            following, single = mask, True
        mask = following
        yield frame, mask, keeper
    endless = isinstance(masks, cycle | repeat)
    if count >= 0 and not endless and next(given, None) is not None:
        raise ValueError("masks: more than frames: give one mask per frame, or a single one")


def _with_keepers(frames: Iterable[Tensor], keepers: Iterable[Keeper]) -> Iterator[tuple[Tensor, Keeper]]:
    kept = iter(keepers)
    for count, frame in enumerate(frames):
        keeper = next(kept, None)
        if keeper is None:
            raise ValueError(f"keepers: {count} for more frames than that: give one per frame")
        yield frame, keeper


def _tagged(incoming: Iterable[tuple[Tensor, Tensor | None, Keeper]]) -> Iterator[Frame]:
    before = None
    for frame, mask, keeper in incoming:
        before = summarise(before, checked(frame))
        yield Frame(frame, mask, keeper, before, before.cut)


def _lit(frames: Iterator[Frame], lookahead: Lookahead, work: _Work) -> Iterator[Frame]:
    """Steadies the illumination and the gain of each shot, and enhances its frames."""
    light, past = _ShotLight(work), deque[float](maxlen=REACH)
    for number, (frame, following, last) in enumerate(_with_following(frames)):
        after = lookahead.after([f.summary for f in following])
        shot = _judged(frame, following, past, after)
        frame.alone = frame.cut and not shot and (not frame.summary.black or (last and not number))
        if frame.alone:
            frame.picture = work.alone(frame.original, frame.mask, frame.keeper)
        else:
            frame.low, aim = light(frame, shot, past, after)
            past.append(frame.summary.level)
            frame.picture = work.aimed(frame, aim).to(frame.low.device)
        yield frame


class _ShotLight:
    """Steadies the illumination and the gain from dark to bright, over the frames of one shot after the other."""

    def __init__(self, work: _Work) -> None:
        self.work = work
        self.illumination = SteadyIllumination()
        self.gain: Tensor | None = None

    def __call__(
        self, frame: Frame, shot: list[Frame], past: Collection[float], after: list[FrameSummary]
    ) -> tuple[Tensor, Tensor]:
        """The frame (1, 3, H, W) with steadied illumination, and the exposure (1,) to aim at.

        `shot`: later frames of its shot; `past` and `after`: levels and summaries of those before and after it.
        """
        low = _rgb(frame, self.work.place)
        if frame.cut:
            self.illumination, self.gain = SteadyIllumination(), None
        levels, here = [*past, frame.summary.level, *(later.level for later in after)], len(past)
        fade = fade_at(levels, here)
        frame.fading = fade is not None
        if fade is not None:
            if fade.rises or self.gain is None:
                end = fade.brightest - here
                bright = after[end - 1].thumbnail if end > 0 else frame.summary.thumbnail
                self.gain = self.work.wanted_gain(bright.to(low.device))
            self.illumination.restart(low)
        else:
            if frame.cut:
                self._settle([f for i, f in enumerate((frame, *shot)) if fade_at(levels, here + i) is None])
            low = self.illumination(low)
            # The gain is steadied, not the exposure: when a lamp enters the picture, the rest keeps its brightness.
            self.gain = follow(self.gain, self.work.wanted_gain(low), GAIN_PACE)
        return low.to(frame.original.device), (self.gain * mean_luma(low)).clamp(DARKEST, 1)

    def _settle(self, shot: list[Frame]) -> None:
        """Starts at the mean illumination and the mean gain of a shot's first frames.

        Only one frame at a time is on the device.
        """
        for later in reversed(shot[1:]):  # backwards, so that the first frame does not dominate the mean
            self.illumination(_rgb(later, self.work.place))
        gains = [self.work.wanted_gain(_rgb(frame, self.work.place)).log() for frame in shot]
        self.gain = torch.stack(gains).mean(0).exp()


def _averaged(frames: Iterator[Frame], place: Callable[[Tensor], Tensor]) -> Iterator[Frame]:
    """Averages the pictures of each shot over time where nothing moves."""
    steady = TemporalFilter()
    for frame, following, _ in _with_following(frames):
        if not frame.alone:
            if frame.cut or frame.fading:
                steady = TemporalFilter()
                for later in reversed(following):  # as in `_settle`: the first frame's mean needs several, too
                    if not (frame.fading or later.fading):
                        steady(place(later.low), place(later.picture))
            frame.picture = steady(place(frame.low), place(frame.picture))
        yield frame


def _judged(frame: Frame, following: list[Frame], past: deque[float], after: list[FrameSummary]) -> list[Frame]:
    """The later frames of this frame's shot. Also decides whether a lamp is switched at this frame or the next one."""
    if frame.cut:
        past.clear()
    shot = [frame, *following]
    levels = [*past, frame.summary.level, *(g.level for g in after)]
    here = len(past)
    for number, later in enumerate(shot):
        place = here + number
        if later.cut and number:
            return shot[1:number]
        if not later.judged and not later.cut and 0 < place < len(levels):
            ratio = (levels[place] + LOG_FLOOR) / (levels[place - 1] + LOG_FLOOR)
            switched = abs(log(ratio)) > LIGHT_STEP and is_switched(levels, place)
            if number < 2:
                later.cut, later.judged = switched, True
            if switched and number == 0:
                past.clear()
            elif switched:
                return shot[1:number]
    return following


def _rgb(frame: Frame, place: Callable[[Tensor], Tensor]) -> Tensor:
    return opaque(place(frame.original).float(), [frame.summary.inside]).clamp(0, 1)


def _with_following(frames: Iterator[Frame]) -> Iterator[tuple[Frame, list[Frame], bool]]:
    """Each frame, up to LOOKAHEAD later frames of its shot, and whether it is the last frame of the clip."""
    queue = deque(islice(frames, LOOKAHEAD + 1))
    while queue:
        frame = queue.popleft()
        yield frame, list(takewhile(lambda later: not later.cut, queue)), not queue
        queue.extend(islice(frames, 1))
