"""The library's functions with every setting as a keyword of its own, which suits tests that vary one or two."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields
from typing import Any

from jores.options import ClipOptions, FinishOptions, SampleOptions

KINDS = {"options": SampleOptions, "finishing": FinishOptions, "clip": ClipOptions}


def flat(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, with the fields of the option classes that it takes as keywords."""
    kinds = {name: kind for name, kind in KINDS.items() if name in inspect.signature(function).parameters}

    def call(*args: Any, **settings: Any) -> Any:
        for name, kind in kinds.items():
            own = {field.name for field in fields(kind)} & settings.keys()
            settings[name] = kind(**{key: settings.pop(key) for key in own})
        return function(*args, **settings)

    return call
