"""NIQE: distance of a picture's local statistics from those of good photographs. It needs no ground truth.

After A. Mittal, R. Soundararajan, A. C. Bovik, "Making a 'Completely Blind' Image Quality Analyzer", IEEE Signal
Processing Letters, 2013. Written from the paper; the window, the constant 1 in the contrast normalisation and the
levels 0..255 are the usual ones. The Gaussian of the good photographs is our own fit (see `pristine`), because the
published one is not available: **compare these values with each other, not with published NIQE values.**
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from ..imaging.exposure import luma

PATCH = 96
FEATURES = 36  # per patch: 18 at each of two scales
PARAMETERS = Path(__file__).parent / "niqe.safetensors"
_SHIFTS = ((0, 1), (1, 0), (1, 1), (1, -1))  # neighbours: right, below, and the two diagonals


class PatchStatistics(NamedTuple):
    """features (N, 36) and sharpness (N,) of N patches, float64; sharpness: mean local contrast in levels 0..255."""

    features: Tensor
    sharpness: Tensor


def niqe(images: Tensor) -> Tensor:
    """NIQE of (B, 3, H, W) pictures in [0, 1], as (B,) in float64 on the CPU; lower is better.

    NaN for a picture with fewer than two patches of 96x96 pixels that are not flat: the statistics need at least two.
    """
    return torch.stack([_distance(patch_statistics(image[None]).features) for image in images])


def patch_statistics(image: Tensor) -> PatchStatistics:
    """Statistics of the 96x96 patches of one (1, 3, H, W) picture in [0, 1].

    Flat patches and the incomplete patches at the right and bottom edge are left out.
    """
    grey = luma(image.detach().cpu().double()).clamp(0, 1) * 255
    rows, columns = (size // PATCH for size in grey.shape[-2:])
    if not rows * columns:
        return PatchStatistics(grey.new_empty(0, FEATURES), grey.new_empty(0))
    grey = grey[..., : rows * PATCH, : columns * PATCH]
    half = F.interpolate(grey, scale_factor=0.5, mode="bicubic", antialias=True)
    normalised, contrast = contrast_normalised(grey)
    fine = _features(_patches(normalised, PATCH))
    coarse = _features(_patches(contrast_normalised(half)[0], PATCH // 2))
    features = torch.cat([fine, coarse], 1)  # (N, 36)
    useful = features.isfinite().all(1)
    return PatchStatistics(features[useful], _patches(contrast, PATCH).mean((1, 2))[useful])


def contrast_normalised(grey: Tensor) -> tuple[Tensor, Tensor]:
    """MSCN coefficients of (1, 1, H, W) levels 0..255, and the local standard deviation that they are divided by."""
    offsets = torch.arange(-3, 4, dtype=grey.dtype)
    kernel = torch.exp(-offsets.square() / (2 * (7 / 6) ** 2))
    kernel = torch.outer(kernel, kernel).div(kernel.sum() ** 2).view(1, 1, 7, 7)

    def local_mean(x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, (3, 3, 3, 3), mode="replicate"), kernel)

    mean = local_mean(grey)
    deviation = (local_mean(grey.square()) - mean.square()).clamp_min(0).sqrt()
    return (grey - mean) / (deviation + 1), deviation


def asymmetric_gaussian(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Fits an asymmetric generalised Gaussian to each row of (N, M) by moment matching.

    Returns shape alpha, left scale and right scale, (N,) each; NaN or infinite for rows that do not have values on
    both sides of zero.
    """
    shapes, ratios = _shape_table()
    squares = x.square()
    left, right = (((squares * side).sum(1) / side.sum(1)).sqrt() for side in (x < 0, x > 0))
    balance = left / right
    ratio = x.abs().mean(1).square() / squares.mean(1)
    ratio = ratio * (balance**3 + 1) * (balance + 1) / (balance.square() + 1).square()
    index = torch.searchsorted(ratios, ratio.nan_to_num()).clamp(1, len(ratios) - 1)
    index = index - (ratio - ratios[index - 1] < ratios[index] - ratio).long()
    alpha = shapes[index]
    scale = torch.exp((torch.lgamma(1 / alpha) - torch.lgamma(3 / alpha)) / 2)
    return alpha, left * scale, right * scale


def _features(patches: Tensor) -> Tensor:
    """(N, p, p) MSCN patches -> (N, 18): fits to the values, and to their products with each of 4 neighbours."""
    alpha, left, right = asymmetric_gaussian(patches.flatten(1))
    features = [alpha, (left + right) / 2]
    for shift in _SHIFTS:
        alpha, left, right = asymmetric_gaussian((patches * patches.roll(shift, (1, 2))).flatten(1))
        mean = (right - left) * torch.exp(torch.lgamma(2 / alpha) - torch.lgamma(1 / alpha))
        features += [alpha, mean, left, right]
    return torch.stack(features, 1)


def _patches(x: Tensor, size: int) -> Tensor:
    """(1, 1, rows * size, columns * size) -> (rows * columns, size, size)."""
    return x[0, 0].unfold(0, size, size).unfold(1, size, size).flatten(0, 1)


def _distance(features: Tensor) -> Tensor:
    """Mahalanobis-like distance between the Gaussian of these features and the Gaussian of good photographs."""
    if len(features) < 2:
        return features.new_tensor(torch.nan)
    pristine = _parameters()
    gap = pristine["mean"] - features.mean(0)
    covariance = (pristine["covariance"] + features.T.cov()) / 2
    return (gap @ torch.linalg.pinv(covariance, hermitian=True) @ gap).clamp_min(0).sqrt()


@functools.cache
def _shape_table() -> tuple[Tensor, Tensor]:
    """alpha, and Gamma(2 / alpha)^2 / (Gamma(1 / alpha) Gamma(3 / alpha)), which increases with alpha."""
    shapes = torch.arange(200, 10001, dtype=torch.float64) / 1000
    return shapes, torch.exp(2 * torch.lgamma(2 / shapes) - torch.lgamma(1 / shapes) - torch.lgamma(3 / shapes))


@functools.cache
def _parameters() -> dict[str, Tensor]:
    return load_file(PARAMETERS)
