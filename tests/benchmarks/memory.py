"""Peak of live tensor bytes of each stage on the processor, beside what nodes/host/budget.py asks the host for.

    python -m tests.benchmarks.memory [--sizes 384x256 768x512] [--preset texture]

The estimate holds SLACK for an accelerator's workspaces, so it should lie 0 to 30 % above what is counted.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from tests.flat import flat

ROOT = Path(__file__).resolve().parents[2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["384x256", "768x512"], metavar="WIDTHxHEIGHT")
    parser.add_argument("--preset", default="texture")
    args = parser.parse_args()
    sys.stdout.write(f"{'size':>10} {'stage':<12} {'estimate':>9} {'counted':>9} {'bytes/px':>9} {'ratio':>6}\n")
    for size in args.sizes:
        width, height = map(int, size.split("x"))
        for stage, (estimate, counted) in measure(height, width, args.preset).items():
            row = f"{estimate / 2**20:8.1f}M {counted / 2**20:8.1f}M {counted / (width * height):9.0f}"
            sys.stdout.write(f"{size:>10} {stage:<12} {row} {estimate / counted:6.2f}\n")


def measure(height: int, width: int, preset: str = "compact") -> dict[str, tuple[int, int]]:
    """Stage -> (estimate, counted) in bytes. Weights and inputs are alive before a stage and not part of either.

    Counted with one thread: each further one has small workspaces of its own, which only the processor knows.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _measure(height, width, preset)
    finally:
        torch.set_num_threads(threads)


def _measure(height: int, width: int, preset: str) -> dict[str, tuple[int, int]]:
    budget, checkpoint, conditions, config, pipeline, loading = (
        load_module(name)
        for name in (
            "nodes.host.budget",
            "jores.checkpoint",
            "jores.conditions",
            "jores.config",
            "jores.pipeline",
            "jores.semantics",
        )
    )
    torch.manual_seed(0)
    nets = checkpoint.build(config.PRESETS[preset])
    segmenter = loading.load_segmenter(checkpoint.SHIPPED_SEGMENTER)
    low, pixels = torch.rand(1, 3, height, width) * 0.1, height * width
    with torch.inference_mode():
        maps = pipeline.decompose(nets, low)
        condition, prior = pipeline.adjust(nets, maps), pipeline.segment(segmenter, low)
        given, level, picture = conditions.Given(low, condition, prior.probabilities), torch.ones(1) / 2, low * 2 - 1
        work: dict[str, tuple[int, Callable]] = {
            "decompose": (
                budget.decomposition_bytes(nets.config.decomposition, pixels),
                lambda: pipeline.decompose(nets, low),
            ),
            "adjust": (budget.retinex_bytes(nets.config, pixels), lambda: pipeline.adjust(nets, maps)),
            "segment": (
                budget.segmenter_bytes(segmenter, (height, width)),
                lambda: pipeline.segment(segmenter, low),
            ),
            "denoise": (
                budget.denoiser_bytes(nets.config.denoiser, pixels),
                lambda: nets.denoiser(picture, level, given),
            ),
            "refine": (
                budget.refinement_bytes(nets.config.refinement, pixels),
                lambda: nets.refinement(picture, level, condition),
            ),
            "enhance": (
                budget.enhance_bytes(nets.config, pixels),
                lambda: flat(pipeline.enhance)(low, nets, segmenter, steps=2),
            ),
        }
        return {stage: (estimate, peak_bytes(call)) for stage, (estimate, call) in work.items()}


def peak_bytes(call: Callable[[], object]) -> int:
    """The most bytes that the processor's allocator has given out during `call`, over those at its start."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        call()
    events = (event for event in record.profiler.kineto_results.events() if event.name() == "[memory]")
    changes = (event.nbytes() for event in sorted(events, key=lambda event: event.start_ns()))
    return max(itertools.accumulate(changes), default=0)


def load_module(name: str):
    """A module of the pack, loaded from its path under another name, as ComfyUI does it."""
    if "jores_pack" not in sys.modules:
        spec = importlib.util.spec_from_file_location(
            "jores_pack", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
        )
        sys.modules["jores_pack"] = importlib.util.module_from_spec(spec)
    return importlib.import_module(f"jores_pack.{name}")


if __name__ == "__main__":
    main()
