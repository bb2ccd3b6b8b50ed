"""Clips: the pipeline frame by frame, in constant memory, without the flicker that independent frames have.

Within a shot the light is steadied first, the gain from dark to bright changes as slowly as a camera's exposure, and
the results are averaged over time where nothing moves. Across a cut nothing is carried over: a frame that is a shot of
its own comes out as a single picture does, bit by bit.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice, repeat, takewhile

import torch
from torch import Tensor

from .checkpoint import JoReSNets
from .diffusion.sampling import Callback
from .imaging.alpha import opaque
from .imaging.exposure import DARKEST, exposure_gain, mean_luma
from .imaging.temporal import SteadyLight, TemporalFilter, follow, is_cut
from .nets.segmentation import Segmenter
from .options import ClipOptions, FinishOptions, SampleOptions
from .pipeline import Kept, anew, checked, enhance, finish, wanted_exposure

LOOKAHEAD = 6
"""Frames read ahead of the one that is worked on: they tell the first frames of a shot what to settle on."""

HELD_BYTES = 40
"""Per pixel, on `device` from one frame to the next: what the averages remember."""

GAIN_PACE = 0.1  # share of a change of the wanted gain that one frame follows


@dataclass
class Frame:
    """One frame on its way: (1, 3 or 4, H, W) as it came, later with its light steadied, and its result."""

    original: Tensor
    mask: Tensor | None
    kept: Kept
    cut: bool  # a shot begins here
    alone: bool = False  # and ends here
    low: Tensor | None = None
    picture: Tensor | None = None


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
    keeps: Iterable[Kept] | None = None,
    callback: Callback | None = None,
    told: Callable[[Tensor], None] | None = None,
) -> Iterator[Tensor]:
    """Dark frames (1, 3 or 4, H, W) in, enhanced ones of the same shape out, one for one, float32 in [0, 1].

    Any number of frames may come: no more than two times LOOKAHEAD + 1 of them are held at any time.

    Args:
        options: the exposure is what the frames of a shot get in the mean.
        masks: one (1, 1, H, W) for each frame, or a single one for all.
        keeps: one `Kept` for each frame. It serves frames that are worked on by themselves.
        callback, told: as in `pipeline.enhance`, frame after frame.

    Raises:
        ValueError: fewer masks than frames, and more than one.
    """
    incoming = _with_masks(frames, masks, repeat(anew) if keeps is None else keeps)
    device = clip.device

    def alone(image: Tensor, mask: Tensor | None, kept: Kept) -> Tensor:
        return enhance(
            image.to(device), nets, segmenter, options, finishing, mask=mask, callback=callback, kept=kept, told=told
        )

    if not clip.smooth:
        for frame, mask, kept in incoming:
            yield alone(frame, mask, kept)
        return

    def work(frame: Frame, aim: Tensor | None) -> Tensor:
        """A frame by itself is finished here; the others are mixed with their originals once they are steady."""
        if frame.alone:
            return alone(frame.original, frame.mask, frame.kept)
        aimed = replace(options, exposure=aim, brightness=0.0)
        return enhance(frame.low.to(device), nets, segmenter, aimed, callback=callback, told=told)

    steady = None
    for frame, following in _with_following(_lit(_tagged(incoming), nets, options, device, work)):
        if frame.alone:
            yield frame.picture
            continue
        if frame.cut:
            steady = TemporalFilter()
            for later in reversed(following):  # as above: the first frame is as steady as the later ones
                steady(later.low.to(device), later.picture.to(device))
        picture = steady(frame.low.to(device), frame.picture.to(device))
        yield finish(picture * 2 - 1, frame.original.to(device), finishing, mask=frame.mask)


def _with_masks(
    frames: Iterable[Tensor], masks: Iterable[Tensor] | None, keeps: Iterable[Kept]
) -> Iterator[tuple[Tensor, Tensor | None, Kept]]:
    """Each frame with its mask, of which a single one serves all, and with what keeps its results."""
    if masks is None:
        yield from ((frame, None, kept) for frame, kept in zip(frames, keeps, strict=False))
        return
    given, mask, single = iter(masks), None, False
    for count, (frame, kept) in enumerate(zip(frames, keeps, strict=False)):
        following = None if single else next(given, None)
        if following is None:
            if count != 1 and not single:
                raise ValueError(f"masks: {count} for more frames than that: give one for each, or a single one")
            following, single = mask, True
        mask = following
        yield frame, mask, kept


def _tagged(incoming: Iterable[tuple[Tensor, Tensor | None, Kept]]) -> Iterator[Frame]:
    before = None
    for frame, mask, kept in incoming:
        rgb = opaque(checked(frame))
        yield Frame(frame, mask, kept, before is None or is_cut(before, rgb))
        before = rgb


def _lit(
    frames: Iterator[Frame],
    nets: JoReSNets,
    options: SampleOptions,
    device: torch.device | str | None,
    work: Callable[[Frame, Tensor | None], Tensor],
) -> Iterator[Frame]:
    """Steadies the light and the gain of each shot, and has the frames worked on."""
    light = gain = None

    def wanted(low: Tensor) -> Tensor:
        aim = wanted_exposure(nets, low, options.exposure, options.brightness)
        return exposure_gain(mean_luma(low), aim.to(low.device))

    for frame, following in _with_following(frames):
        frame.alone = frame.cut and not following
        if frame.alone:
            frame.picture = work(frame, None)
            yield frame
            continue
        if frame.cut:
            light, shot = SteadyLight(), [_rgb(f, device) for f in (frame, *following)]
            for later in reversed(shot[1:]):  # backwards, so that the first frame does not set the level by itself
                light(later)
            gain = torch.stack([wanted(low).log() for low in shot]).mean(0).exp()
        low = light(_rgb(frame, device))
        # Not the exposure itself: when a lamp enters the picture, the rest of it should stay as bright as it was.
        gain = follow(gain, wanted(low), GAIN_PACE)
        frame.low = low.to(frame.original.device)
        frame.picture = work(frame, (gain * mean_luma(low).clamp_min(DARKEST)).clamp_max(1)).to(frame.low.device)
        yield frame


def _rgb(frame: Frame, device: torch.device | str | None) -> Tensor:
    return opaque(frame.original.to(device, torch.float32)).clamp(0, 1)


def _with_following(frames: Iterator[Frame]) -> Iterator[tuple[Frame, list[Frame]]]:
    """Each frame with up to LOOKAHEAD later ones of its shot."""
    queue = deque(islice(frames, LOOKAHEAD + 1))
    while queue:
        frame = queue.popleft()
        yield frame, list(takewhile(lambda later: not later.cut, queue))
        queue.extend(islice(frames, 1))
