"""Seconds and memory of an accelerator beside the processor, by size of picture, and for a clip.

    python -m tests.benchmarks.devices [--device cuda] [--sizes 600x400 1920x1080 6000x4000] [--frames 12]

Each row is the faster of two runs at the default settings, with the segmenter, without loading; the first one warms the
device up. "levels" is the largest difference of the two results in levels of 8 bits. Without an accelerator, or
with `--device cpu`, the processor's column stands alone.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from jores.checkpoint import SHIPPED_SEGMENTER, SHIPPED_WEIGHTS, load_bundle
from jores.commands.enhancer import choose_device
from jores.pipeline import enhance
from jores.precision import reduce_precision
from jores.semantics import load_segmenter
from jores.video import enhance_frames

CLIP = (1920, 1080)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--sizes", nargs="+", default=["600x400", "1920x1080", "6000x4000"], metavar="WxH")
    parser.add_argument("--frames", type=int, default=0, help="also a clip of so many frames of 1920x1080")
    parser.add_argument("--weights", type=Path, default=SHIPPED_WEIGHTS)
    parser.add_argument("--precision", default="float32")
    args = parser.parse_args()
    device = choose_device(args.device)
    devices = [torch.device("cpu")] + ([device] if device.type != "cpu" else [])
    sys.stdout.write("| input | " + " | ".join(f"{d.type}: s | {d.type}: MiB" for d in devices) + " | levels |\n")
    sys.stdout.write("|---" * (2 + 2 * len(devices)) + "|\n")
    runs = {d: Runs(d, args.weights, args.precision) for d in devices}
    jobs: list[tuple[str, int, Callable[[Runs], Tensor]]] = []
    for size in args.sizes:
        jobs.append((size, 1, lambda run, low=dark(size): run.picture(low)))
    if args.frames:
        clip = [dark("x".join(map(str, CLIP)), seed) for seed in range(args.frames)]
        jobs.append(
            (f"{args.frames} frames of {CLIP[0]}x{CLIP[1]}, per frame", args.frames, lambda run: run.film(clip))
        )
    for name, count, job in jobs:
        made = [measured(runs[d], job, count) for d in devices]
        apart = max((made[0][0] - result).abs().max().item() * 255 for result, _, _ in made)
        shown = " | ".join(f"{seconds:.2f} | {'' if peak is None else peak}" for _, seconds, peak in made)
        sys.stdout.write(f"| {name} | {shown} | {apart:.2f} |\n")


class Runs:
    """The pipeline on one device."""

    def __init__(self, device: torch.device, weights: Path, precision: str) -> None:
        self.device = device
        self.nets, self.segmenter = (
            load_bundle(weights, device=device),
            load_segmenter(SHIPPED_SEGMENTER, device=device),
        )
        reduce_precision(self.nets, precision, device)

    def picture(self, low: Tensor) -> Tensor:
        return enhance(low, self.nets, self.segmenter)

    def film(self, frames: list[Tensor]) -> Tensor:
        return torch.cat(list(enhance_frames(frames, self.nets, self.segmenter)))


def measured(run: Runs, job: Callable[[Runs], Tensor], count: int) -> tuple[Tensor, float, int | None]:
    """The result on the CPU, the seconds of the faster of two runs by `count`, and the peak MiB of an accelerator."""
    kind = run.device.type
    backend = getattr(torch, kind) if kind in ("cuda", "xpu") else None
    best, result = float("inf"), torch.empty(0)
    for _ in range(2):
        if backend is not None:
            backend.reset_peak_memory_stats(run.device)
        start = time.perf_counter()
        result = job(run).cpu()  # waits for the device
        best = min(best, time.perf_counter() - start)
    peak = None if backend is None else round(backend.max_memory_allocated(run.device) / (1 << 20))
    return result, best / count, peak


def dark(size: str, seed: int = 0) -> Tensor:
    """(1, 3, H, W): smooth dark shapes with noise, for `size` as "WxH"."""
    width, height = (int(n) for n in size.split("x"))
    generator = torch.Generator().manual_seed(seed)
    shapes = torch.nn.functional.interpolate(
        torch.rand(1, 3, 9, 12, generator=generator), (height, width), mode="bicubic", align_corners=False
    )
    return (shapes * 0.12 + 0.01 * torch.randn(1, 3, height, width, generator=generator)).clamp(0, 1)


if __name__ == "__main__":
    main()
