"""`python -m jores enhance | evaluate | info | train`: the library on a command line.

Results go to standard output, complaints to standard error. Exit code 0: all done, 1: something failed, 2: the command
line makes no sense. Heavy imports wait inside the commands, so that --help is quick.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import training

if TYPE_CHECKING:
    import torch

    from .checkpoint import JoReSNets
    from .nets.segmentation import Segmenter


def main(argv: list[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    try:
        return args.run(args)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"jores: {error}\n")
        return 1
    except KeyboardInterrupt:
        return 130


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="jores", description="JoReS-Diff: low-light image enhancement.")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_enhance(commands)
    _add_evaluate(commands)
    info = commands.add_parser("info", help="presets, sizes, FLOPs, and what a weights file says of itself")
    info.add_argument("--weights", type=Path, metavar="FILE", help="bundle to describe (default: the shipped one)")
    info.set_defaults(run=run_info)
    train = commands.add_parser("train", help='train a stage (needs the "train" extras)')
    training.add_arguments(train)
    train.set_defaults(run=training.main)
    return parser


def _add_enhance(commands: Any) -> None:
    parser = commands.add_parser("enhance", help="brighten pictures; prints one line of JSON for each")
    parser.add_argument("inputs", nargs="+", type=Path, metavar="IN", help="pictures, or folders of pictures")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder for the results")
    parser.add_argument("--overwrite", action="store_true", help="replace results that are there already")
    parser.add_argument("--strength", type=_between(0, 1), default=1.0, metavar="0..1", help="1: all of it (default)")
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
    _add_model_options(parser)
    parser.set_defaults(run=run_evaluate, strength=1.0)


def _add_model_options(parser: argparse.ArgumentParser) -> None:
    exposure_help = "mean brightness of the result, or 'auto': the model's own proposal (default: auto)"
    parser.add_argument("--exposure", type=_exposure, metavar="auto|0..1", help=exposure_help)
    parser.add_argument("--steps", type=int, default=4, help="diffusion steps (default: 4)")
    parser.add_argument("--seed", type=int, default=0, help="of the start noise (default: 0)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, xpu, mps (default: auto)")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="bundle (default: the shipped one)")
    parser.add_argument("--segmenter", metavar="FOLDER", help="ADE20K model, or 'none' (default: the shipped one)")


def _between(low: float, high: float) -> Callable[[str], float]:
    def number(text: str) -> float:
        value = float(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text} is not between {low:g} and {high:g}")
        return value

    return number


def _exposure(text: str) -> float | None:
    return None if text == "auto" else _between(0.01, 1)(text)


@dataclass(frozen=True)
class Enhancer:
    """The pipeline with the settings of one command line."""

    nets: JoReSNets
    segmenter: Segmenter | None
    device: torch.device
    args: argparse.Namespace

    @classmethod
    def from_args(cls, args: argparse.Namespace) -> Enhancer:
        from .checkpoint import SHIPPED_SEGMENTER, SHIPPED_WEIGHTS, load_bundle

        device = choose_device(args.device)
        nets = load_bundle(args.weights or SHIPPED_WEIGHTS, device=device)
        if args.segmenter == "none":
            return cls(nets, None, device, args)
        from .nets.segmentation import load_segmenter

        return cls(nets, load_segmenter(Path(args.segmenter or SHIPPED_SEGMENTER), device=device), device, args)

    def __call__(self, pixels: torch.Tensor) -> tuple[torch.Tensor, float]:
        """(3 or 4, H, W) in [0, 1] on the processor -> the same, and the exposure it was made for."""
        import torch

        from .pipeline import enhance

        images, args = pixels[None].to(self.device), self.args
        if args.exposure is None:
            exposure = self.nets.adjustment.propose_exposure(images[:, :3])
        else:
            exposure = torch.tensor([args.exposure])
        options = {"steps": args.steps, "seed": args.seed, "exposure": exposure, "strength": args.strength}
        return enhance(images, self.nets, self.segmenter, **options)[0].cpu(), exposure.item()


def choose_device(name: str) -> torch.device:
    """`name`, or for "auto" the first accelerator there is, or else the processor.

    Raises:
        ValueError: there is no such device.
    """
    import torch

    if name == "auto":
        available = {
            "cuda": torch.cuda.is_available(),
            "xpu": hasattr(torch, "xpu") and torch.xpu.is_available(),
            "mps": torch.backends.mps.is_available(),
        }
        name = next((kind for kind, there in available.items() if there), "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:  # the latter from builds without CUDA
        raise ValueError(f"--device {name} cannot be used: {str(error).splitlines()[0]}") from error


def run_enhance(args: argparse.Namespace) -> int:
    import torch

    from .imaging.files import find_images

    inputs = find_images(args.inputs)
    enhancer = Enhancer.from_args(args)
    args.output.mkdir(parents=True, exist_ok=True)
    failures, written = 0, set()
    for path in inputs:
        target = args.output / path.name
        record: dict[str, Any] = {"input": str(path)}
        try:
            _check_target(path, target, args.overwrite, written)
            record |= _enhance_file(path, target, enhancer)
            written.add(os.path.normcase(target))
        except (ValueError, torch.cuda.OutOfMemoryError) as error:
            failures += 1
            record["error"] = str(error)
            sys.stderr.write(f"jores: {error}\n")
        sys.stdout.write(json.dumps(record, ensure_ascii=False) + "\n")
        sys.stdout.flush()
    return 1 if failures else 0


def _check_target(path: Path, target: Path, overwrite: bool, written: set[str]) -> None:
    """Nothing of the user's is lost by accident: not the input, not an older result, not one of this very run."""
    if path.exists() and target.exists() and target.samefile(path):
        raise ValueError(f"{path}: the result would replace its own input; choose another --output")
    if os.path.normcase(target) in written:
        raise ValueError(f"{path}: {target} was just written for another input of this name; choose another --output")
    if target.exists() and not overwrite:
        raise ValueError(f"{path}: {target} exists already; add --overwrite or choose another --output")


