"""The memory format of weights, which decides that of the maps, and so how fast convolutions are."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import nn

Net = TypeVar("Net", bound=nn.Module)


def in_layout(net: Net, layout: torch.memory_format) -> Net:
    """Converts a net to a memory format in place; typed, because the stubs of `Module.to` lack that argument."""
    option: dict[str, Any] = {"memory_format": layout}
    return net.to(**option)


def in_fast_layout(net: Net, device: torch.device | str | None) -> Net:
    """The net in the memory format that convolutions on `device` (default: the processor) like.

    Processors are up to a tenth faster with channels last: the layers compute in it when their weights have it, and
    LayerNorm then needs no copies. Which format an accelerator likes depends on its kind, so nothing is changed there.
    """
    processor = torch.device(device or "cpu").type == "cpu"
    return in_layout(net, torch.channels_last) if processor else net
