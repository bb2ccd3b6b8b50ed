"""`python -m jores enhance | evaluate | info | train`: the library on a command line; also `python path/to/jores`.

Results go to standard output, error messages to standard error. Exit code 0: success, 1: a failure, 2: a wrong command
line, 130: Ctrl-C. Heavy imports are inside the commands, so that --help is fast.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import training
from .limits import DRAFT_SIZE, FINE_STEPS, MIN_TILE, MOST_STOPS, PRECISIONS, QUALITIES, QUALITY, STEPS, TEXTURE


def main(argv: list[str] | None = None) -> int:
    _write_any_letter()
    args = build_parser().parse_args(argv)
    try:
        return args.run(args)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"jores: {error}\n")
        return 1
    except (MemoryError, RuntimeError) as error:
        from .out_of_memory import is_out_of_memory

        if not is_out_of_memory(error):
            raise
        sys.stderr.write(f"jores: out of memory ({error})\n")
        return 1
    except KeyboardInterrupt:
        return 130


def _write_any_letter() -> None:
    """Letters that the output's encoding does not know, as on Windows in a file, are written by their numbers."""
    for stream in (sys.stdout, sys.stderr):
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors="backslashreplace")


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="jores", description="JoReS-Diff: low-light image enhancement.")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_enhance(commands)
    _add_evaluate(commands)
    info = commands.add_parser("info", help="presets, sizes, FLOPs, and the metadata of a weights file")
    info.add_argument("--weights", type=Path, metavar="FILE", help="bundle to describe (default: the shipped one)")
    info.set_defaults(run=run_info)
    train = commands.add_parser("train", help='train a stage (needs the "train" extras)')
    training.add_arguments(train)
    train.set_defaults(run=training.main)
    return parser


def _add_enhance(commands: Any) -> None:
    parser = commands.add_parser("enhance", help="brighten pictures and videos; prints one line of JSON for each")
    parser.add_argument("inputs", nargs="+", type=Path, metavar="IN", help="pictures, videos, folders, patterns")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder for the results")
    present = parser.add_mutually_exclusive_group()
    present.add_argument("--overwrite", action="store_true", help="replace existing results")
    present.add_argument("--resume", action="store_true", help="skip inputs whose results exist")
    parser.add_argument(
        "--strength",
        type=_number_between(0, 1),
        default=1.0,
        metavar="0..1",
        help="weight of the result against the original (default: 1)",
    )
    shadows_help = "1: enhance only dark areas of the picture (default: 0, everything)"
    parser.add_argument("--shadows", type=_number_between(0, 1), default=0.0, metavar="0..1", help=shadows_help)
    colour_help = "1: keep the picture's own colour cast (default: 0, the model's colours)"
    parser.add_argument("--colour-fidelity", type=_number_between(0, 1), default=0.0, metavar="0..1", help=colour_help)
    mask_help = "grey picture of the same size: white areas are enhanced, black ones stay unchanged"
    parser.add_argument("--mask", type=Path, metavar="FILE", help=mask_help)
    parser.add_argument(
        "--feather", type=int, default=0, metavar="PIXELS", help="width of the soft edge inside the mask"
    )
    independent_help = "enhance every frame of a video independently; by default they are smoothed over time"
    parser.add_argument("--independent-frames", action="store_true", help=independent_help)
    strip_help = "write pictures without EXIF, XMP, texts, comments and resolution; colours are kept; not for videos"
    parser.add_argument("--strip-metadata", action="store_true", help=strip_help)
    _add_model_options(parser)
    parser.set_defaults(run=run_enhance)


def _add_evaluate(commands: Any) -> None:
    description = (
        "'raw' compares what the model gives. 'GT-mean' rescales it to the mean luma of the ground truth first, as "
        "many papers do: never compare numbers of the two kinds."
    )
    description += (
        " NIQE needs no ground truth (--low alone gives it, for the input and for the result); ours is fitted to other "
        "photographs than the published one, so its values compare only among themselves."
    )
    parser = commands.add_parser("evaluate", help="PSNR, SSIM and NIQE of the results", description=description)
    parser.add_argument("--low", type=Path, metavar="DIR", help="dark pictures")
    parser.add_argument("--high", type=Path, metavar="DIR", help="their ground truth, under the same names")
    parser.add_argument("--pairs-tsv", type=Path, metavar="FILE", help="instead: table with id, split, low, high")
    parser.add_argument("--split", default="val", help="split of the table; 'all' for every pair (default: val)")
    parser.add_argument("--output", type=Path, metavar="JSON", help="also write the scores to this file")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file of scores")
    lpips_help = "weights of LPIPS with AlexNet, not shipped (default: the file in JORES_LPIPS; without it: no LPIPS)"
    parser.add_argument("--lpips", type=Path, metavar="FILE", help=lpips_help)
    _add_model_options(parser, precision="float32")
    parser.set_defaults(run=run_evaluate, mask=None, independent_frames=False)


