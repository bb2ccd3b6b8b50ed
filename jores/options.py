"""The settings of the method as frozen dataclasses, with defaults. They raise ValueError for values out of range.

A new setting is a field here, an input in the nodes' schema, an option of the command line, and the code that uses it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .conditions import Keeper
from .limits import DRAFT_SIZE, FINE_STEPS, MOST_STOPS, QUALITIES, STEPS, TEXTURE
from .tiling.tiler import Tiler


@dataclass(frozen=True)
class SampleOptions:
    """Settings of the stages before compositing.

    Args:
        steps: diffusion steps, 1 to `NoiseSchedule.most_steps`; 0: no diffusion, the picture is R' x L'.
        seed: of the start noise, which is the same for all pictures of a batch.
        exposure: target mean luma of the result, above 0 and at most 1; a tensor (B,) holds one per picture. None: ANet
            proposes it; well-lit pictures keep their own.
        brightness: EV by which the result is brighter than the exposure (given or proposed), -MOST_STOPS to MOST_STOPS.
        eta: noise that is added at every step, 0..1: 0 for none (DDIM), 1 for as much as in DDPM.
        tile: side in pixels of the windows, 64 or more; 0: a single window; None: a single window if it fits into
            memory, otherwise windows that fit.
        working_size: longer side in pixels that pictures are reduced to; the result is enlarged with the detail of the
            full-size picture. 0, or more than the picture's size: no reduction.
        texture: share of the fine detail that the diffusion samples, 0..1; 0 leaves R' x L'. It only affects models
            whose UNet is a flow (`detail_std`); other UNets correct R' x L' instead of sampling detail.
        steadied: the exposure is ANet's own proposal, steadied over the frames of a clip. The segmenter then sees
            R' x L' at this exposure, which saves lighting the frame twice.

    Raises:
        ValueError: a field is out of range. How many steps there are at most is the schedule's to say.
    """

    steps: int = STEPS
    seed: int = 0
    exposure: float | Tensor | None = None
    brightness: float = 0.0
    eta: float = 0.0
    tile: int | None = None
    working_size: int = 0
    texture: float = TEXTURE
    steadied: bool = False

    def __post_init__(self) -> None:
        if self.tile is not None:
            Tiler(self.tile)
        if self.steps < 0:
            raise ValueError(f"steps must be 0 (no diffusion) or more, not {self.steps}")
        if not isinstance(self.exposure, Tensor | None) and not 0 < self.exposure <= 1:
            raise ValueError(f"exposure must be above 0 and at most 1, not {self.exposure}")
        if not 0 <= self.eta <= 1:
            raise ValueError(f"eta must be between 0 and 1, not {self.eta}")
        check_brightness(self.brightness)
        if not 0 <= self.texture <= 1:
            raise ValueError(f"texture must be between 0 and 1, not {self.texture}")
        if self.working_size < 0:
            raise ValueError(f"working_size must be 0 (full size) or a number of pixels, not {self.working_size}")


def check_brightness(brightness: float) -> None:
    """Raises ValueError for EV that are out of range, or NaN."""
    if not abs(brightness) <= MOST_STOPS:
        raise ValueError(f"brightness must be between -{MOST_STOPS} and {MOST_STOPS} EV, not {brightness}")


def at_quality(options: SampleOptions, quality: str) -> SampleOptions:
    """The options for one of QUALITIES.

    draft: no diffusion, and a `working_size` of at most DRAFT_SIZE. standard: `options` unchanged. fine: at least
    FINE_STEPS steps.

    Raises:
        ValueError: an unknown quality.
    """
    if quality not in QUALITIES:
        raise ValueError(f"quality must be {', '.join(QUALITIES[:-1])} or {QUALITIES[-1]}, not {quality}")
    if quality == "draft":
        return replace(options, steps=0, working_size=min(options.working_size or DRAFT_SIZE, DRAFT_SIZE))
    return replace(options, steps=max(options.steps, FINE_STEPS)) if quality == "fine" else options


@dataclass(frozen=True)
class FinishOptions:
    """Settings of the compositing of a result with its original.

    Args:
        strength: 0 returns the original, 1 the result.
        feather: width in pixels of the soft edge inside the mask.
        shadows: 0 enhances the full picture, 1 only dark areas of the original.
        colour_fidelity: 0 keeps the colours of the nets' result, 1 restores the colour cast of the original.

    Raises:
        ValueError: a field is out of range.
    """

    strength: float = 1.0
    feather: int = 0
    shadows: float = 0.0
    colour_fidelity: float = 0.0

    def __post_init__(self) -> None:
        for name in ("strength", "shadows", "colour_fidelity"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be between 0 and 1, not {getattr(self, name)}")
        if self.feather < 0:
            raise ValueError(f"feather must be 0 pixels or more, not {self.feather}")


@dataclass(frozen=True)
class ClipOptions:
    """Settings for clips.

    Args:
        smooth: reduces flicker of brightness, colours and noise; False enhances every frame independently.
        device: device for operations on full frames, such as the temporal average. None: the device of the frames.
            Frames that need tiles or a `working_size` always stay on their own device, because they may be too big.
        ahead: an independent second pass over the same frames, of any size, which is read ahead, so that the bright end
            of a fade is known when the fade starts. None: the frames again if they are a sequence, otherwise only the
            frames that are read already.
        keepers: one per frame. They cache results of frames that are enhanced independently, and get the exposure of
            every frame.
        tiler: the windows of every frame, in place of `SampleOptions.tile`; it remembers that memory ran out.
    """

    smooth: bool = True
    device: torch.device | str | None = None
    ahead: Iterable[Tensor] | None = None
    keepers: Iterable[Keeper] | None = None
    tiler: Tiler | None = None
