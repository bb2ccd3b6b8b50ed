"""Fits the Gaussian of good photographs that NIQE compares with, and writes it to `niqe.safetensors` in this folder.

    python -m jores.metrics.pristine --photos DATA/photos/coco_train128 --pairs-tsv DATA/lol_v1/pairs.tsv

As in the paper, only patches with more than 0.75 times the sharpness of the picture's sharpest patch are used.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from ..files.pictures import find_images, read_image
from ..files.saving import write_atomically
from ..files.tables import rows_of_table
from .no_reference import PARAMETERS, patch_statistics

SHARP = 0.75  # of the sharpest patch of the same picture
HEADER = {
    "what": "mean (36) and covariance (36, 36) of NIQE features of sharp 96x96 patches; own fit, not the published one",
    "licence": "MIT (figures only; no picture can be recovered from them)",
}


def fit(pictures: Iterable[Tensor]) -> tuple[Tensor, Tensor, int]:
    """Mean (36,), covariance (36, 36) and number of the sharp patches of (1, 3, H, W) pictures in [0, 1]."""
    chosen = []
    for picture in pictures:
        features, sharpness = patch_statistics(picture)
        if len(features):
            chosen.append(features[sharpness > SHARP * sharpness.max()])
    features = torch.cat(chosen)
    return features.mean(0), features.T.cov(), len(features)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, required=True, help="folder of well-lit photographs")
    parser.add_argument("--pairs-tsv", type=Path, required=True, help="LOL v1: a bright picture of each training scene")
    parser.add_argument("--output", type=Path, default=PARAMETERS)
    args = parser.parse_args(argv)
    photos = find_images([args.photos])
    scenes = {row["scene"]: args.pairs_tsv.parent / row["high"] for row in rows_of_table(args.pairs_tsv, "train")}
    mean, covariance, count = fit(read_image(path).pixels[None, :3] for path in (*photos, *scenes.values()))
    data = f"{len(photos)} photographs of {args.photos.name} and the bright pictures of {len(scenes)} LOL v1 scenes"
    header = {**HEADER, "data": f"{data} (split=train); {count} patches"}
    write_atomically(args.output, save({"mean": mean, "covariance": covariance.contiguous()}, header))
    sys.stdout.write(f"{args.output}: {header['data']}\n")


if __name__ == "__main__":
    main()
