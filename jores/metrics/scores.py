"""All scores of one result. Scores that need a ground truth are given raw and after GT-mean, under separate names."""

from __future__ import annotations

from torch import Tensor

from .full_reference import exposure_error, gt_mean, psnr, ssim
from .lpips import Lpips
from .no_reference import niqe
from .spectrum import spectrum_error

SCORES = ("psnr_raw", "ssim_raw", "psnr_gt_mean", "ssim_gt_mean")


def assess(result: Tensor, reference: Tensor | None = None, lpips: Lpips | None = None) -> dict[str, float]:
    """All scores of a (1, 3, H, W) picture in [0, 1], which is rounded to 8 bits first.

    Without a reference: NIQE, NaN for a picture that is too small. With a reference (same shape and range): also the
    scores of `score`, the exposure error, and after GT-mean the spectrum error and, if its net is given, LPIPS.
    """
    result = (result * 255).round() / 255
    figures = {"niqe": niqe(result).item()}
    if reference is None:
        return figures
    rescaled = gt_mean(result, reference)
    figures["spectrum_error"] = spectrum_error(rescaled, reference).item()
    if lpips is not None:
        figures["lpips"] = lpips(rescaled, reference).item()
    return {**score(result, reference), "exposure_error": exposure_error(result, reference).item(), **figures}


def score(result: Tensor, reference: Tensor) -> dict[str, float]:
    """PSNR (dB) and SSIM of (1, 3, H, W) pictures in [0, 1], raw and after GT-mean.

    The result is rounded to 8 bits first, as it would be in a file.
    """
    result = (result * 255).round() / 255
    rescaled = gt_mean(result, reference)
    values = psnr(result, reference), ssim(result, reference), psnr(rescaled, reference), ssim(rescaled, reference)
    return {key: value.item() for key, value in zip(SCORES, values, strict=True)}
