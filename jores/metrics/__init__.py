"""Figures of picture quality: against a ground truth (PSNR, SSIM, GT-mean, exposure error, spectrum error) and without
one (NIQE). LPIPS, in `lpips`, needs trained weights of a backbone, which are not shipped: it takes a file of them.
"""

from .full_reference import exposure_error, gt_mean, psnr, ssim
from .no_reference import niqe
from .spectrum import spectrum_error

__all__ = ["exposure_error", "gt_mean", "niqe", "psnr", "spectrum_error", "ssim"]
