"""Recipe files: YAML with one part per stage. A file may name another one as its `base` and hold only what differs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from .settings import check_recipe


def read_recipe(path: Path, stage: str) -> dict[str, Any]:
    """The stage's part of a recipe file, with preset and header added. Raises ValueError that names the file."""
    recipe = load_recipe(path)
    check_recipe(path, recipe)
    try:
        return {"preset": recipe["preset"], "header": recipe.get("header", {}), **recipe[stage]}
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path}: not a recipe with a part {stage!r}: {error}") from error


def load_recipe(path: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """All of a recipe file, merged over its base. `base` is a path relative to the file; a base may have one, too.

    Raises:
        ValueError: a file cannot be read, or is its own base (`seen` are those before it). The message names the file.
    """
    if path.resolve() in seen:
        raise ValueError(f"{path}: this recipe is its own base; leave out one 'base' of the round")
    recipe = _read(path)
    if "base" not in recipe:
        return _without_null(recipe)
    base = load_recipe(path.parent / str(recipe.pop("base")), (*seen, path.resolve()))
    return _without_null(merged(base, recipe))


def _without_null(tree: dict) -> dict:
    """None leaves an entry out also where no base has it."""
    return {k: _without_null(v) if isinstance(v, dict) else v for k, v in tree.items() if v is not None}


def _read(path: Path) -> dict[str, Any]:
    try:
        recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: not a recipe: {error}") from error
    if not isinstance(recipe, dict):
        raise ValueError(f"{path}: not a recipe: expected a mapping with one part per stage")
    return recipe


def merged(base: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """A new tree of settings: `base` with `overrides` merged into it recursively; None removes an entry."""
    result = dict(base)
    for key, value in overrides.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            result[key] = merged(base[key], value)
        elif value is None:
            result.pop(key, None)
        else:
            result[key] = value
    return result
