"""Training, one stage per file. Imported by nobody but the command line; needs the "train" extras."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

STAGES = ("segmenter", "decompose", "expose", "adjust", "diffuse")
RECIPES = Path(__file__).parent / "recipes"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--stage", choices=STAGES, required=True, help="which part of the pipeline to train")
    sets = "sets of pairs: folders with pairs.tsv, low/ and high/, or tables like pairs.tsv"
    parser.add_argument("--data", type=Path, nargs="+", required=True, help=sets)
    parser.add_argument("--photos", type=Path, help="folder of well-lit photographs that are darkened on the fly")
    parser.add_argument("--teacher", type=Path, help="segmenter stage: folder with ade20k_teacher.py and its weights")
    parser.add_argument("--config", type=Path, default=RECIPES / "compact.yaml", help="recipe (default: compact.yaml)")
    parser.add_argument("--init", type=Path, help="bundle (segmenter: folder) of earlier stages, or to go on from")
    parser.add_argument("--out", type=Path, required=True, help="run folder; an existing run there is resumed")
    parser.add_argument("--split", default="train", help="split of pairs.tsv to train on; 'all' for every pair")
    parser.add_argument("--steps", type=int, help="overrides the recipe")
    parser.add_argument("--minutes", type=float, help="stop after this many minutes; the rate's cosine is fitted to it")
    parser.add_argument("--stop-after", type=int, help="leave at this step with a checkpoint; the same command goes on")
    parser.add_argument("--workers", type=int, default=0, help="processes that draw the batches (default: 0, this one)")
    parser.add_argument("--mixed-precision", choices=("no", "bf16", "fp16"), default="bf16")
    parser.add_argument("--cpu", action="store_true", help="train on the processor even where there is an accelerator")


def main(args: argparse.Namespace) -> int:
    """Entry of `python -m jores train`. Raises ValueError for what the user can mend."""
    try:
        from . import shutdown, stages
    except ImportError as error:
        wanted = "accelerate tensorboard tqdm pyyaml"
        raise ValueError(f"training needs more packages ({error.name} is missing): pip install {wanted}") from error
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    stages.run(args)
    shutdown.leave()
    return 0
