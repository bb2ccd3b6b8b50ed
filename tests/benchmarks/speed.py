"""Time and peak memory of the whole pipeline on one picture.

    python -m tests.benchmarks.speed [--size 600x400 --threads 2 --weights BUNDLE --precision bfloat16]

Seconds are medians; "light" is what the segmenter sees: of bigger pictures DNet and ANet once more, reduced. Absolute
figures depend on the machine; the shares of the stages and the ratio to one copy of the picture do less.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from jores import pipeline
from jores.checkpoint import SHIPPED_SEGMENTER, SHIPPED_WEIGHTS, load_bundle
from jores.limits import PRECISIONS
from jores.precision import reduce_precision
from jores.semantics import load_segmenter
from jores.tiling.windows import size_of
from tests.flat import flat


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="600x400")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--weights", type=Path, default=SHIPPED_WEIGHTS)
    parser.add_argument("--precision", choices=PRECISIONS, default="float32")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    width, height = (int(n) for n in args.size.split("x"))
    low = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0)) * 0.1
    start = time.perf_counter()
    nets, segmenter = load_bundle(args.weights), load_segmenter(SHIPPED_SEGMENTER)
    reduce_precision(nets, args.precision)
    load_seconds = time.perf_counter() - start
    runs = [measure(nets, segmenter, low, args.steps) for _ in range(args.repeat)]
    seconds = {name: round(statistics.median(run[name] for run in runs), 3) for name in runs[0]}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)  # KiB on Linux, where this is run
    made = {
        "size": args.size, "steps": args.steps, "precision": args.precision, "load_seconds": round(load_seconds, 2),
        "seconds": seconds, "peak_gib_of_the_process": round(peak, 2),
    }  # fmt: skip
    json.dump(made, sys.stdout)
    sys.stdout.write("\n")


def measure(nets, segmenter, low: torch.Tensor, steps: int) -> dict[str, float]:
    times: dict[str, float] = {}

    def timed(name: str, stage: Callable):
        start = time.perf_counter()
        result = stage()
        times[name] = time.perf_counter() - start
        return result

    maps = timed("decompose", lambda: pipeline.decompose(nets, low))
    condition = timed("adjust", lambda: pipeline.adjust(nets, maps))
    lit = timed("light", lambda: pipeline.lit_for_segmenter(nets, low, segmenter.resolution, condition))
    prior = replace(timed("segment", lambda: segmenter(lit)), size=size_of(low))
    x0 = timed("sample", lambda: flat(pipeline.sample)(nets, condition, prior, low=low, steps=steps))
    timed("finish", lambda: pipeline.finish(x0, low))
    return {**times, "total": sum(times.values())}


if __name__ == "__main__":
    main()
