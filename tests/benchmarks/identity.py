"""What the whole pipeline, at its own exposure, does to pictures that are well lit already: PSNR against the input.

    python -m tests.benchmarks.identity --pictures DATA/photos/coco_val128 [--pairs-tsv DATA/pairs.tsv] [--every N]

`--pairs-tsv` adds the ground truth of a table's pairs. A picture counts as well lit from `--least` of mean luma.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from pathlib import Path

from jores import pipeline
from jores.checkpoint import SHIPPED_SEGMENTER, SHIPPED_WEIGHTS, load_bundle
from jores.files.pictures import find_images, read_image
from jores.files.tables import pairs_of_table
from jores.imaging.exposure import mean_luma
from jores.metrics import psnr
from jores.semantics import load_segmenter


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", nargs="*", default=[], help="pictures, or folders of them")
    parser.add_argument("--pairs-tsv", type=Path)
    parser.add_argument("--split", default="val")
    parser.add_argument("--least", type=float, default=0.3, help="mean luma from which a picture is well lit")
    parser.add_argument("--target", type=float, default=30.0, help="dB that every picture should reach")
    parser.add_argument("--every", type=int, default=1, help="only every Nth picture, for a quick look")
    args = parser.parse_args(argv)
    sources = {"pictures": find_images(args.pictures) if args.pictures else []}
    if args.pairs_tsv:
        sources["ground truths"] = [pair.high for pair in pairs_of_table(args.pairs_tsv, args.split)]
    nets, segmenter = load_bundle(SHIPPED_WEIGHTS), load_segmenter(SHIPPED_SEGMENTER)
    for source, paths in sources.items():
        scores = []
        for path in paths[:: args.every]:
            picture = read_image(path).pixels[None, :3]
            luma = mean_luma(picture).item()
            if luma < args.least:
                continue
            result = (pipeline.enhance(picture, nets, segmenter) * 255).round() / 255
            scores.append(min(psnr(result, picture).item(), 99.0))  # 99: no pixel was changed
            sys.stdout.write(f"{path.name:<24}mean luma {luma:.3f}   {scores[-1]:6.2f} dB\n")
            sys.stdout.flush()
        if scores:
            reached = sum(score >= args.target for score in scores)
            sys.stdout.write(
                f"{source}: {len(scores)} well lit; mean {math.fsum(scores) / len(scores):.2f} dB, "
                f"median {statistics.median(scores):.2f}, least {min(scores):.2f}; "
                f"{reached} reach {args.target:g} dB\n"
            )


if __name__ == "__main__":
    main()
