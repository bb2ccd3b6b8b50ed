"""Output of a run: its record in the bundle's header, scores of a validation, CSV tables and contact sheets."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ..checkpoint import JoReSNets
from ..files.records import without_nan
from ..files.saving import write_atomically
from ..metrics.scores import score
from .convert import to_pixels


def training_record(nets: JoReSNets) -> list[dict[str, Any]]:
    """The training record in the header of `nets`: one entry for each stage they were trained by."""
    return json.loads(nets.metadata.get("training", "[]"))


def append_record(nets: JoReSNets, record: dict[str, Any]) -> dict[str, str]:
    """The header of `nets` (licence, data, ...) with `record` appended to its training record."""
    return {**nets.metadata, "training": json.dumps(without_nan([*training_record(nets), record]), allow_nan=False)}


class Scores:
    """Collects scores per picture and averages them: PSNR and SSIM, raw and after GT-mean, and any other number."""

    def __init__(self) -> None:
        self.values: dict[str, list[float]] = {}

    def add(self, image: Tensor, high: Tensor, prefix: str = "") -> None:
        """Adds the scores (see `score`) of a (1, 3, H, W) picture in [0, 1] against its ground truth."""
        for key, value in score(image, high).items():
            self.note(prefix + key, value)

    def note(self, key: str, value: float | Tensor) -> None:
        """Adds one number (a scalar tensor is converted)."""
        self.values.setdefault(key, []).append(float(value))

    def means(self) -> dict[str, float]:
        """The mean of each score over all pictures, rounded to 4 decimals."""
        return {key: round(sum(values) / len(values), 4) for key, values in self.values.items()}


def means_of_kinds(kinds: dict[str, Scores]) -> dict[str, float]:
    """The mean of each score over the kinds of pairs, each kind with the same weight.

    With several kinds the result also holds the means of each kind, under "kind: score".
    """
    means = {kind: scores.means() for kind, scores in kinds.items()}
    keys = next(iter(means.values()))
    overall = {key: round(sum(figures[key] for figures in means.values()) / len(means), 4) for key in keys}
    if len(means) == 1:
        return overall
    return overall | {f"{kind}: {key}": value for kind, figures in means.items() for key, value in figures.items()}


def append_row(path: Path, row: dict[str, Any]) -> None:
    """Appends a row to a CSV file whose first line names the columns.

    A file with other columns, of a run whose data changed, is written anew under the columns of both.
    """
    rows, columns = [], list(row)
    if path.exists():
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            rows, columns = list(reader), list(reader.fieldnames or [])
    if rows and row.keys() <= set(columns):
        with path.open("a", encoding="utf-8", newline="") as file:
            csv.DictWriter(file, columns).writerow(row)
        return
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns + [name for name in row if name not in columns])
    writer.writeheader()
    writer.writerows([*rows, row])
    write_atomically(path, text.getvalue().encode())


def contact_sheet(pictures: list[Tensor], path: Path) -> None:
    """Writes (3, H, W) pictures in [0, 1] below each other into a PNG file; narrower ones end in black."""
    buffer, width = io.BytesIO(), max(picture.shape[2] for picture in pictures)
    rows = [F.pad(picture, (0, width - picture.shape[2])) for picture in pictures]
    Image.fromarray(to_pixels(torch.cat(rows, 1).cpu())).save(buffer, "PNG")
    write_atomically(path, buffer.getvalue())
