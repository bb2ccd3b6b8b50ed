"""PSNR and SSIM as low-light papers report them, and GT-mean. Never compare raw scores with scores after GT-mean."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..imaging.exposure import mean_luma

WINDOW, SIGMA = 11, 1.5


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB over all channels of (B, C, H, W) pictures in [0, 1], as (B,).

    Equal pictures give infinity.
    """
    error = (a.float() - b.float()).square().mean((1, 2, 3))
    return -10 * error.log10()


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Structural similarity (Wang et al. 2004) of (B, C, H, W) pictures in [0, 1], as (B,); differentiable.

    Gaussian window of 11 pixels with sigma 1.5, data range 1, computed per channel and averaged over all positions
    where the window fits into the picture. Equals scikit-image's `structural_similarity(gaussian_weights=True,
    sigma=1.5, use_sample_covariance=False, channel_axis=...)`.

    Raises:
        ValueError: the pictures are smaller than the window or of different sizes.
    """
    if a.shape != b.shape:
        raise ValueError(f"SSIM compares pictures of one size, got {tuple(a.shape)} and {tuple(b.shape)}")
    if min(a.shape[-2:]) < WINDOW:
        raise ValueError(f"SSIM needs at least {WINDOW}x{WINDOW} pixels, got {a.shape[-2]}x{a.shape[-1]}")
    a, b = a.float(), b.float()
    batch, channels = a.shape[:2]
    moments = torch.cat([a, b, a * a, b * b, a * b], 1)
    # The variances are differences of nearly equal numbers: bfloat16 is not precise enough for them.
    with torch.autocast(a.device.type, enabled=False):
        mean_a, mean_b, square_a, square_b, product = _blur(moments).chunk(5, 1)  # (B, C, H - 10, W - 10) each
    variance_a, variance_b = square_a - mean_a * mean_a, square_b - mean_b * mean_b
    covariance = product - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2 * mean_a * mean_b + c1) / (mean_a * mean_a + mean_b * mean_b + c1)
    structure = (2 * covariance + c2) / (variance_a + variance_b + c2)
    return (luminance * structure).mean((1, 2, 3))


def gt_mean(images: Tensor, reference: Tensor) -> Tensor:
    """Rescales `images` to the mean luma of `reference`: the "GT-mean" protocol of KinD, LLFlow and PyDiff.

    It uses the ground truth, so it is for reporting scores only, never a part of the enhancement. On LOL it raises
    PSNR by about 4 dB: always state which of the two protocols a score follows.

    Args:
        images, reference: (B, 3, H, W) in [0, 1].

    Returns:
        (B, 3, H, W), clipped to [0, 1]. Black pictures stay black.
    """
    gain = mean_luma(reference) / mean_luma(images).clamp(min=1e-6)
    return (images * gain.view(-1, 1, 1, 1)).clamp(0, 1)


def exposure_error(images: Tensor, reference: Tensor) -> Tensor:
    """|ln(mean luma of `images` / mean luma of `reference`)| of (B, 3, H, W) pictures in [0, 1], as (B,).

    0.1 means 10 % too bright or too dark, 0.69 twice or half as bright. GT-mean removes this error.
    """
    ratio = mean_luma(images).clamp(min=1e-6) / mean_luma(reference).clamp(min=1e-6)
    return ratio.log().abs()


def _blur(x: Tensor) -> Tensor:
    """Gaussian blur of each channel by two 1-D convolutions, at the positions where the window fits (no padding)."""
    channels = x.shape[1]
    offsets = torch.arange(WINDOW, device=x.device, dtype=x.dtype) - WINDOW // 2
    kernel = torch.exp(-offsets.square() / (2 * SIGMA**2))
    kernel = (kernel / kernel.sum()).expand(channels, 1, 1, WINDOW)
    x = F.conv2d(x, kernel, groups=channels)
    return F.conv2d(x, kernel.mT, groups=channels)
