"""Losses shared by the stages. All take float (B, C, H, W) tensors and return scalars."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..metrics import ssim


def gradients(x: Tensor) -> tuple[Tensor, Tensor]:
    return x[..., :, 1:] - x[..., :, :-1], x[..., 1:, :] - x[..., :-1, :]


def edge_loss(a: Tensor, b: Tensor) -> Tensor:
    """L1 between the gradients of two pictures."""
    (across_a, down_a), (across_b, down_b) = gradients(a), gradients(b)
    return F.l1_loss(across_a, across_b) + F.l1_loss(down_a, down_b)


def smoothness_loss(illumination: Tensor, reflectance: Tensor) -> Tensor:
    """|grad L| / mean(L) * exp(-10 |grad R|): RetinexNet's structure-aware smoothness (Eq. 5), relative to the
    picture's own level, or a dark picture's L could be as rough as it likes."""
    illumination = illumination / illumination.detach().mean((1, 2, 3), keepdim=True)
    grey = reflectance.mean(1, keepdim=True)
    pairs = zip(gradients(illumination), gradients(grey), strict=True)
    across, down = ((dl.abs() * torch.exp(-10 * dr.abs())).mean() for dl, dr in pairs)
    return across + down


def picture_loss(prediction: Tensor, target: Tensor, structure: float, edges: float, psnr: float = 0.0) -> Tensor:
    """L1 + structure * (1 - SSIM) + edges * gradient L1, in float32.

    A `psnr` above 0 puts psnr * log(mean square error + 1e-4) of each picture in place of the L1: its negative PSNR in
    nepers (HINet, Chen et al., CVPRW 2021). What cannot be known is then met half-way instead of guessed.
    """
    prediction, target = prediction.float(), target.float()
    if psnr:
        loss = psnr * ((prediction - target).square().mean((1, 2, 3)) + 1e-4).log().mean()
    else:
        loss = F.l1_loss(prediction, target)
    if structure:
        loss = loss + structure * (1 - ssim(prediction, target).mean())
    return loss + edges * edge_loss(prediction, target) if edges else loss
