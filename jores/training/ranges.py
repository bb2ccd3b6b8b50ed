"""The values that a recipe's settings may have, and the settings that a stage cannot do without."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ..config import PRESETS


@dataclass(frozen=True)
class Range:
    """Numbers from `least` to `most`; without `least` itself if it is `open`."""

    least: float = 0
    most: float = math.inf
    whole: bool = False
    open: bool = False

    def __contains__(self, value: object) -> bool:
        if isinstance(value, bool) or not isinstance(value, int if self.whole else int | float):
            return False
        return self.least <= value <= self.most and not (self.open and value == self.least)

    def __str__(self) -> str:
        kind = "a whole number" if self.whole else "a number"
        if math.isinf(self.most):
            return f"{kind} above {self.least}" if self.open else f"{kind} from {self.least} on"
        return f"{kind} from {self.least} to {self.most}"


SHARE, WEIGHT, COUNT = Range(0, 1), Range(), Range(1, whole=True)
RANGES = {
    **dict.fromkeys(("steps", "batch", "views", "validate_every", "teacher_side"), COUNT),
    **dict.fromkeys(("final_rate", "ema", "photo_share", "as_pairs", "retouch", "cloth", "lit", "photos", "own",
                     "paper", "prior_dropout", "start_share"), SHARE),
    **dict.fromkeys(("warmup", "learning_rate", "weight_decay", "minutes", "validate_minutes", "max_shift"), Range()),
    **dict.fromkeys(("reflectance", "cross", "smooth", "product", "structure", "edges", "maps", "psnr", "refine",
                     "unet_structure", "perceptual", "own_error", "adversary"), WEIGHT),
    **dict.fromkeys(("paper_expert", "val_photos"), Range(whole=True)),
    **dict.fromkeys(("height", "width"), Range(32, whole=True)),
    "clip": Range(open=True), "crop": Range(16, whole=True), "seed": Range(0, 2**32 - 1, whole=True),
}  # fmt: skip
"""By the setting's name, which means the same in every stage."""

LISTS = {"set_shares": Range(), "experts": Range(whole=True)}
"""Settings with a number for each set of --data."""

CROPS = {"data": ("crop", "batch")}
NEEDED: dict[str, dict[str, tuple[str, ...]]] = {
    "decompose": {**CROPS, "options": ("reflectance", "cross", "smooth")},
    "expose": {"data": ("views", "batch", "lit")},
    "adjust": {**CROPS, "options": ("product", "structure", "edges", "maps")},
    "diffuse": {**CROPS, "options": ("refine", "prior_dropout")},
    "segmenter": {"data": ("height", "width", "batch", "photo_share", "teacher_side", "val_photos")},
}
IF_NO_FLOW = ("structure", "unet_structure", "start_share")


def wrong_value(name: str, value: object) -> str | None:
    """What a setting must be, if it is not; None stands for a setting that is left out."""
    if value is None:
        return None
    if name in LISTS:
        listed = value if isinstance(value, list) else []
        nothing = not listed or name == "set_shares" and not any(listed)
        if nothing or any(v not in LISTS[name] for v in listed):
            return f"a list with {LISTS[name]} for each set of --data, or null"
    return str(RANGES[name]) if name in RANGES and value not in RANGES[name] else None


def missing(stage: str, preset: str, part: Mapping[str, object]) -> Iterator[str]:
    """The settings that a stage cannot do without, and its part of a recipe lacks, such as "data: crop"."""
    if "loop" not in part:
        yield "loop"
    for key, names in NEEDED[stage].items():
        held = part.get(key)
        held = held if isinstance(held, dict) else {}
        if stage == "diffuse" and key == "options":
            names += () if _is_flow(preset) else IF_NO_FLOW
            names += ("own_error",) if held.get("own") and _is_flow(preset) else ()
        yield from (f"{key}: {name}" for name in names if held.get(name) is None)
    if stage == "segmenter" and "student" not in part:
        yield "student"


def _is_flow(preset: str) -> bool:
    """Also where the name is unknown, which is told later."""
    return preset not in PRESETS or bool(PRESETS[preset].denoiser.detail_std)
