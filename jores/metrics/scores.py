"""All figures of one result, by both protocols of the field, always told apart."""

from __future__ import annotations

from torch import Tensor

from .full_reference import exposure_error, gt_mean, psnr, ssim
from .lpips import Lpips
from .no_reference import niqe
from .spectrum import spectrum_error

SCORES = ("psnr_raw", "ssim_raw", "psnr_gt_mean", "ssim_gt_mean")


def assess(result: Tensor, reference: Tensor | None = None, lpips: Lpips | None = None) -> dict[str, float]:
    """Every figure there is of a (1, 3, H, W) picture in [0, 1], rounded to 8 bits: NIQE, and with a reference `score`,
    the exposure error and, after GT-mean, the spectrum error and LPIPS, if its net is given. NIQE is NaN where the
    picture is too small for it."""
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

    The result is rounded to the 8 bits of the file that people would get.
    """
    result = (result * 255).round() / 255
    rescaled = gt_mean(result, reference)
    values = psnr(result, reference), ssim(result, reference), psnr(rescaled, reference), ssim(rescaled, reference)
    return {key: value.item() for key, value in zip(SCORES, values, strict=True)}
