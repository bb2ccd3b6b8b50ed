"""Photographs of other cameras than LOL's, darkened in eleven ways that cameras and nights have: what comes back?

    python -m tests.benchmarks.unkind_light --pictures DATA/photos/coco_val128 [--every N] [--sheet PNG]

The pictures must be well lit and none of the training's; LOL's are left aside. Each way has fixed seeds, so the table
compares from one bundle to the next. "brightness alone" is the dark picture times one number, at the brightness that
ANet proposes: a slider. `--sheet` shows the first picture of each way: brightened, the rows, the truth.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from jores.checkpoint import SHIPPED_SEGMENTER, SHIPPED_WEIGHTS, load_bundle
from jores.files.pictures import find_images, read_image
from jores.imaging.exposure import mean_luma
from jores.metrics import gt_mean
from jores.metrics.scores import assess
from jores.options import SampleOptions
from jores.semantics import load_segmenter
from jores.training.darkening import Darkening, Lamp
from jores.training.records import contact_sheet
from tests.benchmarks.ablation import step_row, table, variants
from tests.sensor import sensor

GREY = (1.0, 1.0, 1.0)
WAYS = {
    "a 50th of the light": Darkening(1 / 50, 0.0008, 0.003, GREY),
    "a 300th of the light": Darkening(1 / 300, 0.0003, 0.002, GREY),
    "much noise": Darkening(1 / 50, 0.005, 0.012, GREY),
    "noise in patches": Darkening(1 / 50, 0.003, 0.008, GREY, patch=3),
    "grey grain of a camera's JPEG": Darkening(1 / 30, 0.002, 0.006, GREY, chroma=0.15, jpeg=90),
    "grey grain in patches": Darkening(1 / 30, 0.002, 0.006, GREY, chroma=0.3, jpeg=90, patch=3),
    "a power for a tone curve": Darkening(1 / 50, 0.0008, 0.003, GREY, toe=False),
    "a lamp in the dark": Darkening(1 / 100, 0.0008, 0.003, GREY, lamp=Lamp(0.6, -0.3, 0.7, 30.0)),
    "against the light": Darkening(1 / 2, 0.001, 0.004, GREY, depth=1.0),
    "coloured light": Darkening(1 / 50, 0.0008, 0.003, (1.7, 1.0, 0.55)),
    "a JPEG of quality 50": Darkening(1 / 30, 0.0008, 0.003, GREY, jpeg=50),
}
LEAST = 0.3
ROWS = ("brightness alone", "R' x L' alone", step_row(SampleOptions.steps))


def well_lit(paths: list[str], every: int, least: float = LEAST) -> list[Tensor]:
    """Every Nth picture of these files and folders, (1, 3, H, W), unless its mean luma is below `least`."""
    pictures = [read_image(path).pixels[None, :3] for path in find_images(paths)[::every]]
    return [picture for picture in pictures if mean_luma(picture).item() >= least]


def main(argv: list[str] | None = None, write: Callable[[str], object] = sys.stdout.write) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", nargs="+", required=True, help="well-lit pictures, or folders of them")
    parser.add_argument("--every", type=int, default=8, help="only every Nth picture (default: 8)")
    parser.add_argument("--least", type=float, default=LEAST, help="mean luma of a well-lit picture (default: 0.3)")
    parser.add_argument("--rows", nargs="*", default=ROWS, metavar="ROW", help=f"of these: {', '.join(ROWS)}")
    parser.add_argument("--sheet", type=Path, metavar="PNG")
    parser.add_argument("--weights", type=Path, default=SHIPPED_WEIGHTS)
    parser.add_argument("--segmenter", type=Path, default=SHIPPED_SEGMENTER)
    args = parser.parse_args(argv)
    nets, segmenter = load_bundle(args.weights), load_segmenter(args.segmenter)
    lit = well_lit(args.pictures, args.every, args.least)
    groups, shown = defaultdict(list), {}
    with torch.inference_mode():
        for way, darken in WAYS.items():
            for number, high in enumerate(lit):
                low = darken(high[0], sensor(number))[None]
                makers = variants(nets, segmenter, [SampleOptions.steps], low, high)
                results = {row: makers[row]() for row in args.rows}
                for row, result in results.items():
                    groups[f"{way}: {row}"].append(assess(result, high))
                if number == 0:
                    shown[way] = [gt_mean(low, high), *results.values(), high]
            sys.stderr.write(f"{way}\n")
    write(table("light", groups))
    if args.sheet:
        contact_sheet([torch.cat(row, 3)[0] for row in shown.values()], args.sheet)


if __name__ == "__main__":
    main()
