"""Lower precision for the nets, where the processor computes faster with it and pictures stay the same to a level."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from .checkpoint import JoReSNets
from .limits import PRECISIONS
from .nets.refinement import RefinementNet

FAST = ("avx512_bf16", "amx_bf16")  # processor features that compute bfloat16 faster than float32


def reduce_precision(nets: JoReSNets, precision: str, device: torch.device | None = None) -> None:
    """Lets the nets compute in bfloat16 if `precision` asks for it; changes nothing else.

    The last layer of each net stays in float32, and so do R, L, R' and L', the sampler and the weights in memory. So
    only what the nets add to a picture is rounded, and a result changes by 2 levels of 8 bits at most. DNet's part of
    it is the place of L between two bounds. R is the quotient of the picture and that L, in float32, so R * L is as
    exact as the dark picture: an error of it would be amplified by the gain.

    Args:
        nets: those of its parts that are there.
        precision: one of PRECISIONS; "auto" means bfloat16 on processors with one of FAST, and float32 elsewhere.
        device: of the nets (default: the CPU).

    Raises:
        ValueError: an unknown precision, or one that the device cannot compute in.
    """
    device = device or torch.device("cpu")
    if chosen_precision(precision, device) == "float32":
        return
    try:
        torch.autocast(device.type, torch.bfloat16)
    except (RuntimeError, AssertionError) as error:
        message = f"precision: {device.type} devices cannot compute in {precision}: choose auto or float32"
        raise ValueError(message) from error
    for net in (nets.decomposition, nets.adjustment, nets.denoiser, nets.refinement):
        if net is not None:
            names = tuple(name for name in ("forward", "guides", "modulations") if hasattr(net, name))
            _compute(net, names, device.type, torch.bfloat16)
            head = net.ircm.head if isinstance(net, RefinementNet) else net.head
            _compute(head, ("forward",), device.type, torch.float32)


def chosen_precision(precision: str, device: torch.device) -> str:
    """What "auto" means on this device; other `precision`s as they are. Raises ValueError for an unknown one."""
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be {', '.join(PRECISIONS[:-1])} or {PRECISIONS[-1]}, not {precision}")
    if precision == "auto":
        return "bfloat16" if fast_in_bfloat16(device) else "float32"
    return precision


def fast_in_bfloat16(device: torch.device, capabilities: Callable[[], Mapping[str, object]] | None = None) -> bool:
    """Whether "auto" chooses bfloat16. `capabilities`: features of the processor (default: as PyTorch finds them)."""
    find = capabilities or getattr(torch.cpu, "get_capabilities", dict)  # older releases of PyTorch cannot tell
    return device.type == "cpu" and any(find().get(feature) for feature in FAST)


def mixed_precision_for(device: torch.device) -> str:
    """What "auto" means in training: "bf16" where the device computes it in hardware, and "no" elsewhere.

    Emulated, a step of ANet takes nine times as long on two cores with AVX2.
    """
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "no"
    return "bf16" if fast_in_bfloat16(device) else "no"


def _compute(net: nn.Module, names: tuple[str, ...], kind: str, dtype: torch.dtype) -> None:
    """Makes the named methods of the net compute in `dtype`, on devices of this kind.

    The net becomes one of a subclass, so that copies of it are their own, which wrapped methods among its attributes
    would not be.
    """
    net.__class__ = _computing(type(net), names, kind, dtype)


@functools.cache
def _computing(net: type[nn.Module], names: tuple[str, ...], kind: str, dtype: torch.dtype) -> type[nn.Module]:
    def method(name: str) -> Callable[..., object]:
        def computed(self: nn.Module, *args: object, **kwargs: object) -> object:
            if dtype == torch.float32:
                args = tuple(a.float() if isinstance(a, Tensor) else a for a in args)
            # An autocast of its own for each call: a net calls its own methods, and none can be entered twice.
            with torch.autocast(kind, torch.bfloat16, enabled=dtype != torch.float32):
                return getattr(net, name)(self, *args, **kwargs)

        return computed

    return type(net.__name__, (net,), {name: method(name) for name in names})
