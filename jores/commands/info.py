"""Parameters and FLOPs of each net of a configuration, counted on the meta device, without allocating weights."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch
from torch.utils.flop_counter import FlopCounterMode

from ..checkpoint import SHIPPED_WEIGHTS, build, read_header
from ..conditions import Given
from ..config import PRESETS, SEMANTIC_CLASSES, JoReSConfig
from ..pipeline import adjust, decompose

Record = list[dict[str, Any]]  # an entry for each run of a stage
P = ParamSpec("P")
T = TypeVar("T")


def cost(config: JoReSConfig, size: tuple[int, int] = (256, 256)) -> dict[str, tuple[int, int]]:
    """(parameters, FLOPs) of each net for one picture of `size` (H, W); denoiser and refinement: per diffusion step.

    FLOPs are counted by `torch.utils.flop_counter`: convolutions and matrix products; a multiply-add is 2 FLOPs.
    """
    nets = build(config, device="meta")
    images, level = torch.empty(1, 3, *size, device="meta"), torch.empty(1, device="meta")
    semantics = torch.empty(1, SEMANTIC_CLASSES, size[0] // 4, size[1] // 4, device="meta")
    maps, decomposition = _count(decompose, nets, images)
    condition, adjustment = _count(adjust, nets, maps, exposure=0.4)
    _, denoiser = _count(nets.unet, images, level, Given(images, condition, semantics))
    _, refinement = _count(nets.rnet, images, level, condition)
    flops = {
        "decomposition": decomposition, "adjustment": adjustment, "denoiser": denoiser, "refinement": refinement,
    }  # fmt: skip
    return {name: (sum(p.numel() for p in net.parameters()), flops[name]) for name, net in nets.parts().items()}


def table(config: JoReSConfig) -> str:
    """The result of `cost` at 256x256 as a table: one line of text per net."""
    lines = [f"preset {config.name} at 256x256 (a multiply-add is 2 FLOPs)"]
    for name, (parameters, flops) in cost(config).items():
        each = " per step" if name in ("denoiser", "refinement") else ""
        lines.append(f"  {name:<14}{parameters / 1e6:>8.2f} M parameters {flops / 1e9:>9.2f} GFLOPs{each}")
    return "\n".join(lines) + "\n"


def run(args: argparse.Namespace) -> int:
    """`jores info`: prints the cost of every preset, then the metadata of a bundle (default: the shipped one).

    Returns the exit code 0. Raises CheckpointError for a bundle that cannot be read.
    """
    for config in PRESETS.values():
        sys.stdout.write(table(config))
    path = args.weights or SHIPPED_WEIGHTS
    config, metadata = read_header(path)
    sys.stdout.write(f"code: MIT licence\nweights: {path} (preset {config.name})\n")
    for key, value in sorted(metadata.items()):
        record = _record(value) if key == "training" else None
        sys.stdout.write(f"  {key}: {value}\n" if record is None else f"  {key}:\n{told(record)}")
    return 0


def _record(value: str) -> Record | None:
    """The training record in a header; None if another program has written something else there."""
    try:
        record = json.loads(value)
    except ValueError:
        return None
    return record if isinstance(record, list) and all(isinstance(entry, dict) for entry in record) else None


def told(record: Record, indent: int = 4) -> str:
    """A training record as text: a line for each entry, and under an average the further lines of what it is made of.

    The scores of a validation are left out: the file's header has them.
    """
    lines = []
    for entry in record:
        known = {k: v for k, v in entry.items() if k not in ("stage", "val", "others")}
        parts = [f"{k} {', '.join(map(str, v)) if isinstance(v, list) else v}" for k, v in known.items()]
        lines.append(f"{' ' * indent}{entry.get('stage', '?')}: {'; '.join(parts)}\n")
        lines += [told(other, indent + 2) for other in entry.get("others", [])]
    return "".join(lines)


@torch.no_grad()
def _count(function: Callable[P, T], *args: P.args, **options: P.kwargs) -> tuple[T, int]:
    with FlopCounterMode(display=False) as counter:
        result = function(*args, **options)
    return result, counter.get_total_flops()
