"""What a run leaves behind: its record in the bundle's header, the figures of a validation, tables and pictures."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ..checkpoint import JoReSNets
from ..metrics.scores import score
from .convert import to_pixels


def training_record(nets: JoReSNets) -> list[dict[str, Any]]:
    """One entry for each stage that `nets` went through, from their header."""
    return json.loads(nets.metadata.get("training", "[]"))


def append_record(nets: JoReSNets, record: dict[str, Any]) -> dict[str, str]:
    """The header that `nets` came with (licence, data), its training record longer by this stage's."""
    return {**nets.metadata, "training": json.dumps([*training_record(nets), record])}


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


def means_of_kinds(kinds: dict[str, Scores]) -> dict[str, float]:
    """Each figure's mean over the kinds of pairs, which count alike; and where there are several, that of each kind
    under "kind: figure"."""
    means = {kind: scores.means() for kind, scores in kinds.items()}
    keys = next(iter(means.values()))
    overall = {key: round(sum(figures[key] for figures in means.values()) / len(means), 4) for key in keys}
    if len(means) == 1:
        return overall
    return overall | {f"{kind}: {key}": value for kind, figures in means.items() for key, value in figures.items()}


def append_row(path: Path, row: dict[str, Any]) -> None:
    """To a CSV file, whose first line names the columns."""
    new = not path.exists()
    with path.open("a", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, row)
        if new:
            writer.writeheader()
        writer.writerow(row)


def contact_sheet(pictures: list[Tensor], path: Path) -> None:
    """Rows of equally high (3, H, W) pictures, one under the other, as a PNG."""
    temporary = path.with_suffix(".tmp.png")
    Image.fromarray(to_pixels(torch.cat(pictures, 1).cpu())).save(temporary)
    os.replace(temporary, path)