def _enhance_file(path: Path, target: Path, enhancer: Enhancer) -> dict[str, Any]:
    from .imaging.files import read_image, write_image

    start = time.perf_counter()
    picture = read_image(path)
    loaded = time.perf_counter()
    pixels, exposure = enhancer(picture.pixels)
    enhanced = time.perf_counter()
    write_image(target, replace(picture, pixels=pixels))
    seconds = {"load": loaded - start, "enhance": enhanced - loaded, "save": time.perf_counter() - enhanced}
    return {
        "output": str(target),
        "width": pixels.shape[2],
        "height": pixels.shape[1],
        "exposure": round(exposure, 4),
        "seconds": {stage: round(value, 3) for stage, value in seconds.items()},
    }


def run_evaluate(args: argparse.Namespace) -> int:
    from .evaluation import evaluate, format_header, format_row, mean_of, pairs_of_folders, pairs_of_table
    from .imaging.files import write_whole

    if args.pairs_tsv:
        pairs = pairs_of_table(args.pairs_tsv, args.split)
    elif args.low:
        pairs = pairs_of_folders(args.low, args.high)
    else:
        raise ValueError("evaluate needs --low, with --high for all but NIQE, or --pairs-tsv")
    enhancer = Enhancer.from_args(args)
    rows = []
    for row in evaluate(pairs, lambda pixels: enhancer(pixels)[0]):
        sys.stdout.write(format_row(row) if rows else format_header(row) + format_row(row))
        sys.stdout.flush()
        rows.append(row)
    sys.stdout.write(format_row(mean_of(rows)))
    if args.output:
        settings = {"steps": args.steps, "seed": args.seed, "exposure": args.exposure or "auto"}
        report = {"settings": settings, "mean": _without_nan(mean_of(rows)), "pictures": [*map(_without_nan, rows)]}
        write_whole(args.output, json.dumps(report, indent=1).encode())
    return 0


def _without_nan(row: dict[str, Any]) -> dict[str, Any]:
    """JSON has no NaN: null stands for a figure that the picture does not have."""
    return {key: None if value != value else value for key, value in row.items()}


def run_info(args: argparse.Namespace) -> int:
    from .checkpoint import SHIPPED_WEIGHTS, read_header
    from .config import PRESETS
    from .describe import table

    for config in PRESETS.values():
        sys.stdout.write(table(config))
    path = args.weights or SHIPPED_WEIGHTS
    config, metadata = read_header(path)
    sys.stdout.write(f"code: MIT licence\nweights: {path} (preset {config.name})\n")
    for key, value in sorted(metadata.items()):
        sys.stdout.write(f"  {key}: {value}\n")
    return 0
