"""Photographs as cameras took them, lit in part and dark all over, against a truth: the figures of the model card.

    python -m tests.benchmarks.real_light DATA/sice/pairs.tsv DATA/sice/shade.tsv DATA/lol_v1/pairs.tsv
        [--lpips FILE] [--half 0|1] [--steps 4] [--rows ROW ...] [--every N] [--sheet PNG]

One table for each row and a line for each kind of light, with 95 % intervals of the means (bootstrap over scenes).
"input" is the picture as it is. Half 0 of the scenes is what weights are chosen by, half 1 what is reported; the scenes
of all tables named are counted together, so name those of the model card for its halves. Brightness and colourfulness
are medians of result / truth; "shadows" is the same where the input is below a luma of 0.1; "clipped" is the mean of
the share of pixels at white less the truth's, in points. LPIPS is after GT-mean.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from jores import pipeline
from jores.checkpoint import SHIPPED_SEGMENTER, SHIPPED_WEIGHTS, JoReSNets, load_bundle
from jores.imaging.exposure import luma, mean_luma
from jores.metrics import gt_mean
from jores.metrics.lpips import Lpips, load_lpips
from jores.metrics.scores import assess
from jores.options import SampleOptions
from jores.semantics import load_segmenter
from jores.training.convert import to_tensor
from jores.training.pairs import Pair, half_by_scene, load_sets
from jores.training.records import contact_sheet

MEANS = ("psnr_raw", "psnr_gt_mean", "ssim_raw", "lpips", "niqe", "exposure_error", "clipped")
MEDIANS = ("brightness", "shadows", "colour")
TITLES = {
    "psnr_raw": "PSNR raw", "psnr_gt_mean": "PSNR GT-mean", "ssim_raw": "SSIM raw", "lpips": "LPIPS", "niqe": "NIQE",
    "exposure_error": "exposure error", "clipped": "clipped, points", "brightness": "brightness", "shadows": "shadows",
    "colour": "colourfulness",
}  # fmt: skip
RESAMPLED = 2000
DARK = 0.1  # pixels of the input with a lower luma are shadow
CLIPPED = 254 / 255  # a channel from this value on is clipped
Row = dict[str, float]


def rows_of(nets: JoReSNets, segmenter, low: Tensor, high: Tensor, steps: int) -> dict[str, Callable[[], Tensor]]:
    """What can be asked of a pair, as functions that make the picture."""
    maps = pipeline.decompose(nets, low)

    def sampled(exposure: Tensor | None) -> Tensor:
        condition = pipeline.adjust(nets, maps, exposure=exposure)
        prior = pipeline.segment(segmenter, low, nets)
        x0 = pipeline.sample(nets, condition, prior, SampleOptions(steps=steps), low=low)
        return pipeline.finish(x0, low)

    return {
        "input": lambda: low,
        "R' x L'": lambda: pipeline.adjust(nets, maps).picture,
        "R' x L', told": lambda: pipeline.adjust(nets, maps, exposure=mean_luma(high)).picture,
        "result": lambda: sampled(None),
        "result, told": lambda: sampled(mean_luma(high)),
    }


def figures(result: Tensor, low: Tensor, high: Tensor, lpips: Lpips | None) -> Row:
    found = assess(result, high)
    result = (result * 255).round() / 255
    found["lpips"] = lpips(gt_mean(result, high), high).item() if lpips else math.nan
    found["clipped"] = 100 * (clipped_share(result) - clipped_share(high)).item()
    found["brightness"] = (mean_luma(result) / mean_luma(high)).item()
    found["shadows"] = shadow_ratio(result, high, low)
    found["colour"] = (colourfulness(result) / colourfulness(high).clamp_min(1e-3)).item()
    return found


def colourfulness(images: Tensor) -> Tensor:
    """Colourfulness of (B, 3, H, W) pictures in [0, 1], as (B,): 0 is grey, 0.4 vivid (Hasler and Suesstrunk, 2003)."""
    red, green, blue = images.float().unbind(1)
    opponents = torch.stack([red - green, (red + green) / 2 - blue], 1).flatten(2)
    spread = opponents.std(2, correction=0).square().sum(1).sqrt()
    return spread + 0.3 * opponents.mean(2).square().sum(1).sqrt()


def clipped_share(images: Tensor) -> Tensor:
    """Share of pixels with at least one clipped channel in (B, 3, H, W) pictures in [0, 1], as (B,)."""
    return (images >= CLIPPED).any(1).float().mean((1, 2))


def shadow_ratio(result: Tensor, truth: Tensor, dark: Tensor) -> float:
    """Mean luma of the result divided by that of the truth, over the pixels that are shadow in the dark picture.

    Shadow is a luma below DARK; NaN if there is none. All three are (1, 3, H, W) in [0, 1].
    """
    where = luma(dark) < DARK
    if not bool(where.any()):
        return float("nan")
    return float(luma(result)[where].mean() / luma(truth)[where].mean().clamp_min(1e-3))


def interval(values: list[float], scenes: list[str]) -> tuple[float, float]:
    """95 % of the mean when scenes are drawn anew."""
    grouped = {scene: [v for v, s in zip(values, scenes, strict=True) if s == scene] for scene in sorted(set(scenes))}
    sums = np.array([[sum(v), len(v)] for v in grouped.values()])
    drawn = np.random.default_rng(0).integers(len(sums), size=(RESAMPLED, len(sums)))
    totals = sums[drawn].sum(1)
    low, high = np.quantile(totals[:, 0] / totals[:, 1], (0.025, 0.975))
    return float(low), float(high)


def line(kind: str, records: list[Row], scenes: list[str]) -> str:
    cells = []
    for key in MEANS:
        known = [(r[key], s) for r, s in zip(records, scenes, strict=True) if not math.isnan(r[key])]
        if not known:
            cells.append("-")
            continue
        values, of = [v for v, _ in known], [s for _, s in known]
        digits = 3 if key in ("ssim_raw", "lpips", "exposure_error") else 2
        low, high = interval(values, of)
        cells.append(f"{statistics.fmean(values):.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]")
    for key in MEDIANS:
        known = [r[key] for r in records if not math.isnan(r[key])]
        cells.append(f"{statistics.median(known):.2f}" if known else "-")
    return f"| {kind} | {len(records)} | {len(set(scenes))} | {' | '.join(cells)} |\n"


def sheet_row(pictures: list[Tensor]) -> Tensor:
    """Pictures of one size side by side, (3, H, W), 512 pixels wide each and all equally high."""
    wide = torch.cat(pictures, 3)
    return torch.nn.functional.interpolate(wide, (384, 512 * len(pictures)), mode="area")[0]


def main(argv: list[str] | None = None, write: Callable[[str], object] = sys.stdout.write) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", type=Path, nargs="+", help="tables of pairs, or folders with a pairs.tsv")
    parser.add_argument("--split", default="val")
    parser.add_argument("--half", type=int, choices=(0, 1), help="only every other scene")
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--steps", type=int, default=SampleOptions.steps)
    parser.add_argument("--rows", nargs="*", default=["input", "R' x L'", "result"])
    parser.add_argument("--lpips", type=Path, help="weights of LPIPS (default: what JORES_LPIPS names)")
    parser.add_argument("--weights", type=Path, default=SHIPPED_WEIGHTS)
    parser.add_argument("--segmenter", type=Path, default=SHIPPED_SEGMENTER)
    parser.add_argument("--sheet", type=Path, metavar="PNG", help="every 7th pair and the worst 6")
    args = parser.parse_args(argv)
    nets, segmenter, lpips = load_bundle(args.weights), load_segmenter(args.segmenter), load_lpips(args.lpips)
    pairs = load_sets(args.tables, args.split)
    pairs = (pairs if args.half is None else half_by_scene(pairs, args.half))[:: args.every]
    found: dict[str, list[tuple[Pair, Row]]] = {name: [] for name in args.rows}
    shown: list[tuple[float, Tensor]] = []
    with torch.inference_mode():
        for i, pair in enumerate(pairs):
            low, high = to_tensor(pair.low)[None], to_tensor(pair.high)[None]
            makers = rows_of(nets, segmenter, low, high, args.steps)
            made = {name: makers[name]() for name in args.rows}
            for name, picture in made.items():
                found[name].append((pair, figures(picture, low, high, lpips)))
            if args.sheet:
                shown.append((found[args.rows[-1]][-1][1]["psnr_raw"], sheet_row([low, *made.values(), high])))
            sys.stderr.write(f"\r{i + 1} of {len(pairs)} pairs")
    for name, records in found.items():
        titles = " | ".join(TITLES[key] for key in (*MEANS, *MEDIANS))
        write(f"| {name} | pairs | scenes | {titles} |\n|---{'|---' * (len(MEANS) + len(MEDIANS) + 2)}|\n")
        for kind in sorted({pair.kind for pair, _ in records}):
            of = [(pair.scene or pair.name, row) for pair, row in records if pair.kind == kind]
            write(line(kind, [row for _, row in of], [scene for scene, _ in of]))
        write("\n")
    if args.sheet:
        worst = sorted(shown, key=lambda s: s[0])[:6]
        contact_sheet([row for _, row in [*shown[::7], *worst]], args.sheet)


if __name__ == "__main__":
    main()
