"""Records as JSON. NaN and infinity, which JSON does not have, become null."""

from __future__ import annotations

import json
import math
from typing import Any


def without_nan(value: Any) -> Any:
    """A copy of a JSON value with None in place of NaN and infinity, at any depth."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def json_line(record: dict[str, Any]) -> str:
    """The record as one line of JSON, in ASCII, because redirected output on Windows may support nothing else."""
    return json.dumps(without_nan(record), allow_nan=False) + "\n"
