"""Recipe files: YAML, one part per stage. A file may name another one as its `base` and say only what differs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml


def read_recipe(path: Path, stage: str) -> dict[str, Any]:
    """The stage's part of a recipe file, with what holds for all. Raises ValueError that names the file."""
    recipe = load_recipe(path)
    try:
        return {"preset": recipe["preset"], "header": recipe.get("header", {}), **recipe[stage]}
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path}: not a recipe with a part {stage!r}: {error}") from error


def load_recipe(path: Path) -> dict[str, Any]:
    """A whole file, laid over its base; `base` is a path seen from the file. Raises ValueError that names the file."""
    recipe = _read(path)
    if "base" not in recipe:
        return recipe
    base = _read(path.parent / str(recipe.pop("base")))
    if "base" in base:
        raise ValueError(f"{path}: its base has a base itself; name that one")
    return merged(base, recipe)


def _read(path: Path) -> dict[str, Any]:
    try:
        recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: not a recipe: {error}") from error
    if not isinstance(recipe, dict):
        raise ValueError(f"{path}: not a recipe: no stages in it")
    return recipe


def merged(base: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """Overrides laid over a tree of settings; null takes an entry out."""
    result = dict(base)
    for key, value in overrides.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            result[key] = merged(base[key], value)
        elif value is None:
            result.pop(key, None)
        else:
            result[key] = value
    return result
