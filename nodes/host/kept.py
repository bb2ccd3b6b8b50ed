"""Models that a node loads itself, kept for its next run as the host keeps models of loader nodes.

They live as long as one of their nets is in the host's list of loaded models. When the host unloads them, to free
memory or because the user pressed "Unload Models", they are freed. A changed file is loaded again.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import comfy.model_management as mm
from comfy.model_patcher import ModelPatcher

from ...jores.checkpoint import PARTS
from ...jores.semantics import load_segmenter
from .folders import file_stamp
from .patchers import NetPatchers, load_patchers, manage


@dataclass
class _Last:
    """Weak reference to the last loaded model, and the stamp of its file."""

    stamp: str = ""
    seen: Callable[[], Any] = lambda: None

    def get(self, path: Path, load: Callable[[], Any], how: str = "") -> Any:
        """What `load` gives, or gave last for the same file and the same `how`."""
        stamp, value = file_stamp(path), self.seen()
        stamp = stamp and f"{stamp} {how}"
        if value is None or not stamp or stamp != self.stamp:
            value = load()
            self.stamp, self.seen = stamp, weakref.ref(value)
        return value


_bundle, _segmenter = _Last(), _Last()


def kept_nets(path: Path, precision: str) -> NetPatchers:
    """All nets of a bundle, loaded or kept. Raises CheckpointError, ValueError."""
    return _bundle.get(path, lambda: load_patchers(path, *PARTS, precision=precision), precision)


def kept_segmenter(path: Path) -> ModelPatcher:
    """The segmenter in a folder, loaded or kept. Raises SegmenterError."""
    return _segmenter.get(path, lambda: manage(load_segmenter(path)))


def keep_while_loaded(value: Any, *patchers: ModelPatcher) -> None:
    """Keeps `value` alive as long as the host has one of its patchers loaded; they must be loaded already."""
    for entry in mm.current_loaded_models:
        if any(entry.model is patcher for patcher in patchers):
            entry.jores_kept = value
