"""How much fine detail a picture has beside its reference, scale by scale: blur and grain both show here."""

from __future__ import annotations

import torch
from torch import Tensor

from ..imaging.exposure import luma

LOWEST, HIGHEST, RINGS = 0.1, 0.4, 12  # cycles per pixel


def spectrum_error(result: Tensor, reference: Tensor) -> Tensor:
    """Mean |ln(P / P_reference)| over RINGS rings of the luma's power spectrum, LOWEST to HIGHEST cycles per pixel.

    0 where the result has as much detail at every scale as the reference, wherever that detail is; 0.69 where it has
    half or twice the power. Where two pictures differ in light only by a factor, give the result after `gt_mean`.

    Args:
        result, reference: (B, 3, H, W) in [0, 1], of the same size, 32 pixels or more on each side.

    Returns:
        (B,), float64 on the CPU.
    """
    return (_log_rings(result) - _log_rings(reference)).abs().mean(1)


def _log_rings(images: Tensor) -> Tensor:
    """(B, RINGS): the log of the mean power in each ring. A Hann window keeps the picture's borders out."""
    grey = luma(images.detach().cpu().double())[:, 0]
    grey = grey - grey.mean((1, 2), keepdim=True)
    height, width = grey.shape[-2:]
    window = torch.outer(*(torch.hann_window(n, dtype=torch.float64) for n in (height, width)))
    power = torch.fft.rfft2(grey * window).abs().square() / (height * width)
    radius = torch.hypot(torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)[None])
    ring = ((radius - LOWEST) / (HIGHEST - LOWEST) * RINGS).floor().long()
    means = [power[:, ring == i].mean(1) for i in range(RINGS)]
    return torch.stack(means, 1).clamp_min(1e-12).log()
