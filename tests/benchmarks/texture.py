"""What the diffusion adds to R' x L', its mean, in figures that say how a picture looks, beside those of its error.

    python -m tests.benchmarks.texture DATA/lol_v1/pairs.tsv DATA/sice/pairs.tsv --pictures PHOTOS --lpips FILE
        [--weights BUNDLE] [--former BUNDLE] [--steps 1 2 4 8] [--textures 0.25 0.5 0.75] [--grain 0.15]
        [--half 0|1] [--every N] [--rows ROW ...] [--sheet PNG]

All rows are told the truth's exposure. "grain" is the control that needs no training: R' x L' and a share of the
input's own luma grain. "former" is the result of another bundle in four steps. PSNR, LPIPS and the spectrum error are
after GT-mean; NIQE is fitted to our own pictures and compares among these rows only, with "truth" as its goal. PSNR's
and LPIPS's intervals are 95 % of the mean (bootstrap over scenes). `--pictures` are well-lit photographs, which are
darkened in the eleven ways of `unkind_light`; `--every` thins them and the pairs. The sheet shows crops of 200 pixels
at 300 %: the input brightened, the rows in their order, the truth.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from jores import pipeline
from jores.checkpoint import SHIPPED_SEGMENTER, SHIPPED_WEIGHTS, JoReSNets, load_bundle
from jores.imaging.exposure import luma, mean_luma
from jores.metrics import gt_mean
from jores.metrics.lpips import load_lpips
from jores.metrics.scores import assess
from jores.nets.denoiser import fine_detail
from jores.options import SampleOptions
from jores.semantics import load_segmenter
from jores.training.convert import to_tensor
from jores.training.pairs import half_by_scene, load_sets
from jores.training.records import contact_sheet
from tests.benchmarks.real_light import interval
from tests.benchmarks.unkind_light import WAYS, well_lit
from tests.sensor import sensor

FIGURES = {"psnr_gt_mean": ("PSNR", 2), "lpips": ("LPIPS", 4), "niqe": ("NIQE", 2), "spectrum_error": ("spectrum", 3)}
SHARED = 1.0  # texture at which the numbers of steps are compared
CROP, ZOOM = 200, 3


@dataclass(frozen=True)
class Dark:
    """A dark picture and its truth, (1, 3, H, W) each."""

    kind: str
    scene: str
    low: Tensor
    high: Tensor


def pictures(args: argparse.Namespace) -> Iterator[Dark]:
    pairs = load_sets(args.tables, "val") if args.tables else []
    pairs = pairs if args.half is None else half_by_scene(pairs, args.half)
    for pair in pairs[:: args.every]:
        yield Dark(pair.kind, pair.scene or pair.name, to_tensor(pair.low)[None], to_tensor(pair.high)[None])
    lit = well_lit(args.pictures, args.every) if args.pictures else []
    for darken in WAYS.values():
        for number, high in enumerate(lit):
            yield Dark("eleven lights", str(number), darken(high[0], sensor(number))[None], high)


def rows_of(
    dark: Dark, nets: JoReSNets, former: JoReSNets | None, segmenter: torch.nn.Module, args: argparse.Namespace
) -> dict[str, Tensor]:
    """Every row's picture, (1, 3, H, W) in [0, 1]."""
    mean, drawn = sampled(dark, nets, segmenter, args.steps)
    usual = SampleOptions.steps if SampleOptions.steps in args.steps else max(args.steps)
    rows = {"truth": dark.high, "R' x L'": mean, f"grain {args.grain:g}": mean + args.grain * grain(dark.low, mean)}
    if former is not None:
        _, old = sampled(dark, former, segmenter, [4])
        rows["former, 4 steps"] = old[4]
    for steps, picture in drawn.items():
        rows[f"{steps} steps, texture {SHARED:g}"] = torch.lerp(mean, picture, SHARED)
    for texture in args.textures:
        rows[f"{usual} steps, texture {texture:g}"] = torch.lerp(mean, drawn[usual], texture)
    return {name: picture.clamp(0, 1) for name, picture in rows.items() if not args.rows or name in args.rows}


def sampled(
    dark: Dark, nets: JoReSNets, segmenter: torch.nn.Module, counts: Iterable[int], seeds: Iterable[int] = (0,)
) -> tuple[Tensor, dict[int, Tensor]]:
    """R' x L', and for each number of steps all that is drawn, a picture for every seed."""
    condition = pipeline.adjust(nets, pipeline.decompose(nets, dark.low), exposure=mean_luma(dark.high))
    prior = pipeline.segment(segmenter, dark.low, nets)
    seeds = list(seeds)

    def made(steps: int, seed: int) -> Tensor:
        options = SampleOptions(steps, seed, texture=1.0)
        return (pipeline.sample(nets, condition, prior, options, low=dark.low) + 1) / 2

    return condition.picture, {steps: torch.cat([made(steps, seed) for seed in seeds]) for steps in counts}


