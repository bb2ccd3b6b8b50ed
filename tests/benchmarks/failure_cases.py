"""Where it fails, as a picture: the worst held-out pairs by GT-mean PSNR and by exposure error on one contact sheet.

    python -m tests.benchmarks.failure_cases --pairs-tsv DATA/pairs.tsv --output failures.jpg [--worst 4] [--every N]
    python -m tests.benchmarks.failure_cases --output jores/weights/failures.jpg

Without a table of pairs: free photographs from scikit-image's data, spoilt in ways that ask too much of the nets. Each
row: the input lifted to the ground truth's mean brightness (it is too dark to be seen otherwise), R' x L', the
result, the ground truth. GT-mean PSNR finds noise, smear and wrong colours, the exposure error wrong brightness.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import skimage.data
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn

from jores import pipeline
from jores.checkpoint import SHIPPED_SEGMENTER, SHIPPED_WEIGHTS, JoReSNets, load_bundle
from jores.files.pictures import read_image
from jores.files.tables import PairFiles, pairs_of_table
from jores.metrics import gt_mean
from jores.metrics.scores import assess
from jores.options import SampleOptions
from jores.semantics import load_segmenter
from jores.training.convert import to_pixels, to_tensor
from jores.training.darkening import Darkening, as_jpeg
from tests.flat import flat

TITLES = ("input, brightened", "R' x L'", "result", "ground truth")
MARGIN, CAPTION = 8, 22


class Case(NamedTuple):
    name: str
    figures: dict[str, float]
    pictures: tuple[Image.Image, ...]  # as `TITLES`


class Spoilt(NamedTuple):
    """A (1, 3, H, W) dark picture and its truth."""

    name: str
    low: Tensor
    high: Tensor

    @classmethod
    def of_pair(cls, pair: PairFiles) -> Spoilt:
        return cls(pair.name, *(read_image(path).pixels[None, :3] for path in (pair.low, pair.high)))


def spoilt_photographs() -> Iterator[Spoilt]:
    coffee, cat, astronaut = (
        to_tensor(np.asarray(picture))
        for picture in (skimage.data.coffee(), skimage.data.cat(), skimage.data.astronaut())
    )
    none, clean = (1.0, 1.0, 1.0), torch.Generator().manual_seed(0)
    dark = Darkening(1 / 400, 0.0008, 0.003, none)(coffee, clean)
    yield Spoilt("a 400th of the light: few of the 256 levels are left", dark[None], coffee[None])
    noisy = Darkening(1 / 60, 0.006, 0.02, none)(astronaut, clean)
    yield Spoilt("more noise than was trained", noisy[None], astronaut[None])
    dark = Darkening(1 / 30, 0.0008, 0.003, none)(coffee, clean)
    yield Spoilt("saved as a JPEG of quality 20", as_jpeg(dark, 20)[None], coffee[None])
    lit, dark = (Darkening(gain, 0.0008, 0.003, none)(cat, clean) for gain in (1 / 2, 1 / 100))
    half = torch.linspace(-8, 8, cat.shape[-1]).sigmoid()
    yield Spoilt("one half in the light, the other dark", torch.lerp(lit, dark, half)[None], cat[None])
    cast = Darkening(1 / 40, 0.0008, 0.003, (2.2, 1.0, 0.4))(coffee, clean)
    yield Spoilt("the light of a candle", cast[None], coffee[None])


def judged(nets: JoReSNets, segmenter: nn.Module, pair: Spoilt, steps: int, width: int) -> Case:
    """One pair enhanced and scored at full size, its pictures shrunk to `width` pixels."""
    name, low, high = pair
    condition = pipeline.adjust(nets, pipeline.decompose(nets, low))
    prior = pipeline.segment(segmenter, low, nets)
    result = flat(pipeline.finish)(flat(pipeline.sample)(nets, condition, prior, low=low, steps=steps), low)
    shown = (gt_mean(low, high), condition.picture, result, high)
    return Case(name, assess(result, high), tuple(_thumbnail(picture, width) for picture in shown))


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
        f"exposure error {figures['exposure_error']:.2f}   own NIQE {figures['niqe']:.2f}"
    )


def _thumbnail(picture: Tensor, width: int) -> Image.Image:
    image = Image.fromarray(to_pixels(picture[0]))
    return image.resize((width, round(image.height * width / image.width)), Image.Resampling.LANCZOS)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs-tsv", type=Path)
    parser.add_argument("--split", default="val")
    parser.add_argument("--output", type=Path, required=True, metavar="JPEG")
    parser.add_argument("--worst", type=int, default=4, metavar="K", help="pairs of each kind (default: 4)")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only every Nth pair")
    parser.add_argument("--steps", type=int, default=SampleOptions.steps)
    parser.add_argument("--width", type=int, default=300, help="of each picture on the sheet (default: 300)")
    parser.add_argument("--weights", type=Path, default=SHIPPED_WEIGHTS)
    parser.add_argument("--segmenter", type=Path, default=SHIPPED_SEGMENTER)
    args = parser.parse_args(argv)
    nets, segmenter = load_bundle(args.weights), load_segmenter(args.segmenter)
    pairs = spoilt_photographs()
    if args.pairs_tsv:
        pairs = map(Spoilt.of_pair, pairs_of_table(args.pairs_tsv, args.split)[:: args.every])
    with torch.inference_mode():
        cases = [judged(nets, segmenter, pair, args.steps, args.width) for pair in pairs]
    rows = worst(cases, args.worst) if args.pairs_tsv else [("made to fail", case) for case in cases]
    contact_sheet(rows).save(args.output, "JPEG", quality=88)
    for reason, case in rows:
        sys.stdout.write(f"{reason}: {case.name}: {caption(case.figures)}\n")


if __name__ == "__main__":
    main()
