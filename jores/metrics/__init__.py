"""Figures of picture quality: against a ground truth (PSNR, SSIM, GT-mean, exposure error) and without one (NIQE).

There is no LPIPS: it needs trained weights of a backbone, and none with a clear licence can be shipped along.
"""

from .full_reference import exposure_error, gt_mean, psnr, ssim
from .no_reference import niqe
from .spectrum import spectrum_error

__all__ = ["exposure_error", "gt_mean", "niqe", "psnr", "spectrum_error", "ssim"]
