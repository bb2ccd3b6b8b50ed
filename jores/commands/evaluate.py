"""Scores of an enhancement: against ground truth by both protocols of the field, always told apart, and without one."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from torch import Tensor

from ..files.pictures import read_image
from ..files.records import without_nan
from ..files.saving import write_whole
from ..files.tables import Pair, pairs_of_folders, pairs_of_table
from ..files.targets import refuse_inputs
from ..imaging.alpha import is_opaque
from ..metrics import niqe
from ..metrics.lpips import Lpips, load_lpips
from ..metrics.scores import assess
from .enhance import Enhancer

COLUMNS = {
    "psnr_raw": "PSNR raw",
    "ssim_raw": "SSIM raw",
    "psnr_gt_mean": "PSNR GT-mean",
    "ssim_gt_mean": "SSIM GT-mean",
    "exposure_error": "exposure error",
    "spectrum_error": "spectrum error",
    "lpips": "LPIPS GT-mean",
    "niqe_input": "own NIQE input",
    "niqe": "own NIQE",
}


def evaluate(
    pairs: Iterable[Pair], enhance: Callable[[Tensor], Tensor], lpips: Lpips | None = None
) -> Iterator[dict[str, float | str]]:
    """Enhance and score one pair after the other; each result is {"picture": name, **scores}, see `assess`.

    Args:
        enhance: (3, H, W) in [0, 1] to the same shape and range. It never sees the ground truth.
        lpips: the net that measures LPIPS; without it that figure is left out.

    Raises:
        ValueError: a file cannot be read or is transparent in places, or the two pictures of a pair differ in size.
    """
    for name, low, high in pairs:
        dark = _whole(low)
        reference = _whole(high)[None] if high else None
        if reference is not None and dark.shape != reference.shape[1:]:
            sizes = " and ".join(f"{x.shape[-1]}x{x.shape[-2]}" for x in (dark, reference))
            raise ValueError(f"{low} and {high} differ in size: {sizes}")
        figures = assess(enhance(dark)[None], reference, lpips)
        yield {"picture": name, **figures, "niqe_input": niqe(dark[None]).item()}


def _whole(path: Path) -> Tensor:
    """(3, H, W): a picture all of which is seen."""
    pixels = read_image(path).pixels
    if not is_opaque(pixels[None]):
        raise ValueError(f"{path}: transparent in places, which cannot be scored; give it a background")
    return pixels[:3]


def mean_of(rows: list[dict[str, float | str]]) -> dict[str, float | str]:
    """The row of means, as papers report them: of the pictures' PSNR values, not of their errors.

    A figure that a picture does not have (NaN) is left out of its mean.
    """
    means: dict[str, float | str] = {"picture": f"mean of {len(rows)}"}
    for key in (key for key in rows[0] if key in COLUMNS):
        known = [value for row in rows if not math.isnan(value := float(row[key]))]
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
    return f"{row['picture']:<20}{''.join(f'{format_figure(key, float(row[key])):>15}' for key in columns_of(row))}\n"


def run(args: argparse.Namespace) -> int:
    """`jores evaluate`: a line for each picture, then the means."""
    if args.pairs_tsv:
        pairs = pairs_of_table(args.pairs_tsv, args.split)
    elif args.low:
        pairs = pairs_of_folders(args.low, args.high)
    else:
        raise ValueError("evaluate needs --low, with --high for all but NIQE, or --pairs-tsv")
    if args.output:
        read = [path for pair in pairs for path in (pair.low, pair.high) if path]
        refuse_inputs(args.output, [*read, *filter(None, (args.pairs_tsv, args.weights))], "--output")
    lpips, enhancer = load_lpips(args.lpips), Enhancer.from_args(args)
    rows = []
    for row in evaluate(pairs, lambda pixels: enhancer(pixels)[0], lpips):
        sys.stdout.write(format_row(row) if rows else format_header(row) + format_row(row))
        sys.stdout.flush()
        rows.append(row)
    sys.stdout.write(format_row(mean_of(rows)))
    if args.output:
        settings = {"steps": args.steps, "seed": args.seed, "exposure": args.exposure or "auto"}
        settings |= {"brightness": args.brightness, "quality": args.quality, "texture": args.texture}
        report = without_nan({"settings": settings, "mean": mean_of(rows), "pictures": rows})
        write_whole(args.output, json.dumps(report, indent=1, allow_nan=False).encode())
    return 0
