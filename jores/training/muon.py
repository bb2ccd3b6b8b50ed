"""Muon optimiser: orthogonalised momentum for hidden convolutions, AdamW for all other parameters.

Method: Jordan et al. 2024 (kellerjordan.github.io/posts/muon). The step size follows Liu et al. 2025 (Moonlight,
arXiv 2502.16982), so that both use one learning rate. torch.optim.Muon is not used because it takes matrices only.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

import torch
from torch import Tensor, nn

COEFFICIENTS = (
    3.4445,
    -4.7750,
    2.0315,
)  # Jordan's quintic polynomial: fast, with singular values near 1 instead of exactly 1
ITERATIONS = 5
MOMENTUM = 0.95
ROOT_MEAN_SQUARE = 0.2  # of an update at learning rate 1, a usual value of AdamW


class Muon(torch.optim.AdamW):
    """AdamW, except for the weights of hidden convolutions (`is_hidden`), which get orthogonalised momentum."""

    def __init__(self, parameters: list[nn.Parameter], *, lr: float, weight_decay: float) -> None:
        hidden = [p for p in parameters if is_hidden(p)]
        others = [p for p in parameters if not is_hidden(p)]
        groups = [{"params": hidden, "orthogonal": True}, {"params": others, "orthogonal": False}]
        super().__init__([g for g in groups if g["params"]], lr=lr, weight_decay=weight_decay)

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """Updates the hidden weights and removes their gradients, so that AdamW, which updates the rest, skips them."""
        for group in self.param_groups:
            with_gradient = [p for p in group["params"] if p.grad is not None]
            if group["orthogonal"] and with_gradient:
                self._step_hidden(with_gradient, group)
        return super().step(closure)

    def _step_hidden(self, parameters: list[Tensor], group: dict[str, float]) -> None:
        alike = defaultdict(list)
        for p, momentum in zip(parameters, self._momenta(parameters), strict=True):
            alike[p.shape].append((p, momentum))
        torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
        for shape, equals in alike.items():
            moved, momenta = zip(*equals, strict=True)
            steps = orthogonalised(torch.stack([m.flatten(1) for m in momenta]))
            size = group["lr"] * ROOT_MEAN_SQUARE * max(steps.shape[1:]) ** 0.5
            torch._foreach_add_(moved, list(steps.view(-1, *shape)), alpha=-size)
        for p in parameters:
            p.grad = None

    def _momenta(self, parameters: list[Tensor]) -> list[Tensor]:
        """Nesterov momentum: the running means of the gradients, advanced once more by the present gradients."""
        for p in parameters:
            if not self.state[p]:
                self.state[p]["momentum"] = torch.zeros_like(p)
                self.state[p]["step"] = torch.zeros(())  # AdamW expects it when a state is loaded
        gradients = [p.grad for p in parameters if p.grad is not None]
        means = [self.state[p]["momentum"] for p in parameters]
        torch._foreach_lerp_(means, gradients, 1 - MOMENTUM)
        return list(torch._foreach_lerp(gradients, means, MOMENTUM))


def is_hidden(p: nn.Parameter) -> bool:
    """Whether `p` is the weight of a convolution with at least 48 input and 48 output channels.

    This leaves out the convolutions that read or write pictures.
    """
    return p.ndim == 4 and min(p.shape[:2]) >= 48


def orthogonalised(matrices: Tensor) -> Tensor:
    """Replaces the singular values of (N, rows, columns) matrices by values near 1: Newton-Schulz, in float32.

    Every iterate is a polynomial in G = X X^T times X. So the iteration works on G, whose side is the smaller one of X:
    much less work for 3x3 convolutions, whose matrices are nine times as long as high.
    """
    x = matrices.float()
    if x.shape[1] > x.shape[2]:
        return orthogonalised(matrices.mT).mT
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp_min(1e-12)
    a, b, c = COEFFICIENTS
    gram, product = x @ x.mT, None  # (N, rows, rows)
    for _ in range(ITERATIONS):
        factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal(dim1=1, dim2=2).add_(a)
        product, gram = factor if product is None else factor @ product, factor @ gram @ factor
    return (x if product is None else product @ x).to(matrices.dtype)
