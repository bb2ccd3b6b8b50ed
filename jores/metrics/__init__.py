"""Quality metrics: with a ground truth (PSNR, SSIM, GT-mean, exposure error, spectrum error) and without one (NIQE).

LPIPS (module `lpips`) needs the trained weights of a backbone. They are not shipped; the user names a file with them.
"""

from .full_reference import exposure_error, gt_mean, psnr, ssim
from .no_reference import niqe
from .spectrum import spectrum_error

__all__ = ["exposure_error", "gt_mean", "niqe", "psnr", "spectrum_error", "ssim"]
