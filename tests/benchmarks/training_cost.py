"""What training a recipe takes on a GPU: an estimate computed from FLOPs and tensor sizes, not a measurement.

    python -m tests.benchmarks.training_cost [--recipe jores/training/recipes/paper.yaml] [--tflops 40]

For every stage with nets of its own: FLOPs of a training step are 3 times those of the forward pass (1 forward, 2
backward) of what is trained plus 1 time those of what is frozen, per crop. Memory is what autograd keeps for the
backward pass, counted on tensors without data in 16 bits, plus 22 bytes per trained parameter (weight, gradient, two
moments of AdamW and EMA in fp32, a copy in 16 bits); workspaces come on top. `--tflops` is what the GPU sustains,
usually a third or less of what its data sheet says.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from jores.checkpoint import JoReSNets, build
from jores.commands.info import cost
from jores.conditions import Given
from jores.config import PRESETS, SEMANTIC_CLASSES, JoReSConfig
from jores.training import RECIPES
from jores.training.recipe import load_recipe

TRAINED = {"decompose": ("decomposition",), "adjust": ("adjustment",), "diffuse": ("denoiser", "refinement")}
FROZEN = {"decompose": (), "adjust": ("decomposition",) * 2, "diffuse": ("decomposition", "adjustment")}
PASSES = {"decompose": 2, "adjust": 1, "diffuse": 1}  # DNet sees the dark and the bright picture
BYTES_PER_PARAMETER = 22


def step_cost(config: JoReSConfig, stage: str, crop: int, joint: bool = False) -> tuple[float, float, int]:
    """(FLOPs of one crop, bytes that autograd keeps for one crop, trained parameters) of a training step."""
    each = cost(config, (crop, crop))
    trained = TRAINED[stage] + (("adjustment",) if joint else ())
    frozen = [name for name in FROZEN[stage] if name not in trained]
    flops = PASSES[stage] * 3 * sum(each[n][1] for n in trained) + sum(each[n][1] for n in frozen)
    return flops, PASSES[stage] * kept_bytes(config, trained, crop), sum(each[n][0] for n in trained)


def kept_bytes(config: JoReSConfig, trained: tuple[str, ...], crop: int) -> int:
    """Bytes of the distinct activations that the backward pass of these nets needs, at 16 bits per number."""
    nets = build(config, device="meta")
    weights = {_storage(p) for net in nets.parts().values() for p in net.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if _storage(tensor) not in weights:
            kept.setdefault(_storage(tensor), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        outputs = [forward() for name, forward in _forwards(nets, crop).items() if name in trained]
    del outputs
    return sum(2 * tensor.untyped_storage().nbytes() // tensor.element_size() for tensor in kept.values())


def _storage(tensor: Tensor) -> int:
    """Tensors without data have no address; their storage object has."""
    return tensor.untyped_storage()._cdata


def _forwards(nets: JoReSNets, crop: int) -> dict[str, Callable[[], object]]:
    images, level, colour = (torch.empty(shape, device="meta") for shape in ((1, 3, crop, crop), 1, (1, 3)))
    semantics = torch.empty(1, SEMANTIC_CLASSES, crop // 8, crop // 8, device="meta")
    with torch.no_grad():
        maps = nets.decomposition(images)
        whole = nets.adjustment.statistics(images, level, colour)
        condition = nets.adjustment(maps, whole)
    return {
        "decomposition": lambda: nets.decomposition(images),
        "adjustment": lambda: nets.adjustment(maps, nets.adjustment.statistics(images, level, colour)),
        "denoiser": lambda: nets.denoiser(images, level, Given(images, condition, semantics)),
        "refinement": lambda: nets.refinement(images, level, condition),
    }


def main(argv: list[str] | None = None, write: Callable[[str], object] = sys.stdout.write) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", type=Path, default=RECIPES / "paper.yaml")
    parser.add_argument("--tflops", type=float, default=40.0, help="sustained by the GPU in training (default: 40)")
    args = parser.parse_args(argv)
    recipe = load_recipe(args.recipe)
    config = PRESETS[recipe["preset"]]
    write("| stage | trained parameters | crop x batch | steps | TFLOPs a step | memory, GiB | hours |\n")
    write(f"|{'---|' * 7}\n")
    total = 0.0
    for stage in (name for name in TRAINED if name in recipe):
        part = recipe[stage]
        crop, batch, steps = part["data"]["crop"], part["data"]["batch"], part["loop"]["steps"]
        flops, kept, parameters = step_cost(config, stage, crop, bool(part["options"].get("joint")))
        memory = (batch * kept + BYTES_PER_PARAMETER * parameters) / 2**30
        hours = batch * flops * steps / (args.tflops * 1e12) / 3600
        total += hours
        write(f"| {stage} | {parameters / 1e6:.1f} M | {crop} x {batch} | {steps} | {batch * flops / 1e12:.2f} |")
        write(f" {memory:.1f} | {hours:.2f} |\n")
    write(f"\ntogether {total:.0f} hours at {args.tflops:g} TFLOP/s (estimates; nothing was run)\n")


if __name__ == "__main__":
    main()
