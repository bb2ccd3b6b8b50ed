"""How an edge of the light comes out: a dark plane beside a bright one, brightened.

    python -m tests.benchmarks.halos [--weights FILE] [--exposure auto|0..1] [--sheet PNG]

Overshoot is by how much the result leaves its own two plateaus beside the edge, in per cent of the step between them:
"rim" on the outside of the step (a dark line in the dark, a bright one in the light), "haze" on its inside, two pixels
from the edge and further.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from jores import pipeline
from jores.checkpoint import SHIPPED_SEGMENTER, SHIPPED_WEIGHTS, load_bundle
from jores.imaging.exposure import luma
from jores.options import SampleOptions
from jores.semantics import load_segmenter
from jores.training.records import contact_sheet

SIZE, EDGE, SPARED = (256, 384), 192, 2
HEAD = """| step | plateaus of the result | rim, % | haze, % | R' x L' alone: rim, % | haze, % |
|---|---|---|---|---|---|
"""
STEPS = {"0.05 | 0.8": (0.05, 0.8), "0.02 | 0.9": (0.02, 0.9), "0.1 | 0.6": (0.1, 0.6)}


def step_picture(dark: float, light: float) -> Tensor:
    """(1, 3, H, W), dark on the left, with the noise of 8 bits and no other."""
    picture = torch.full((1, 3, *SIZE), dark)
    picture[..., EDGE:] = light
    generator = torch.Generator().manual_seed(0)
    return ((picture * 255 + torch.rand(picture.shape, generator=generator) - 0.5).round() / 255).clamp(0, 1)


def overshoot(result: Tensor) -> tuple[float, float]:
    """Rim and haze in per cent of the step."""
    profile = luma(result)[0, 0, 32:-32].mean(0)
    left, right = profile[32 : EDGE - SPARED], profile[EDGE + SPARED : -32]
    low, high = profile[32 : EDGE // 2].median(), profile[EDGE + EDGE // 2 : -32].median()
    rim = max(float(low - left.min()), float(right.max() - high), 0.0)
    haze = max(float(left.max() - low), float(high - right.min()), 0.0)
    return 100 * rim / float(high - low), 100 * haze / float(high - low)


def main(argv: list[str] | None = None, write: Callable[[str], object] = sys.stdout.write) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, default=SHIPPED_WEIGHTS)
    parser.add_argument("--segmenter", type=Path, default=SHIPPED_SEGMENTER)
    parser.add_argument("--exposure", default="auto", help="mean luma of the result (default: auto)")
    parser.add_argument("--sheet", type=Path, metavar="PNG")
    args = parser.parse_args(argv)
    nets, segmenter = load_bundle(args.weights), load_segmenter(args.segmenter)
    exposure, shown = None if args.exposure == "auto" else float(args.exposure), []
    write(HEAD)
    with torch.inference_mode():
        for name, (dark, light) in STEPS.items():
            low = step_picture(dark, light)
            retinex = pipeline.adjust(nets, pipeline.decompose(nets, low), exposure=exposure).picture
            result = pipeline.enhance(low, nets, segmenter, SampleOptions(exposure=exposure))
            plateaus = [luma(result)[..., 64:-64, part].median() for part in (slice(32, 96), slice(288, 352))]
            figures = " | ".join(f"{value:.2f}" for value in (*overshoot(result), *overshoot(retinex)))
            write(f"| {name} | {plateaus[0]:.2f}, {plateaus[1]:.2f} | {figures} |\n")
            shown.append(torch.cat([low, retinex, result], 3)[0])
    if args.sheet:
        contact_sheet(shown, args.sheet)


if __name__ == "__main__":
    main()
