"""What a recipe may say: the settings of each stage, checked by name before anything is loaded."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from pathlib import Path

from ..config import PRESETS
from .loop import LoopConfig
from .ranges import missing, wrong_value

LOOP = {field.name for field in dataclasses.fields(LoopConfig)}
SETS = {"set_shares", "max_shift"}
DRAWN = SETS | {"crop", "batch", "photo_share", "as_pairs", "retouch", "cloth"}
JOINT = {"product", "structure", "edges", "maps"}
SETTINGS: dict[str, dict[str, set[str]]] = {
    "decompose": {"loop": LOOP, "data": DRAWN, "options": {"reflectance", "cross", "smooth"}},
    "expose": {
        "loop": LOOP, "options": set(),
        "data": SETS | {"views", "batch", "lit", "photos", "own", "paper", "experts", "paper_expert"},
    },
    "adjust": {"loop": LOOP, "data": DRAWN, "options": JOINT | {"psnr", "smooth"}},
    "diffuse": {
        "loop": LOOP, "data": DRAWN,
        "options": {
            "refine", "psnr", "structure", "unet_structure", "prior_dropout", "start_share", "joint", "perceptual",
            "own", "own_error", "adversary",
        },
    },
    "segmenter": {
        "loop": LOOP, "data": {"height", "width", "batch", "photo_share", "teacher_side", "val_photos"},
    },
}  # fmt: skip
"""Of each stage the parts of its recipe, and the names that each of them may hold."""

BESIDE = {"validate_every", "segmenter", "student"}  # beside these parts; `student` is checked by transformers
IDLE = {
    True: {"psnr", "structure", "unet_structure", "start_share", "joint"},
    False: {"perceptual", "own_error", "adversary"},
}
"""Options of "diffuse" that do nothing where the preset's UNet is a flow (True), or where it is none (False)."""
TEXTS = {"optimizer"}  # settings whose value is a text


def check_recipe(path: Path, recipe: Mapping[str, object]) -> None:
    """Raises ValueError that names the file and the setting: an unknown name, a text in place of a number, a number out
    of its range, or a loss that the preset's UNet does not have."""
    for stage, parts in recipe.items():
        if stage in ("preset", "header"):
            continue
        _check_name(path, "", stage, {*SETTINGS, "preset", "header", "base"})
        for part, values in (parts if isinstance(parts, dict) else {}).items():
            _check_name(path, stage, part, {*SETTINGS[stage], *BESIDE})
            _check_value(path, stage, part, values)
            if part in SETTINGS[stage]:
                if values is not None and not isinstance(values, dict):
                    raise ValueError(f"{path}: {stage}: {part} must hold settings by name, not {values!r}")
                _check_values(path, f"{stage}: {part}", values or {}, SETTINGS[stage][part])
    _check_idle(path, recipe)


def check_complete(path: Path, stage: str, part: Mapping[str, object]) -> None:
    """Raises ValueError if a stage's part of a recipe (see `read_recipe`) lacks settings, or has too large shares."""
    if lacks := list(missing(stage, str(part["preset"]), part)):
        raise ValueError(f"{path}: {stage}: needs a value for {lacks[0]}, which is missing or null")
    data = part["data"] if stage == "expose" else None
    names = ("lit", "photos", "own", "paper")
    if isinstance(data, dict) and (total := sum(data.get(name) or 0 for name in names)) > 1:
        raise ValueError(
            f"{path}: expose: data: {', '.join(names)} are shares of a batch; their sum is {total:g}, above 1"
        )


def _check_idle(path: Path, recipe: Mapping[str, object]) -> None:
    config, diffuse = PRESETS.get(str(recipe.get("preset"))), recipe.get("diffuse")
    options = diffuse.get("options") if isinstance(diffuse, dict) else None
    if config is None or not options:
        return
    flows = bool(config.denoiser.detail_std)
    for name in sorted(name for name in IDLE[flows] if options.get(name)):
        raise ValueError(
            f"{path}: diffuse: options: {name} does nothing with the preset {config.name!r}, whose UNet is "
            f"{'a' if flows else 'no'} flow; write `{name}: null`, or choose another preset"
        )


def _check_values(path: Path, where: str, values: Mapping[str, object], known: set[str]) -> None:
    for name, value in values.items():
        _check_name(path, where, name, known)
        if name == "joint" and isinstance(value, dict):
            _check_values(path, f"{where}: {name}", value, JOINT)
        elif isinstance(value, str | dict) and name not in TEXTS:
            raise ValueError(f"{path}: {where}: {name} is {value!r}, not a number; in YAML 1e-3 is 1.0e-3")
        _check_value(path, where, name, value)


def _check_value(path: Path, where: str, name: str, value: object) -> None:
    if (must := wrong_value(name, value)) is not None:
        raise ValueError(f"{path}: {where}: {name} is {value!r}; it must be {must}")


def _check_name(path: Path, where: str, name: str, known: set[str]) -> None:
    if name not in known:
        near = difflib.get_close_matches(str(name), known, 1)
        meant = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(sorted(known))}"
        raise ValueError(f"{path}: {where + ' ' if where else ''}has no setting {name!r}; {meant}")
