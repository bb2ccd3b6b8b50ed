"""Scores of an enhancement: against ground truth by both protocols of the field, always told apart, and without one."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from .imaging.alpha import is_opaque
from .imaging.files import find_images, read_image
from .metrics import exposure_error, gt_mean, niqe, psnr, ssim

SCORES = ("psnr_raw", "ssim_raw", "psnr_gt_mean", "ssim_gt_mean")
COLUMNS = {
    "psnr_raw": "PSNR raw",
    "ssim_raw": "SSIM raw",
    "psnr_gt_mean": "PSNR GT-mean",
    "ssim_gt_mean": "SSIM GT-mean",
    "exposure_error": "exposure error",
    "niqe_input": "NIQE input",
    "niqe": "NIQE",
}


class Pair(NamedTuple):
    name: str
    low: Path
    high: Path | None = None


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


def pairs_of_folders(low: Path, high: Path | None = None) -> list[Pair]:
    """Pairs by file stem: every picture in `low` needs one of the same name, with any suffix, in `high`.

    Without `high` the pictures stand alone, for figures that need no ground truth.

    Raises:
        ValueError: an empty folder, or a dark picture without its ground truth.
    """
    dark = find_images([low])
    if high is None:
        return [Pair(path.stem, path) for path in dark]
    references = {path.stem: path for path in find_images([high])}
    lonely = [path.name for path in dark if path.stem not in references]
    if lonely:
        raise ValueError(f"{high}: holds no ground truth for {', '.join(lonely[:5])} of {low}")
    return [Pair(path.stem, path, references[path.stem]) for path in dark]


def evaluate(pairs: Iterable[Pair], enhance: Callable[[Tensor], Tensor]) -> Iterator[dict[str, float | str]]:
    """Enhance and score one pair after the other; each result is {"picture": name, **scores}, see `assess`.

    Args:
        enhance: (3, H, W) in [0, 1] to the same shape and range. It never sees the ground truth.

    Raises:
        ValueError: a file cannot be read or is transparent in places, or the two pictures of a pair differ in size.
    """
    for name, low, high in pairs:
        dark = _whole(low)
        reference = _whole(high)[None] if high else None
        if high and dark.shape != reference.shape[1:]:
            sizes = " and ".join(f"{x.shape[-1]}x{x.shape[-2]}" for x in (dark, reference))
            raise ValueError(f"{low} and {high} differ in size: {sizes}")
        yield {"picture": name, **assess(enhance(dark)[None], reference), "niqe_input": niqe(dark[None]).item()}


def _whole(path: Path) -> Tensor:
    """(3, H, W): a picture all of which is seen."""
    pixels = read_image(path).pixels
    if not is_opaque(pixels[None]):
        raise ValueError(f"{path}: transparent in places, which cannot be scored; give it a background")
    return pixels[:3]


def assess(result: Tensor, reference: Tensor | None = None) -> dict[str, float]:
    """Every figure there is of a (1, 3, H, W) picture in [0, 1], rounded to 8 bits: NIQE, and with a reference `score`
    and the exposure error. NIQE is NaN where the picture is too small for it."""
    result = (result * 255).round() / 255
    figures = {"niqe": niqe(result).item()}
    if reference is None:
        return figures
    return {**score(result, reference), "exposure_error": exposure_error(result, reference).item(), **figures}


def score(result: Tensor, reference: Tensor) -> dict[str, float]:
    """PSNR (dB) and SSIM of (1, 3, H, W) pictures in [0, 1], raw and after GT-mean.

    The result is rounded to the 8 bits of the file that people would get.
    """
    result = (result * 255).round() / 255
    rescaled = gt_mean(result, reference)
    values = psnr(result, reference), ssim(result, reference), psnr(rescaled, reference), ssim(rescaled, reference)
    return {key: value.item() for key, value in zip(SCORES, values, strict=True)}


def mean_of(rows: list[dict[str, float | str]]) -> dict[str, float | str]:
    """The row of means, as papers report them: of the pictures' PSNR values, not of their errors.

    A figure that a picture does not have (NaN) is left out of its mean.
    """
    means: dict[str, float | str] = {"picture": f"mean of {len(rows)}"}
    for key in (key for key in rows[0] if key in COLUMNS):
        known = [row[key] for row in rows if not math.isnan(row[key])]
        means[key] = sum(known) / len(known) if known else math.nan
    return means


def columns_of(row: dict[str, float | str]) -> list[str]:
    """The figures of a row in the order of `COLUMNS`."""
    return [key for key in COLUMNS if key in row]


def format_figure(key: str, value: float) -> str:
    """3 digits of PSNR, 2 of NIQE, 4 of what lies between 0 and 1; a dash for NaN."""
    digits = 3 if key.startswith("psnr") else 2 if key.startswith("niqe") else 4
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def format_header(row: dict[str, float | str]) -> str:
    """The line over rows like this one."""
    return f"{'picture':<20}{''.join(f'{COLUMNS[key]:>15}' for key in columns_of(row))}\n"


def format_row(row: dict[str, float | str]) -> str:
    """One line of the table under `format_header`."""
    return f"{row['picture']:<20}{''.join(f'{format_figure(key, row[key]):>15}' for key in columns_of(row))}\n"
