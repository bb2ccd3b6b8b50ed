"""The settings of the method as data. Each class names its fields and their defaults, and refuses values out of range.

A new setting is one field here, one input in the nodes' schema, one option of the command line, and one place of use.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .conditions import Keeper
from .tiling.tiler import Tiler

MOST_STOPS = 2
"""EV by which `brightness` may differ from 0."""


@dataclass(frozen=True)
class SampleOptions:
    """How a picture is made.

    Args:
        steps: diffusion steps, 1 to the T of the model's schedule; 0: no diffusion, the picture is R' x L'.
        seed: of the start noise, which all pictures of a batch share.
        exposure: mean luma of the result, above 0 and at most 1; a tensor (B,) holds one for each picture. None: ANet
            proposes it, and a picture that is well lit keeps its own.
        brightness: EV by which the result is brighter than that exposure, proposed or told: -MOST_STOPS to MOST_STOPS.
        eta: 0 adds no noise after the start (DDIM), 1 as much at every step as DDPM.
        tile: side in pixels of the windows that a big picture is worked on in, 64 or more; 0: always as a whole; None:
            as a whole while that fits into the memory, then in windows that fit. A `Tiler` is used as it is.
        working_size: longer side in pixels at which the work is done; the result is then enlarged along the detail of
            the picture. 0, or more than the picture has: full size.
        texture: how much of the fine detail that the diffusion draws is used: 1 all of it, 0 none, which leaves R' x
            L'. It acts on models whose UNet is a flow (`detail_std`); others correct R' x L' and draw nothing.

    Raises:
        ValueError: names the field that cannot be used. How many steps are possible only the schedule knows.
    """

    steps: int = 4
    seed: int = 0
    exposure: float | Tensor | None = None
    brightness: float = 0.0
    eta: float = 0.0
    tile: int | Tiler | None = None
    working_size: int = 0
    texture: float = 0.5

    def __post_init__(self) -> None:
        if isinstance(self.tile, int):
            Tiler(self.tile)
        if not abs(self.brightness) <= MOST_STOPS:
            raise ValueError(f"brightness must be between -{MOST_STOPS} and {MOST_STOPS} EV, not {self.brightness}")
        if not 0 <= self.texture <= 1:
            raise ValueError(f"texture must be between 0 and 1, not {self.texture}")
        if self.working_size < 0:
            raise ValueError(f"working_size must be 0 (full size) or a number of pixels, not {self.working_size}")


QUALITIES = ("draft", "standard", "fine")
DRAFT_SIZE = 1024
FINE_STEPS = 8
"""Steps beyond which results get no closer to the truth."""


def at_quality(options: SampleOptions, quality: str) -> SampleOptions:
    """The options for one of QUALITIES.

    draft: no diffusion, and at most DRAFT_SIZE pixels inside. standard: `options` as they are. fine: FINE_STEPS at
    least.

    Raises:
        ValueError: there is no such quality.
    """
    if quality not in QUALITIES:
        raise ValueError(f"quality must be {', '.join(QUALITIES[:-1])} or {QUALITIES[-1]}, not {quality}")
    if quality == "draft":
        return replace(options, steps=0, working_size=min(options.working_size or DRAFT_SIZE, DRAFT_SIZE))
    return replace(options, steps=max(options.steps, FINE_STEPS)) if quality == "fine" else options


@dataclass(frozen=True)
class FinishOptions:
    """How a result is mixed with its original.

    Args:
        strength: 0 returns the original, 1 the result.
        feather: width in pixels of the soft edge inside the mask.
        shadows: 0 enhances every place, 1 only those that are dark in the original.
        colour_fidelity: 0 leaves the colours to the nets, 1 keeps the colour cast of the original.

    Raises:
        ValueError: names the field that cannot be used.
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
    """How the frames of a clip are worked on.

    Args:
        smooth: keeps light, colours and noise from flickering; False works on every frame by itself.
        device: where to work; frames wait where they are given. None: there, too, and so for frames that are done in
            tiles or at a `working_size`, whose nets alone work elsewhere: such frames may be too big for the device.
        ahead: the same frames once more, of any size, which are looked at far ahead of the work, so that a fade's
            light is known when it begins. None: the frames again if they are a sequence, else what is held anyhow.
        keepers: one for each frame. They keep results of frames that are worked on by themselves, and are told the
            exposure of every frame.
    """

    smooth: bool = True
    device: torch.device | str | None = None
    ahead: Iterable[Tensor] | None = None
    keepers: Iterable[Keeper] | None = None
