"""The training record in a bundle's header, and the figures of a validation."""

from __future__ import annotations

import json
from typing import Any

from torch import Tensor

from ..checkpoint import JoReSNets
from ..evaluation import score


def append_record(nets: JoReSNets, record: dict[str, Any]) -> dict[str, str]:
    """The header that `nets` came with (licence, data), its training record longer by this stage's."""
    history = json.loads(nets.metadata.get("training", "[]"))
    return {**nets.metadata, "training": json.dumps([*history, record])}


class Scores:
    """Collects figures picture by picture: the field's own, raw and GT-mean side by side, and any other number."""

    def __init__(self) -> None:
        self.values: dict[str, list[float]] = {}

    def add(self, image: Tensor, high: Tensor, prefix: str = "") -> None:
        """Scores one (1, 3, H, W) picture against its ground truth."""
        for key, value in score(image, high).items():
            self.note(prefix + key, value)

    def note(self, key: str, value: float | Tensor) -> None:
        self.values.setdefault(key, []).append(float(value))

    def means(self) -> dict[str, float]:
        return {key: round(sum(values) / len(values), 4) for key, values in self.values.items()}
