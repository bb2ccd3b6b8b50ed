from __future__ import annotations

import math

import pytest
import skimage
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from jores.files.pictures import read_image
from jores.imaging.exposure import mean_luma
from jores.metrics import exposure_error, gt_mean, niqe, psnr, spectrum_error, ssim
from jores.metrics.no_reference import asymmetric_gaussian


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


def test_exposure_error_is_the_logarithm_of_the_ratio_of_the_means():
    clean, _ = pictures(4)
    assert exposure_error(clean * 0.5, clean).tolist() == pytest.approx([math.log(2)] * 2, abs=1e-5)
    assert exposure_error(clean * 0.5, clean).tolist() == exposure_error(clean, clean * 0.5).tolist()


def photographs(folder, count):
    return [read_image(path).pixels[None, :3, :480, :480] for path in sorted(folder.glob("*.jpg"))[:count]]


def spoilt(picture: torch.Tensor) -> dict[str, torch.Tensor]:
    """What a low-light method leaves behind when it fails, in 8 bits."""
    noise = torch.randn(picture.shape, generator=torch.Generator().manual_seed(5)) * 0.08
    copies = {
        "noise": picture + noise,
        "blur": torch.nn.functional.avg_pool2d(picture, 5, 1, 2, count_include_pad=False),
        "dark": (picture**2.2 * 0.02) ** (1 / 2.2),
        "banded": (picture * 12).round() / 12,
    }
    return {name: (copy.clamp(0, 1) * 255).round() / 255 for name, copy in copies.items()}


def test_niqe_rises_with_noise_blur_darkness_and_banding_on_photographs_it_was_not_fitted_to():
    for load in (skimage.data.astronaut, skimage.data.chelsea, skimage.data.coffee):
        picture = torch.from_numpy(load()).permute(2, 0, 1)[None, :, :400, :400] / 255
        good = niqe(picture).item()
        assert good < 5
        for name, bad in spoilt(picture).items():
            assert niqe(bad).item() > good + 0.3, f"{load.__name__}: {name}"
        torch.testing.assert_close(niqe(torch.cat([bad, picture])), torch.cat([niqe(bad), niqe(picture)]))


def test_niqe_orders_held_out_photographs(shared_data):
    kept = photographs(shared_data / "photos/coco_val128", 8)
    good = sum(niqe(picture).item() for picture in kept) / len(kept)
    for name in ("noise", "blur", "dark", "banded"):
        bad = [niqe(spoilt(picture)[name]).item() for picture in kept]
        assert sum(bad) / len(bad) > good + 0.3, name


def test_niqe_gives_no_verdict_without_statistics():
    assert niqe(torch.rand(1, 3, 191, 191)).isnan().item()  # one patch
    assert niqe(torch.full((1, 3, 192, 192), 0.3)).isnan().item()  # four flat ones


def test_asymmetric_gaussian_finds_the_shape_it_was_drawn_from():
    generator = torch.Generator().manual_seed(6)
    normal = torch.randn(200_000, generator=generator, dtype=torch.float64)
    share = torch.rand(200_000, generator=generator, dtype=torch.float64).clamp(1e-6, 1 - 1e-6)
    laplace = torch.distributions.Laplace(0.0, 1.0).icdf(share)
    lopsided = torch.where(normal < 0, normal * 2, normal)[torch.rand(200_000, generator=generator) < 0.5][:90_000]
    alpha, left, right = asymmetric_gaussian(torch.stack([normal, laplace])[:, :90_000])
    assert alpha.tolist() == pytest.approx([2, 1], rel=0.03)
    assert left.tolist() == pytest.approx(right.tolist(), rel=0.03)
    alpha, left, right = asymmetric_gaussian(lopsided[None])
    assert (left / right).item() == pytest.approx(2, rel=0.03)


def test_the_spectrum_tells_blur_and_grain_from_the_truth():
    truth = torch.from_numpy(skimage.data.coffee()).permute(2, 0, 1)[None, :, :256, :320] / 255
    assert spectrum_error(truth, truth).item() == 0
    assert spectrum_error(truth * 0.5, truth).item() == pytest.approx(math.log(4), abs=1e-3)  # power goes by squares
    copies = spoilt(truth)
    assert all(spectrum_error(copies[name], truth).item() > 0.5 for name in ("blur", "noise"))
    assert spectrum_error(truth.flip(3), truth).item() < 0.05  # wherever the detail is
