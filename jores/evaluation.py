"""Scores of an enhancement against ground truth, by both protocols of the field and always told apart."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from .imaging.files import find_images, read_image
from .metrics import gt_mean, psnr, ssim

SCORES = ("psnr_raw", "ssim_raw", "psnr_gt_mean", "ssim_gt_mean")
HEADER = f"{'picture':<20}{'PSNR raw':>14}{'SSIM raw':>14}{'PSNR GT-mean':>14}{'SSIM GT-mean':>14}\n"


class Pair(NamedTuple):
    name: str
    low: Path
    high: Path


def pairs_of_table(table: Path, split: str) -> list[Pair]:
    """Pairs of `rows_of_table`, with their paths resolved."""
    rows = rows_of_table(table, split)
    return [Pair(row["id"], table.parent / row["low"], table.parent / row["high"]) for row in rows]


def rows_of_table(table: Path, split: str) -> list[dict[str, str]]:
    """Rows of a tab-separated table with the columns id, split, low and high (paths relative to the table).

    Args:
        split: name of a split, or "all".

    Raises:
        ValueError: not such a table, or no pair in this split.
    """
    with table.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file, delimiter="\t")
        if not {"id", "split", "low", "high"} <= set(reader.fieldnames or ()):
            raise ValueError(f"{table}: needs the columns id, split, low and high, separated by tabs")
        rows = [row for row in reader if split in ("all", row["split"])]
    if not rows:
        raise ValueError(f"{table}: no pair in split {split!r}")
    return rows


def pairs_of_folders(low: Path, high: Path) -> list[Pair]:
    """Pairs by file stem: every picture in `low` needs one of the same name, with any suffix, in `high`.

    Raises:
        ValueError: an empty folder, or a dark picture without its ground truth.
    """
    references = {path.stem: path for path in find_images([high])}
    dark = find_images([low])
    lonely = [path.name for path in dark if path.stem not in references]
    if lonely:
        raise ValueError(f"{high}: holds no ground truth for {', '.join(lonely[:5])} of {low}")
    return [Pair(path.stem, path, references[path.stem]) for path in dark]


def evaluate(pairs: Iterable[Pair], enhance: Callable[[Tensor], Tensor]) -> Iterator[dict[str, float | str]]:
    """Enhance and score one pair after the other; each result is {"picture": name, **scores}.

    Args:
        enhance: (3, H, W) in [0, 1] to the same shape and range. It never sees the ground truth.

    Raises:
        ValueError: a file cannot be read, or the two pictures of a pair differ in size.
    """
    for name, low, high in pairs:
        dark, reference = read_image(low).pixels[:3], read_image(high).pixels[:3]
        if dark.shape != reference.shape:
            sizes = " and ".join(f"{x.shape[2]}x{x.shape[1]}" for x in (dark, reference))
            raise ValueError(f"{low} and {high} differ in size: {sizes}")
        yield {"picture": name, **score(enhance(dark)[None], reference[None])}


def score(result: Tensor, reference: Tensor) -> dict[str, float]:
    """PSNR (dB) and SSIM of (1, 3, H, W) pictures in [0, 1], raw and after GT-mean.

    The result is rounded to the 8 bits of the file that people would get.
    """
    result = (result * 255).round() / 255
    rescaled = gt_mean(result, reference)
    values = psnr(result, reference), ssim(result, reference), psnr(rescaled, reference), ssim(rescaled, reference)
    return {key: value.item() for key, value in zip(SCORES, values, strict=True)}


def mean_of(rows: list[dict[str, float | str]]) -> dict[str, float | str]:
    """The row of means, as papers report them: of the pictures' PSNR values, not of their errors."""
    return {"picture": f"mean of {len(rows)}", **{key: sum(row[key] for row in rows) / len(rows) for key in SCORES}}


def format_row(row: dict[str, float | str]) -> str:
    """One line of the table under `HEADER`."""
    numbers = (f"{row[key]:>14.{3 if key.startswith('psnr') else 4}f}" for key in SCORES)
    return f"{row['picture']:<20}{''.join(numbers)}\n"
