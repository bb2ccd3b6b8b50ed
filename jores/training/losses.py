"""Losses shared by the stages. All take float (B, C, H, W) tensors and return scalars."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..metrics import ssim


def gradients(x: Tensor) -> tuple[Tensor, Tensor]:
    """Differences of horizontal and of vertical neighbours: (B, C, H, W - 1) and (B, C, H - 1, W)."""
    return x[..., :, 1:] - x[..., :, :-1], x[..., 1:, :] - x[..., :-1, :]


def edge_loss(a: Tensor, b: Tensor) -> Tensor:
    """L1 between the gradients of two pictures."""
    (across_a, down_a), (across_b, down_b) = gradients(a), gradients(b)
    return F.l1_loss(across_a, across_b) + F.l1_loss(down_a, down_b)


def smoothness_loss(illumination: Tensor, reflectance: Tensor) -> Tensor:
    """|grad L| / mean(L) * exp(-10 |grad R|): RetinexNet's structure-aware smoothness (METHOD.md, 5).

    L is divided by its mean, because the gradients of a dark picture's L are small without being smooth.
    """
    illumination = illumination / illumination.detach().mean((1, 2, 3), keepdim=True)
    grey = reflectance.mean(1, keepdim=True)
    pairs = zip(gradients(illumination), gradients(grey), strict=True)
    across, down = ((dl.abs() * torch.exp(-10 * dr.abs())).mean() for dl, dr in pairs)
    return across + down


def picture_loss(prediction: Tensor, target: Tensor, structure: float, edges: float, psnr: float = 0.0) -> Tensor:
    """L1 + structure * (1 - SSIM) + edges * gradient L1, in float32.

    A `psnr` above 0 replaces the L1 by psnr * log(mean squared error + 1e-4) per picture, which is a negative PSNR up
    to a factor (HINet, Chen et al., CVPRW 2021). Where the target is uncertain it favours the mean, not the median.
    """
    prediction, target = prediction.float(), target.float()
    if psnr:
        loss = psnr * ((prediction - target).square().mean((1, 2, 3)) + 1e-4).log().mean()
    else:
        loss = F.l1_loss(prediction, target)
    if structure:
        loss = loss + structure * (1 - ssim(prediction, target).mean())
    return loss + edges * edge_loss(prediction, target) if edges else loss
