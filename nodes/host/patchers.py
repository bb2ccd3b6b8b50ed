"""The nets under the host's memory management, and the wire objects that carry them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import comfy.model_management as mm
import comfy.ops
import comfy.utils
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...jores.checkpoint import JoReSNets, load_bundle
from ...jores.conditions import RetinexCondition
from ...jores.config import JoReSConfig
from ...jores.tiling.memory import is_out_of_memory
from .progress import StepProgress
from .results import Results


@dataclass(frozen=True)
class NetPatchers:
    """JORES_NETS: DNet, ANet and RNet, each for the host to load and to drop. Enhance also keeps the UNet here.

    They stay in float32: a dark picture lives in the last bits, and together they are smaller than one picture's maps.
    `results`: what they made of the last pictures, for nodes that keep it.
    """

    config: JoReSConfig
    parts: dict[str, ModelPatcher]
    results: Results = field(default_factory=Results, compare=False, repr=False)

    def load(self, memory: int, *names: str, beside: tuple[ModelPatcher, ...] = ()) -> JoReSNets:
        """Brings the named nets to the compute device, with room for `memory` bytes of activations."""
        mm.load_models_gpu([*(self.parts[n] for n in names), *beside], memory_required=memory, force_full_load=True)
        return JoReSNets(self.config, **{name: self.parts[name].model for name in names})


@dataclass(frozen=True)
class Adjusted:
    """JORES_CONDITION: what ANet made of a picture, and that dark picture (B, 3, H, W), which the UNet sees too.

    `source`: the pictures' fingerprints, where they are known. `nets`: DNet and ANet that made it, for a segmenter to
    see the picture lit by them.
    """

    condition: RetinexCondition
    low: Tensor
    source: Tensor | None = None
    nets: NetPatchers | None = None

    def frame(self, index: int) -> Adjusted:
        """The same for one picture of the batch; what was made from a single picture serves all."""
        i = index % len(self.low)
        source = None if self.source is None else self.source[i : i + 1]
        return Adjusted(self.condition.frame(i), self.low[i : i + 1], source, self.nets)


def load_patchers(path: Path, *parts: str) -> NetPatchers:
    offload = mm.unet_offload_device()
    nets = load_bundle(path, parts=parts, operations=comfy.ops.manual_cast, device=offload, dtype=torch.float32)
    return NetPatchers(nets.config, {name: manage(net) for name, net in nets.parts().items()})


def manage(net: torch.nn.Module) -> ModelPatcher:
    """The plain patcher on purpose: these nets are loaded whole or not at all."""
    return ModelPatcher(net, load_device=mm.get_torch_device(), offload_device=mm.unet_offload_device())


def each_frame(count: int, work: Callable[[int], object]) -> list:
    """`work(i)` for every picture of a batch, with progress and cancel between them."""
    progress, results = StepProgress(count), []
    for i in range(count):
        results.append(work(i))
        progress()
    return results


@contextlib.contextmanager
def memory_advice(node: str, size: str) -> Iterator[None]:
    """Says what helps when memory runs out; the exception stays the host's own, which then frees its models."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise torch.cuda.OutOfMemoryError(
            f"{node}: out of memory at {size} pixels. Frames are worked on one by one, so a shorter batch does not "
            f"help: scale the picture down, or start ComfyUI with --cpu. ({error})"
        ) from error
