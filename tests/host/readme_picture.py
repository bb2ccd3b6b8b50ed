"""The picture of the README: three photographs as taken, with their brightness raised alone, and enhanced.

    .venv/bin/python -m tests.host.readme_picture

Free photographs from scikit-image's data, darkened by `jores.training.darkening.Darkening`: one lit in part (a cat by
Stefan van der Walt, CC0: lit from the left, at a thirtieth of the light on the right), one nearly black (NASA's
portrait of Eileen Collins, public domain: a hundredth of the light), one noisy (a cup by Rachel Michetti, CC0: a
twenty-fifth, at a high ISO). Needs no ComfyUI; a minute on two cores. tests/host/refresh_workflows.py makes it, too.
"""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import skimage.data
import torch
from PIL import Image
from torch import Tensor

from jores import pipeline
from jores.checkpoint import SHIPPED_SEGMENTER, SHIPPED_WEIGHTS, load_bundle
from jores.metrics import gt_mean
from jores.semantics import load_segmenter
from jores.training.convert import to_pixels, to_tensor
from tests.sensor import SENSOR

from .refresh_workflows import WORKFLOWS, write_jpeg

COLUMN = 400  # pixels, the width of each of three
SHADE = replace(SENSOR, gain=1 / 30)
BLACK = replace(SENSOR, gain=1 / 100)
NOISY = replace(SENSOR, gain=1 / 25, read_noise=0.006, shot_noise=0.012)


def photographs() -> list[Tensor]:
    """(3, H, W) each: lit in part, nearly black, noisy."""
    generator = torch.Generator().manual_seed(1)
    cat = to_tensor(skimage.data.chelsea())
    shade = torch.linspace(-0.7, 1.4, cat.shape[-1]).clamp(0, 1)
    shade = shade * shade * (3 - 2 * shade)
    half_lit = (1 - shade) * cat + shade * SHADE(cat, generator)
    black = BLACK(to_tensor(skimage.data.astronaut()[:400]), generator)
    noisy = NOISY(to_tensor(skimage.data.coffee()), generator)
    return [to_tensor(to_pixels(taken)) for taken in (half_lit, black, noisy)]


def row(low: Tensor, high: Tensor) -> Image.Image:
    """As taken, all levels times one number for the mean luma of the result, and the result."""
    made, left = [], 0
    for pixels in (low, gt_mean(low[None], high[None])[0], high):
        picture = Image.fromarray(to_pixels(pixels))
        made.append(picture.resize((COLUMN, COLUMN * picture.height // picture.width), Image.Resampling.LANCZOS))
    sheet = Image.new("RGB", (3 * COLUMN, made[0].height))
    for picture in made:
        sheet.paste(picture, (left, 0))
        left += COLUMN
    return sheet


def main() -> None:
    nets, segmenter = load_bundle(SHIPPED_WEIGHTS), load_segmenter(SHIPPED_SEGMENTER)
    rows = []
    for low in photographs():
        with torch.inference_mode():
            rows.append(row(low, pipeline.enhance(low[None], nets, segmenter)[0]))
    sheet = Image.fromarray(np.concatenate([np.asarray(one) for one in rows]))
    write_jpeg(WORKFLOWS / "before_after.jpg", sheet)
    sys.stdout.write(f"before_after.jpg: {sheet.width}x{sheet.height}\n")


if __name__ == "__main__":
    main()
