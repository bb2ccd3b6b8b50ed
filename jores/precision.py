"""Lower precision for the nets, where the processor computes faster with it and pictures stay the same to a level."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from .checkpoint import JoReSNets
from .nets.refinement import RefinementNet

PRECISIONS = ("auto", "float32", "bfloat16")
FAST = ("avx512_bf16", "amx_bf16")  # processor features that compute bfloat16 faster than float32


def reduce_precision(nets: JoReSNets, precision: str, device: torch.device | None = None) -> None:
    """Lets the nets compute in bfloat16 if `precision` asks for it; changes nothing else.

    The last layer of each net stays in float32, and so do R, L, R' and L', the sampler and the weights in memory: what
    is rounded is only what the nets add to a picture, so a result changes by about a level of 8 bits at most. Of DNet
    it is where L lies between its bounds: R * L is the dark picture still, whose rounding the gain would amplify.

    Args:
        nets: those of its parts that are there.
        precision: one of PRECISIONS; "auto" means bfloat16 on processors with one of FAST, and float32 elsewhere.
        device: of the nets (default: the CPU).

    Raises:
        ValueError: an unknown precision, or one that the device cannot compute in.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be {', '.join(PRECISIONS[:-1])} or {PRECISIONS[-1]}, not {precision}")
    device = device or torch.device("cpu")
    if precision == "float32" or (precision == "auto" and not fast_in_bfloat16(device)):
        return
    if not torch.amp.is_autocast_available(device.type):
        raise ValueError(f"precision: {device.type} devices cannot compute in {precision}: choose auto or float32")
    reduced = torch.autocast(device.type, torch.bfloat16)
    for net in (nets.decomposition, nets.adjustment, nets.denoiser, nets.refinement):
        if net is None:
            continue
        head = net.ircm.head if isinstance(net, RefinementNet) else net.head
        net.forward = reduced(net.forward)
        head.forward = _in_float32(head.forward, device.type)
    if nets.denoiser is not None:
        nets.denoiser.guides = reduced(nets.denoiser.guides)
    if nets.refinement is not None:
        nets.refinement.modulations = reduced(nets.refinement.modulations)


def fast_in_bfloat16(device: torch.device, capabilities: Callable[[], Mapping[str, object]] | None = None) -> bool:
    """Whether "auto" chooses bfloat16. `capabilities`: features of the processor (default: as PyTorch finds them)."""
    find = capabilities or getattr(torch.cpu, "get_capabilities", dict)  # older releases of PyTorch cannot tell
    return device.type == "cpu" and any(find().get(feature) for feature in FAST)


def _in_float32(forward: Callable[[Tensor], Tensor], kind: str) -> Callable[[Tensor], Tensor]:
    def exact(x: Tensor) -> Tensor:
        with torch.autocast(kind, enabled=False):
            return forward(x.float())

    return exact
