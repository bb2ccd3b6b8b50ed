"""The nets under the host's memory management, and the objects on the wires that hold them."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import comfy.model_management as mm
import comfy.ops
import comfy.utils
import torch
from comfy.cli_args import args
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...jores.checkpoint import JoReSNets, load_bundle
from ...jores.conditions import RetinexCondition
from ...jores.config import JoReSConfig
from ...jores.out_of_memory import is_out_of_memory
from ...jores.precision import chosen_precision, reduce_precision
from .progress import StepProgress
from .results import Results

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class NetPatchers:
    """JORES_NETS: DNet, ANet and RNet, which the host loads and unloads separately; for Enhance also the UNet.

    Their weights stay in float32, because dark pictures need the precision and the nets are small; `load_patchers` may
    let them compute in bfloat16. `results` caches results of the last pictures, for nodes that use it. `bundle`: the
    file that they were loaded from.
    """

    config: JoReSConfig
    parts: dict[str, ModelPatcher]
    results: Results = field(default_factory=Results, compare=False, repr=False)
    bundle: Path | None = None

    def load(self, memory: int, *names: str, beside: tuple[ModelPatcher, ...] = ()) -> JoReSNets:
        """Loads the named nets and the models `beside` to the compute device, with `memory` bytes for activations."""
        mm.load_models_gpu([*(self.parts[n] for n in names), *beside], memory_required=memory, force_full_load=True)
        return JoReSNets(self.config, **{name: self.parts[name].model for name in names})


@dataclass(frozen=True)
class Adjusted:
    """JORES_CONDITION: ANet's condition, and the dark picture `low` (B, 3, H, W) in [0, 1], which the UNet needs, too.

    `source`: fingerprints of the pictures, None if unknown. `nets`: DNet and ANet of the condition, to brighten the
    picture for a segmenter.
    """

    condition: RetinexCondition
    low: Tensor
    source: Tensor | None = None
    nets: NetPatchers | None = None

    def frame(self, index: int) -> Adjusted:
        """The part of picture `index` of the batch; a condition of a single picture is used for all."""
        i = index % len(self.low)
        source = None if self.source is None else self.source[i : i + 1]
        return Adjusted(self.condition.frame(i), self.low[i : i + 1], source, self.nets)


def check_same_model(feature_widths: tuple[int, ...], adjusted: Adjusted, what: str) -> None:
    """Raises ValueError if the condition has features of other widths; `what` starts the message."""
    given = tuple(f.shape[1] for f in adjusted.condition.features)
    if given != tuple(feature_widths):
        raise ValueError(
            f"{what} expects features of {tuple(feature_widths)} channels, the condition has {given}: it was made "
            "by another JoReS model. Use one 'Load JoReS Model' for the whole graph."
        )


def warn_of_mixing(own: Path | None, nets: NetPatchers | None, what: str, told: Path | None = None) -> Path | None:
    """Logs a warning if the nets of a condition come from another bundle than `own`, and returns that bundle.

    Not again for the bundle that is `told` already: the host asks for every conditioning and every picture of a batch.
    """
    other = None if nets is None else nets.bundle
    if own is None or other is None or own == other:
        return None
    if other != told:
        log.warning(
            "%s comes from %s, the condition from %s: they were not trained together, so the picture may be worse. Use "
            "one 'Load JoReS Model' for the whole graph",
            what, own.name, other.name,
        )  # fmt: skip
    return other


def load_patchers(path: Path, *parts: str, precision: str = "float32") -> NetPatchers:
    """The named parts of a bundle under the host's memory management, see `as_precise`. Raises CheckpointError."""
    offload = mm.unet_offload_device()
    nets = load_bundle(
        path, parts=parts, operations=comfy.ops.manual_cast, device=offload, runs_on=mm.get_torch_device()
    )
    as_precise(nets, precision)
    return NetPatchers(nets.config, {name: manage(net) for name, net in nets.parts().items()}, bundle=path)


def host_precision(precision: str) -> str:
    """What "auto" means in this host: float32 for who started it so. Raises ValueError for an unknown precision."""
    if precision == "auto" and (args.force_fp32 or args.fp32_unet):
        return "float32"
    return chosen_precision(precision, mm.get_torch_device())


def as_precise(nets: JoReSNets, precision: str) -> None:
    """`jores.precision.reduce_precision` for this host. Raises ValueError if its device cannot compute so."""
    reduce_precision(nets, host_precision(precision), mm.get_torch_device())


def manage(net: torch.nn.Module) -> ModelPatcher:
    """Puts a net under the host's memory management. The plain ModelPatcher loads all of its weights or none."""
    return ModelPatcher(net, load_device=mm.get_torch_device(), offload_device=mm.unet_offload_device())


def each_frame(count: int, work: Callable[[int], object]) -> list:
    """`work(i)` for every picture of a batch, with progress and a check for cancellation after each."""
    progress, results = StepProgress(count), []
    for i in range(count):
        results.append(work(i))
        progress()
    return results


@contextlib.contextmanager
def memory_advice(node: str, size: str) -> Iterator[None]:
    """Adds advice to an out-of-memory error. It raises the host's exception, so that the host frees its models."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise torch.cuda.OutOfMemoryError(
            f"{node}: out of memory at {size} pixels. Pictures are processed one by one, so a smaller batch "
            f"does not help: scale the picture down, or start ComfyUI with --cpu. ({error})"
        ) from error
