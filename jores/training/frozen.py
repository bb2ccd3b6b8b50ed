"""Objectives that use nets without training them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from torch import Tensor, nn

Net = TypeVar("Net", bound=nn.Module)


class UsesFrozen(nn.Module):
    """An objective with nets that are not trained.

    The frozen nets are kept in a plain list, which hides them from the optimiser, the EMA and the checkpoints. They
    move to a device with the objective, but keep their memory layout, because it affects the last bits of results.
    """

    def __init__(self, *frozen: nn.Module) -> None:
        super().__init__()
        self.frozen = [net.requires_grad_(False).eval() for net in frozen]

    def frozen_net(self, kind: type[Net]) -> Net:
        """The frozen net of this class. Raises StopIteration if there is none."""
        return next(net for net in self.frozen if isinstance(net, kind))

    def _apply(self, function: Callable[[Tensor], Tensor], recurse: bool = True) -> UsesFrozen:
        super()._apply(function, recurse)
        device = next(self.parameters()).device
        for net in self.frozen:
            net.to(device)
        return self
