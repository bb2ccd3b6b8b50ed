"""The training record in a bundle's header, and means over validation pictures."""

from __future__ import annotations

import json
from typing import Any

from torch import Tensor

from ..checkpoint import JoReSNets


def append_record(nets: JoReSNets, record: dict[str, Any]) -> dict[str, str]:
    """Header entry with the record of every stage so far; a stage that is trained again adds to its line."""
    history = json.loads(nets.metadata.get("training", "[]"))
    return {"training": json.dumps([*history, record])}


def mean(values: list[Tensor]) -> float:
    """Mean of one-element tensors."""
    return sum(float(v) for v in values) / max(1, len(values))