def _add_model_options(parser: argparse.ArgumentParser, precision: str = PRECISIONS[0]) -> None:
    exposure_help = "mean brightness of the result, 0.01 to 1, or 'auto': proposed by the model (default: auto)"
    parser.add_argument("--exposure", type=_exposure, metavar="auto|0.01..1", help=exposure_help)
    most, stops = f"-{MOST_STOPS}..{MOST_STOPS}", _number_between(-MOST_STOPS, MOST_STOPS)
    brightness_help = (
        f"makes the result brighter than the exposure, also with auto, by -{MOST_STOPS} to {MOST_STOPS} EV (default: 0)"
    )
    parser.add_argument("--brightness", type=stops, default=0.0, metavar=most, help=brightness_help)
    quality_help = (
        f"draft: no diffusion, at most {DRAFT_SIZE} pixels inside; fine: {FINE_STEPS} steps or more "
        "(default: %(default)s)"
    )
    parser.add_argument("--quality", choices=QUALITIES, default=QUALITY, help=quality_help)
    parser.add_argument("--steps", type=int, default=STEPS, help="diffusion steps (default: %(default)s)")
    texture_help = "share of the fine detail that the diffusion invents (default: %(default)s)"
    parser.add_argument("--texture", type=_number_between(0, 1), default=TEXTURE, metavar="0..1", help=texture_help)
    parser.add_argument("--seed", type=_seed, default=0, help="seed of the start noise (default: 0)")
    tile_help = f"side of the tiles for big pictures, {MIN_TILE} or more; 0: no tiles (default: auto, by free memory)"
    parser.add_argument("--tile", type=_tile, metavar="auto|0|N", help=tile_help)
    working_help = "reduce to this longer side first, and enlarge the result at the end (default: 0, full size)"
    parser.add_argument("--working-size", type=_pixels, default=0, metavar="N", help=working_help)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, xpu, mps (default: auto)")
    precision_help = (
        "of most of the nets' work; auto: bfloat16 on processors that are faster with it (AVX512-BF16, AMX), where the "
        f"picture changes by up to 2 levels of 8 bits; otherwise float32 (default: {precision})"
    )
    parser.add_argument("--precision", choices=PRECISIONS, default=precision, help=precision_help)
    parser.add_argument("--weights", type=Path, metavar="FILE", help="bundle (default: the shipped one)")
    parser.add_argument("--segmenter", metavar="FOLDER", help="ADE20K model, or 'none' (default: the shipped one)")


def _number_between(low: float, high: float) -> Callable[[str], float]:
    def number(text: str) -> float:
        value = float(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text} is not between {low:g} and {high:g}")
        return value

    return number


def _seed(text: str) -> int:
    value = int(text)
    if not 0 <= value < 2**64:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and {2**64 - 1}")
    return value


def _exposure(text: str) -> float | None:
    """None for automatic; "0" is accepted, too, because the nodes use it for automatic."""
    return None if text in ("auto", "0") else _number_between(0.01, 1)(text)


def _tile(text: str) -> int | None:
    """None for automatic, by the free memory."""
    if text == "auto":
        return None
    if (side := _pixels(text)) and side < MIN_TILE:
        raise argparse.ArgumentTypeError(f"{text} is neither 0 nor at least {MIN_TILE}")
    return side


def _pixels(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is below 0")
    return value


def run_enhance(args: argparse.Namespace) -> int:
    from .commands.enhance import run

    return run(args)


def run_evaluate(args: argparse.Namespace) -> int:
    from .commands.evaluate import run

    return run(args)


def run_info(args: argparse.Namespace) -> int:
    from .commands.info import run

    return run(args)
