"""Models that a node loads for itself, kept for its next run as the host keeps those of loader nodes.

The host's own list of loaded models keeps them: as long as it has one of their nets loaded they are there, and when it
unloads them, for others or because someone pressed "Unload Models", they are gone. They are loaded anew when their file
has changed.
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
    """What was loaded last, if it is still there, and the stamp that its file had."""

    stamp: str = ""
    seen: Callable[[], Any] = lambda: None

    def get(self, path: Path, load: Callable[[], Any]) -> Any:
        stamp, value = file_stamp(path), self.seen()
        if value is None or not stamp or stamp != self.stamp:
            value = load()
            self.stamp, self.seen = stamp, weakref.ref(value)
        return value


_bundle, _segmenter = _Last(), _Last()


def kept_nets(path: Path) -> NetPatchers:
    """All nets of a bundle. Raises CheckpointError."""
    return _bundle.get(path, lambda: load_patchers(path, *PARTS))


def kept_segmenter(path: Path) -> ModelPatcher:
    """The segmenter of a folder. Raises SegmenterError."""
    return _segmenter.get(path, lambda: manage(load_segmenter(path)))


def keep_while_loaded(value: Any, *patchers: ModelPatcher) -> None:
    """Ties `value` to the host's entries for its patchers, which must be loaded by now."""
    for entry in mm.current_loaded_models:
        if any(entry.model is patcher for patcher in patchers):
            entry.jores_kept = value
