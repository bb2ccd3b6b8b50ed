"""Spectrum error: compares the amount of fine detail with the reference per frequency. Blur and grain both raise it."""

from __future__ import annotations

import torch
from torch import Tensor

from ..imaging.exposure import luma

LOWEST, HIGHEST, RINGS = 0.1, 0.4, 12  # cycles per pixel


def spectrum_error(result: Tensor, reference: Tensor) -> Tensor:
    """Mean |ln(P / P_reference)| over RINGS rings of the luma's power spectrum, LOWEST to HIGHEST cycles per pixel.

    0: as much detail as the reference at every frequency, regardless of its position; 0.69: half or twice the power.
    A gain changes the power as well, so apply `gt_mean` to the result first.

    Args:
        result, reference: (B, 3, H, W) in [0, 1], of the same size, 32 pixels or more on each side.

    Returns:
        (B,), float64 on the CPU.
    """
    return (_log_rings(result) - _log_rings(reference)).abs().mean(1)


def _log_rings(images: Tensor) -> Tensor:
    """(B, RINGS): logarithm of the mean power in each ring. A Hann window suppresses the picture's borders."""
    grey = luma(images.detach().cpu().double())[:, 0]
    grey = grey - grey.mean((1, 2), keepdim=True)
    height, width = grey.shape[-2:]
    window = torch.outer(*(torch.hann_window(n, dtype=torch.float64) for n in (height, width)))
    power = torch.fft.rfft2(grey * window).abs().square() / (height * width)
    radius = torch.hypot(torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)[None])
    ring = ((radius - LOWEST) / (HIGHEST - LOWEST) * RINGS).floor().long()
    means = [power[:, ring == i].mean(1) for i in range(RINGS)]
    return torch.stack(means, 1).clamp_min(1e-12).log()
