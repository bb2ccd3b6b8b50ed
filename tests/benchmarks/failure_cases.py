"""Where it fails, as a picture: the worst held-out pairs by GT-mean PSNR and by exposure error on one contact sheet.

    python -m tests.benchmarks.failure_cases --pairs-tsv DATA/pairs.tsv --output failures.jpg [--worst 4] [--every N]

Each row: the input lifted to the ground truth's mean brightness (it is too dark to be seen otherwise), R' x L', the
result, the ground truth. GT-mean PSNR finds noise, smear and wrong colours, the exposure error wrong brightness.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn

from jores import pipeline
from jores.checkpoint import SHIPPED_SEGMENTER, SHIPPED_WEIGHTS, JoReSNets, load_bundle
from jores.evaluation import Pair, assess, pairs_of_table
from jores.imaging.files import read_image
from jores.metrics import gt_mean
from jores.nets.segmentation import load_segmenter

TITLES = ("input, brightened", "R' x L'", "result", "ground truth")
MARGIN, CAPTION = 8, 22


class Case(NamedTuple):
    name: str
    figures: dict[str, float]
    pictures: tuple[Image.Image, ...]  # as `TITLES`


def judged(nets: JoReSNets, segmenter: nn.Module, pair: Pair, steps: int, width: int) -> Case:
    """One pair enhanced and scored at full size, its pictures shrunk to `width` pixels."""
    low, high = (read_image(path).pixels[None, :3] for path in (pair.low, pair.high))
    condition = pipeline.adjust(nets, pipeline.decompose(nets, low))
    prior = pipeline.segment(segmenter, low)
    result = pipeline.finish(pipeline.sample(nets, condition, prior, low=low, steps=steps), low)
    shown = (gt_mean(low, high), condition.picture, result, high)
    return Case(pair.name, assess(result, high), tuple(_thumbnail(picture, width) for picture in shown))


def worst(cases: list[Case], count: int) -> list[tuple[str, Case]]:
    """(why it is shown, case): `count` of the lowest GT-mean PSNR, then as many of the largest exposure error."""
    noisy = sorted(cases, key=lambda c: c.figures["psnr_gt_mean"])[:count]
    astray = sorted(cases, key=lambda c: -c.figures["exposure_error"])[:count]
    return [("lowest GT-mean PSNR", c) for c in noisy] + [("largest exposure error", c) for c in astray]


def contact_sheet(rows: list[tuple[str, Case]]) -> Image.Image:
    width = rows[0][1].pictures[0].width + MARGIN
    heights = [CAPTION + case.pictures[0].height + MARGIN for _, case in rows]
    sheet = Image.new("RGB", (MARGIN + width * len(TITLES), CAPTION + sum(heights)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for column, title in enumerate(TITLES):
        draw.text((MARGIN + column * width, 4), title, "black", font)
    top = CAPTION
    for (reason, case), height in zip(rows, heights, strict=True):
        draw.text((MARGIN, top + 2), f"{reason}: {case.name}   {caption(case.figures)}", "black", font)
        for column, picture in enumerate(case.pictures):
            sheet.paste(picture, (MARGIN + column * width, top + CAPTION))
        top += height
    return sheet


def caption(figures: dict[str, Any]) -> str:
    return (
        f"PSNR {figures['psnr_raw']:.2f} dB raw, {figures['psnr_gt_mean']:.2f} dB GT-mean   "
        f"SSIM {figures['ssim_raw']:.3f} raw, {figures['ssim_gt_mean']:.3f} GT-mean   "
        f"exposure error {figures['exposure_error']:.2f}   NIQE {figures['niqe']:.2f}"
    )


def _thumbnail(picture: Tensor, width: int) -> Image.Image:
    levels = (picture[0].clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    image = Image.fromarray(levels)
    return image.resize((width, round(image.height * width / image.width)), Image.Resampling.LANCZOS)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs-tsv", type=Path, required=True)
    parser.add_argument("--split", default="val")
    parser.add_argument("--output", type=Path, required=True, metavar="JPEG")
    parser.add_argument("--worst", type=int, default=4, metavar="K", help="pairs of each kind (default: 4)")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only every Nth pair")
    parser.add_argument("--steps", type=int, default=pipeline.DEFAULT_STEPS)
    parser.add_argument("--width", type=int, default=300, help="of each picture on the sheet (default: 300)")
    parser.add_argument("--weights", type=Path, default=SHIPPED_WEIGHTS)
    parser.add_argument("--segmenter", type=Path, default=SHIPPED_SEGMENTER)
    args = parser.parse_args(argv)
    nets, segmenter = load_bundle(args.weights), load_segmenter(args.segmenter)
    pairs = pairs_of_table(args.pairs_tsv, args.split)[:: args.every]
    with torch.inference_mode():
        cases = [judged(nets, segmenter, pair, args.steps, args.width) for pair in pairs]
    rows = worst(cases, args.worst)
    contact_sheet(rows).save(args.output, "JPEG", quality=88)
    for reason, case in rows:
        sys.stdout.write(f"{reason}: {case.name}: {caption(case.figures)}\n")


if __name__ == "__main__":
    main()
