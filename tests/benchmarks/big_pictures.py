"""Big pictures: time, memory, and what tiles and a smaller working size cost in quality.

    python -m tests.benchmarks.big_pictures [--sizes 2000x1500 6000x4000] [--tiles 512 1024 auto] [--working 1000]
                                            [--steps 4] [--threads 1] [--whole] [--nets tiny] [--weights BUNDLE]
                                            [--precision bfloat16]
    python -m tests.benchmarks.big_pictures --sizes 600x400 1200x800 2400x1600 6000x4000 --tiles auto --steps 1

Every row runs in a process of its own, whose peak memory is that of the row alone. A dark photograph is enlarged and
gets new sensor noise. PSNR is against the same picture done whole (--whole, where memory allows). "seam" is the mean
gradient where tiles hand over to each other, divided by that elsewhere, and by the same ratio of the whole picture.
Several sizes also give, for each tile, the exponent of the pixels with which the seconds grow: 1 means that a pixel
costs the same in a picture of any size.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import multiprocessing
import resource
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from jores import pipeline
from jores.checkpoint import SHIPPED_SEGMENTER, SHIPPED_WEIGHTS, JoReSNets, build, load_bundle
from jores.config import PRESETS
from jores.files.pictures import read_image
from jores.limits import PRECISIONS
from jores.metrics import psnr
from jores.precision import reduce_precision
from jores.semantics import load_segmenter
from jores.tiling.windows import Window, rows_of_windows
from tests.flat import flat

INPUT = Path(__file__).parents[2] / "workflows" / "enhance_low_light.input.png"
GIB = 1 << 30


def seam_ratio(picture: Tensor, tile: int) -> float:
    """Mean absolute gradient across the lines where tiles meet (the middle half of the ramps), over that elsewhere."""
    ratios = []
    windows = list(rows_of_windows(Window.whole(tuple(picture.shape[-2:])), tile))
    for dim, parts in ((-2, [row[0].rows for row in windows]), (-1, [w.columns for w in windows[0]])):
        gradient = picture.diff(dim=dim).abs().mean([d - 4 for d in range(4) if d - 4 != dim])
        near = torch.zeros(len(gradient), dtype=torch.bool)
        for part in parts:
            if part.rise:
                near[round(part.rise[0]) : round(part.rise[1])] = True
        if near.any():
            ratios.append((gradient[near].mean() / gradient[~near].mean()).item())
    return sum(ratios) / len(ratios) if ratios else 1.0


def dark_picture(width: int, height: int) -> Tensor:
    low = F.interpolate(read_image(INPUT).pixels[None, :3], size=(height, width), mode="bicubic")
    noise = torch.empty_like(low).normal_(generator=torch.Generator().manual_seed(0))
    return low.add_(noise, alpha=0.01).clamp_(0, 1)


def tiny_nets() -> JoReSNets:
    """Random nets so narrow that only the pictures themselves take memory: what a big picture costs in any case."""
    config, widths = PRESETS["compact"], (8, 8, 8)
    parts = {
        "decomposition": dataclasses.replace(config.decomposition, width=4, blocks=1),
        "adjustment": dataclasses.replace(config.adjustment, widths=(8, *widths), encoder=(1,) * 4, decoder=(1,) * 3),
        "denoiser": dataclasses.replace(config.denoiser, widths=widths, blocks=(1,) * 3, feature_widths=widths),
        "refinement": dataclasses.replace(config.refinement, widths=(8, 8), feature_widths=widths),
    }
    return build(dataclasses.replace(config, **parts))


def measure(row: dict, results: multiprocessing.Queue) -> None:
    torch.set_num_threads(row["threads"])
    nets = load_bundle(row["weights"]) if row["nets"] == "released" else tiny_nets()
    reduce_precision(nets, row["precision"])
    segmenter = load_segmenter(SHIPPED_SEGMENTER)
    flat(pipeline.enhance)(torch.rand(1, 3, 32, 32), nets, segmenter, steps=1)  # everything is imported and set up
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # KiB on Linux, where this is run
    low = dark_picture(row["width"], row["height"])
    start = time.perf_counter()
    result = flat(pipeline.enhance)(low, nets, segmenter, steps=row["steps"], **row["options"])
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    torch.save(result, row["file"])
    results.put({"seconds": seconds, "gib": (peak - before) / GIB, "start_gib": before / GIB})


def run(row: dict) -> dict:
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    process = context.Process(target=measure, args=(row, results))
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"{row}: ended with {process.exitcode}")
    return results.get()


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", nargs="+", default=["2000x1500"])
    parser.add_argument("--tiles", nargs="*", type=tile_of, default=[512, 1024], metavar="N or auto")
    parser.add_argument("--working", nargs="*", type=int, default=[])
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--whole", action="store_true", help="also untiled, to compare with")
    parser.add_argument("--nets", choices=["released", "tiny"], default="released")
    parser.add_argument("--weights", type=Path, default=SHIPPED_WEIGHTS)
    parser.add_argument("--precision", choices=PRECISIONS, default="float32")
    args = parser.parse_args(argv)
    sys.stdout.write("| size | tile | working size | steps | seconds | peak GiB | PSNR | seam |\n" + "|---" * 8 + "|\n")
    seconds: dict[str, list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for size in args.sizes:
            for name, point in _table(size, args, Path(folder)):
                seconds.setdefault(name, []).append(point)
    for name, points in seconds.items():
        if len(points) > 1:
            sys.stdout.write(f"{name}: seconds grow with pixels to the power of {exponent(points):.3f}\n")


def tile_of(text: str) -> int | None:
    return None if text == "auto" else int(text)


def exponent(points: list[tuple[float, float]]) -> float:
    """The slope of log seconds over log pixels, by least squares."""
    x, y = ([math.log(point[i]) for point in points] for i in (0, 1))
    middle = sum(x) / len(x)
    return sum((a - middle) * b for a, b in zip(x, y, strict=True)) / sum((a - middle) ** 2 for a in x)


def _table(size: str, args: argparse.Namespace, folder: Path) -> list[tuple[str, tuple[float, float]]]:
    width, height = map(int, size.split("x"))
    made = []
    reference, options = None, [{"tile": t} for t in args.tiles]
    widest = max((t for t in args.tiles if t), default=1024)
    options += [{"tile": widest, "working_size": w} for w in args.working]
    for chosen in [*([{"tile": 0}] if args.whole else []), *options]:
        row = {"width": width, "height": height, "steps": args.steps, "threads": args.threads, "nets": args.nets,
               "weights": args.weights, "precision": args.precision, "options": chosen,
               "file": str(folder / "result.pt")}  # fmt: skip
        measured = run(row)
        result = torch.load(row["file"])
        seam, against = "-", "-"
        if reference is not None:
            against = f"{psnr(result, reference).item():.1f}"
            if "working_size" not in chosen and chosen["tile"]:
                seam = f"{seam_ratio(result, chosen['tile']) / seam_ratio(reference, chosen['tile']):.4f}"
        elif args.whole:
            reference = result
        tile, working = (
            {0: "whole", None: "auto"}.get(chosen["tile"], chosen["tile"]),
            chosen.get("working_size", "full"),
        )
        sys.stdout.write(
            f"| {size} | {tile} | {working} | {args.steps} | {measured['seconds']:.2f} "
            f"| {measured['gib']:.2f} | {against} | {seam} |\n"
        )
        sys.stdout.flush()
        made.append((f"tile {tile}, working size {working}", (width * height, measured["seconds"])))
    return made


if __name__ == "__main__":
    main()
