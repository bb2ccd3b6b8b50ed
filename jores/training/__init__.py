"""Training, one stage per file. Only the command line imports it; it needs the "train" extras."""

from __future__ import annotations

import argparse
import logging
import math
from collections.abc import Callable
from pathlib import Path

STAGES = ("segmenter", "decompose", "expose", "adjust", "diffuse")
RECIPES = Path(__file__).parent / "recipes"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `python -m jores train`."""
    parser.add_argument("--stage", choices=STAGES, required=True, help="which part of the pipeline to train")
    sets = "sets of pairs: folders with pairs.tsv, low/ and high/, or tables like pairs.tsv"
    parser.add_argument("--data", type=Path, nargs="+", required=True, help=sets)
    parser.add_argument("--photos", type=Path, help="folder of well-lit photographs that are darkened on the fly")
    parser.add_argument("--teacher", type=Path, help="segmenter stage: folder with ade20k_teacher.py and its weights")
    parser.add_argument(
        "--config",
        type=Path,
        default=RECIPES / "texture.yaml",
        help="recipe (default: texture.yaml, that of the released weights)",
    )
    parser.add_argument(
        "--init", type=Path, help="bundle with the earlier stages, or to continue training from (segmenter: a folder)"
    )
    parser.add_argument("--out", type=Path, required=True, help="run folder; an existing run there is resumed")
    parser.add_argument("--split", default="train", help="split of pairs.tsv to train on; 'all' for every pair")
    parser.add_argument("--steps", type=_whole(1), help="overrides the recipe")
    parser.add_argument(
        "--minutes",
        type=_minutes,
        help="stop after this many minutes (0: no limit); the cosine of the learning rate ends then",
    )
    parser.add_argument(
        "--stop-after", type=_whole(1), help="stop at this step with a checkpoint; the same command continues"
    )
    parser.add_argument(
        "--workers",
        type=_whole(0),
        default=0,
        help="processes that draw the batches (default 0: the training process itself)",
    )
    parser.add_argument(
        "--mixed-precision",
        choices=("auto", "no", "bf16", "fp16"),
        default="auto",
        help="auto (default): bf16 where the device computes it faster than float32, no elsewhere",
    )
    parser.add_argument("--cpu", action="store_true", help="train on the processor even if there is an accelerator")


def _whole(least: int) -> Callable[[str], int]:
    def whole_number(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"{text} is not a whole number from {least} on")
        return value

    return whole_number


def _minutes(text: str) -> float:
    value = float(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a number of minutes from 0 on")
    return value


def main(args: argparse.Namespace) -> int:
    """Entry point of `python -m jores train`. Raises ValueError for missing packages and wrong input."""
    try:
        from . import shutdown, stages
    except ImportError as error:
        wanted = "accelerate tensorboard tqdm pyyaml"
        raise ValueError(f"training needs more packages ({error.name} is missing): pip install {wanted}") from error
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    stages.run(args)
    shutdown.leave()
    return 0
