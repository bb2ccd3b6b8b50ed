from __future__ import annotations

import math

import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from jores.imaging.exposure import mean_luma
from jores.metrics import gt_mean, psnr, ssim


def pictures(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Smooth pictures with noise, one dark and one bright, and a distorted copy of both."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(2, 3, 6, 8, generator=generator) * torch.tensor([0.15, 1.0]).view(2, 1, 1, 1)
    clean = torch.nn.functional.interpolate(coarse, size=(43, 60), mode="bilinear")
    noise = torch.randn(clean.shape, generator=generator) * 0.04
    return clean, (clean * 0.9 + noise).clamp(0, 1)


def test_psnr_and_ssim_equal_scikit_image_per_picture():
    clean, noisy = pictures(0)
    for index in range(2):
        a, b = (x[index].permute(1, 2, 0).double().numpy() for x in (clean, noisy))
        expected = structural_similarity(
            a, b, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1.0, channel_axis=2
        )
        assert ssim(clean, noisy)[index].item() == pytest.approx(expected, abs=1e-4)
        assert psnr(clean, noisy)[index].item() == pytest.approx(peak_signal_noise_ratio(a, b, data_range=1), abs=1e-3)


def test_equal_pictures():
    clean, _ = pictures(1)
    assert torch.allclose(ssim(clean, clean), torch.ones(2))
    assert psnr(clean, clean).tolist() == [math.inf, math.inf]


def test_ssim_climbs_when_followed_as_a_loss_under_bfloat16_autocast():
    clean, noisy = pictures(2)
    noisy = noisy.requires_grad_()
    before = ssim(noisy, clean)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under_autocast = ssim(noisy, clean)
    assert torch.equal(under_autocast, before)
    (gradient,) = torch.autograd.grad(before.sum(), noisy)
    assert torch.isfinite(gradient).all()
    stepped = noisy + 0.01 * gradient / gradient.abs().amax((1, 2, 3), keepdim=True)
    assert (ssim(stepped, clean) > before).all()


def test_ssim_names_sizes_that_cannot_be_compared():
    with pytest.raises(ValueError, match="11x11 pixels, got 10x40"):
        ssim(torch.zeros(1, 3, 10, 40), torch.zeros(1, 3, 10, 40))
    with pytest.raises(ValueError, match="one size"):
        ssim(torch.zeros(1, 3, 20, 20), torch.zeros(1, 3, 20, 21))


def test_gt_mean_takes_the_exposure_error_out_and_nothing_else():
    clean, _ = pictures(3)
    darker = clean * torch.tensor([0.5, 0.7]).view(2, 1, 1, 1)
    assert torch.allclose(gt_mean(darker, clean), clean, atol=1e-5)
    tinted = clean * torch.tensor([0.6, 0.4, 0.5]).view(1, 3, 1, 1)
    rescaled = gt_mean(tinted, clean * 0.5)
    assert torch.allclose(mean_luma(rescaled), mean_luma(clean * 0.5), atol=1e-4)
    assert not torch.allclose(rescaled, clean * 0.5, atol=0.01)
    assert torch.equal(gt_mean(torch.zeros(2, 3, 4, 4), torch.ones(2, 3, 4, 4)), torch.zeros(2, 3, 4, 4))