def grain(low: Tensor, mean: Tensor) -> Tensor:
    """The fine luma detail of the input, lifted by the gain that R' x L' has there, (1, 1, H, W)."""
    gain = F.avg_pool2d(luma(mean), 9, 1, 4) / F.avg_pool2d(luma(low), 9, 1, 4).clamp_min(1 / 255)
    return fine_detail(luma(low)) * gain


def write_table(found: dict[str, list[tuple[str, dict[str, float]]]], write: Callable[[str], object]) -> None:
    write(
        f"| row | pictures | {' | '.join(title for title, _ in FIGURES.values())} |\n|---|---|{'---|' * len(FIGURES)}\n"
    )
    for name, records in found.items():
        cells = []
        for key, (_, digits) in FIGURES.items():
            known = [(row[key], scene) for scene, row in records if key in row and row[key] == row[key]]
            if not known or name == "truth" and key != "niqe":
                cells.append("-")
                continue
            values, scenes = [value for value, _ in known], [scene for _, scene in known]
            cell = f"{statistics.fmean(values):.{digits}f}"
            if key in ("psnr_gt_mean", "lpips") and len(set(scenes)) > 1:
                cell += " [{:.{d}f}, {:.{d}f}]".format(*interval(values, scenes), d=digits)
            cells.append(cell)
        write(f"| {name} | {len(records)} | {' | '.join(cells)} |\n")
    write("\n")


def crops(dark: Dark, made: dict[str, Tensor]) -> Tensor:
    """The busiest part of the truth as the sheet shows it, (3, H, W)."""
    _, place = busiest(dark.high)
    return torch.cat([enlarged(p, place) for p in (gt_mean(dark.low, dark.high), *made.values(), dark.high)], 2)


def busiest(high: Tensor) -> tuple[float, tuple[slice, slice]]:
    """How much fine detail the busiest CROP x CROP pixels of a picture (1, 3, H, W) have, and where they are."""
    busy = F.avg_pool2d(fine_detail(luma(high)).abs(), min(CROP, *high.shape[-2:]), 20)[0, 0]
    top, left = (20 * int(i) for i in divmod(int(busy.argmax()), busy.shape[1]))
    return float(busy.max()), (slice(top, top + CROP), slice(left, left + CROP))


def enlarged(picture: Tensor, place: tuple[slice, slice]) -> Tensor:
    """A crop as it is shown, (3, CROP * ZOOM, CROP * ZOOM); a smaller one is filled up with black."""
    cut = picture[..., place[0], place[1]]
    cut = F.pad(cut, (0, CROP - cut.shape[-1], 0, CROP - cut.shape[-2]))
    return F.interpolate(cut, scale_factor=ZOOM, mode="nearest")[0]


def main(argv: list[str] | None = None, write: Callable[[str], object] = sys.stdout.write) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", type=Path, nargs="*", help="tables of pairs, of which split=val is used")
    parser.add_argument("--pictures", nargs="+", help="well-lit pictures, or folders of them")
    parser.add_argument("--lpips", type=Path, help="weights of LPIPS (default: what JORES_LPIPS names)")
    parser.add_argument("--weights", type=Path, default=SHIPPED_WEIGHTS)
    parser.add_argument("--former", type=Path)
    parser.add_argument("--segmenter", type=Path, default=SHIPPED_SEGMENTER)
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--textures", type=float, nargs="+", default=[0.25, 0.5, 0.75])
    parser.add_argument("--grain", type=float, default=0.15)
    parser.add_argument("--half", type=int, choices=(0, 1), help="only every other scene of the pairs")
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--rows", nargs="*", help="only these rows")
    parser.add_argument("--sheet", type=Path, metavar="PNG")
    args = parser.parse_args(argv)
    nets, segmenter, lpips = load_bundle(args.weights), load_segmenter(args.segmenter), load_lpips(args.lpips)
    former = load_bundle(args.former) if args.former else None
    found: dict[str, dict[str, list[tuple[str, dict[str, float]]]]] = defaultdict(lambda: defaultdict(list))
    shown: list[Tensor] = []
    with torch.inference_mode():
        for i, dark in enumerate(pictures(args)):
            made = rows_of(dark, nets, former, segmenter, args)
            for name, picture in made.items():
                found[dark.kind][name].append((dark.scene, assess(picture, dark.high, lpips)))
            if args.sheet:
                shown.append(crops(dark, {name: made[name] for name in made if name != "truth"}))
            sys.stderr.write(f"\r{i + 1} pictures")
    for kind, rows in found.items():
        write(f"{kind}\n\n")
        write_table(rows, write)
    if args.sheet:
        contact_sheet(shown, args.sheet)


if __name__ == "__main__":
    main()
