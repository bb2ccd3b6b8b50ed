"""Records as JSON, which has neither NaN nor Infinity: null stands for them."""

from __future__ import annotations

import json
import math
from typing import Any


def without_nan(value: Any) -> Any:
    """A JSON value in which None stands for every number that JSON does not have, at any depth."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def json_line(record: dict[str, Any]) -> str:
    """In ASCII: a redirected output may know no other letters."""
    return json.dumps(without_nan(record), allow_nan=False) + "\n"
