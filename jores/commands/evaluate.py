"""Quality scores of enhanced pictures: raw and after GT-mean where there is a ground truth, otherwise NIQE only."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from torch import Tensor

from ..checkpoint import SHIPPED_SEGMENTER, SHIPPED_WEIGHTS
from ..files.pictures import read_image
from ..files.records import without_nan
from ..files.saving import write_atomically
from ..files.tables import PairFiles, pairs_of_folders, pairs_of_table
from ..files.targets import make_folder, refuse_existing, refuse_inputs
from ..imaging.alpha import is_opaque
from ..metrics import niqe
from ..metrics.lpips import ENVIRONMENT, Lpips, load_lpips
from ..metrics.scores import assess
from .enhancer import Enhancer

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
    pairs: Iterable[PairFiles], enhance: Callable[[Tensor], Tensor], lpips: Lpips | None = None
) -> Iterator[dict[str, float | str]]:
    """Enhances and scores the pairs one by one.

    Args:
        enhance: maps a dark picture (3, H, W) in [0, 1] to a result of the same shape and range. It never gets the
            ground truth.
        lpips: the net that measures LPIPS; None leaves that score out.

    Yields:
        {"picture": name, **scores} for each pair: the scores of `assess`, and "niqe_input", the dark picture's NIQE.

    Raises:
        ValueError: a file cannot be read or has transparent pixels, or the two pictures of a pair differ in size.
    """
    for pair in pairs:
        dark, reference = read_pair(pair)
        figures = assess(enhance(dark)[None], None if reference is None else reference[None], lpips)
        yield {"picture": pair.name, **figures, "niqe_input": niqe(dark[None]).item()}


def read_pair(pair: PairFiles) -> tuple[Tensor, Tensor | None]:
    """The dark picture (3, H, W) in [0, 1] and its ground truth, if there is one. Raises ValueError: see `evaluate`."""
    dark, reference = _read_opaque(pair.low), _read_opaque(pair.high) if pair.high else None
    if reference is not None and dark.shape != reference.shape:
        sizes = " and ".join(f"{x.shape[-1]}x{x.shape[-2]}" for x in (dark, reference))
        raise ValueError(f"{pair.low} and {pair.high} differ in size: {sizes}")
    return dark, reference


def _read_opaque(path: Path) -> Tensor:
    """(3, H, W) in [0, 1]. Raises ValueError for a picture with transparent pixels."""
    pixels = read_image(path).pixels
    if not is_opaque(pixels[None]):
        raise ValueError(f"{path}: transparent in places, so it cannot be scored; flatten it onto a background first")
    return pixels[:3]


def mean_of(rows: list[dict[str, float | str]]) -> dict[str, float | str]:
    """The mean of every score over the pictures. As in papers, PSNR values are averaged, not mean squared errors.

    Pictures whose score is NaN are left out of the mean of that score.
    """
    means: dict[str, float | str] = {"picture": f"mean of {len(rows)}"}
    for key in (key for key in rows[0] if key in COLUMNS):
        known = [value for row in rows if not math.isnan(value := float(row[key]))]
        means[key] = sum(known) / len(known) if known else math.nan
    return means


def columns_of(row: dict[str, float | str]) -> list[str]:
    """The scores that this row has, in the order of `COLUMNS`."""
    return [key for key in COLUMNS if key in row]


def format_figure(key: str, value: float) -> str:
    """`value` with 3 decimals for PSNR, 2 for NIQE and 4 for every other score; "-" for NaN."""
    digits = 3 if key.startswith("psnr") else 2 if key.startswith("niqe") else 4
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def format_header(row: dict[str, float | str]) -> str:
    """The header line of the table, for rows with the same scores as this one."""
    return f"{'picture':<20}{''.join(f'{COLUMNS[key]:>15}' for key in columns_of(row))}\n"


def format_row(row: dict[str, float | str]) -> str:
    """One line of the table under `format_header`."""
    return f"{row['picture']:<20}{''.join(f'{format_figure(key, float(row[key])):>15}' for key in columns_of(row))}\n"


def _read_files(args: argparse.Namespace, pairs: Iterable[PairFiles]) -> list[Path]:
    """All files that a run reads."""
    pictures = [path for pair in pairs for path in (pair.low, pair.high) if path]
    lpips = args.lpips or os.environ.get(ENVIRONMENT)
    others = [Path(path) for path in (args.pairs_tsv, args.weights, lpips) if path]
    folder = args.segmenter if args.segmenter and Path(args.segmenter).is_dir() else SHIPPED_SEGMENTER
    return [*pictures, *others, args.weights or SHIPPED_WEIGHTS, *Path(folder).iterdir()]


def run(args: argparse.Namespace) -> int:
    """`jores evaluate`: prints one line per picture, then the means; `--output` also writes them as JSON.

    Returns the exit code 0. Raises ValueError for missing or unreadable input.
    """
    if args.pairs_tsv:
        pairs = pairs_of_table(args.pairs_tsv, args.split)
    elif args.low:
        for option, folder in (("--low", args.low), ("--high", args.high)):
            if folder and not folder.exists():
                raise ValueError(f"{option} {folder}: no such folder")
        pairs = pairs_of_folders(args.low, args.high)
    else:
        raise ValueError("evaluate needs --low (and --high for every score except NIQE), or --pairs-tsv")
    if args.output:
        refuse_inputs(args.output, _read_files(args, pairs), "--output")
        refuse_existing(args.output, args.overwrite, "--output")
        make_folder(args.output.parent, "--output")
    lpips, enhancer = load_lpips(args.lpips), Enhancer.from_args(args)
    for pair in pairs:  # a pair that cannot be scored is named before the first one is enhanced
        read_pair(pair)
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
        write_atomically(args.output, json.dumps(report, indent=1, allow_nan=False).encode())
    return 0
