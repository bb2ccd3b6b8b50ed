"""Models that a node loads itself, kept for its next run as the host keeps models of loader nodes.

They live as long as one of their nets is in the host's list of loaded models. When the host unloads them, to free
memory or because the user pressed "Unload Models", they are freed. A changed file is loaded again.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import comfy.model_management as mm
from comfy.model_patcher import ModelPatcher

from ...jores.checkpoint import PARTS
from ...jores.semantics import load_segmenter
from .folders import file_stamp
from .patchers import NetPatchers, host_precision, load_patchers, manage


class _LoadedModels:
    """Weak references to loaded models, by the stamp of their file and by how they were loaded."""

    def __init__(self) -> None:
        self.seen: weakref.WeakValueDictionary[tuple[str, str], Any] = weakref.WeakValueDictionary()

    def get(self, path: Path, load: Callable[[], Any], how: str = "") -> Any:
        """What `load` gives, or gave before for the same file and the same `how`."""
        stamp = file_stamp(path)
        value = self.seen.get((stamp, how)) if stamp else None
        if value is None:
            value = load()
            if stamp:
                self.seen[stamp, how] = value
        return value


_bundles, _segmenters = _LoadedModels(), _LoadedModels()


def kept_nets(path: Path, precision: str) -> NetPatchers:
    """All nets of a bundle, loaded or kept. Raises CheckpointError, ValueError."""
    precision = host_precision(precision)
    return _bundles.get(path, lambda: load_patchers(path, *PARTS, precision=precision), precision)


def kept_segmenter(path: Path) -> ModelPatcher:
    """The segmenter in a folder, loaded or kept. Raises SegmenterError."""
    return _segmenters.get(path, lambda: manage(load_segmenter(path)))


def keep_while_loaded(value: Any, *patchers: ModelPatcher) -> None:
    """Keeps `value` alive as long as the host has one of its patchers loaded; they must be loaded already."""
    for entry in mm.current_loaded_models:
        if any(entry.model is patcher for patcher in patchers):
            entry.jores_kept = value
