from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from jores.imaging.exposure import MAX_GAIN, brighten, luma, mean_luma
from jores.imaging.resize import crop_to, pad_to_multiple


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 3), (9, 16), (32, 48)])
def test_padding_fits_every_size_and_crops_back_exactly(size, dtype):
    x = torch.rand(2, 3, *size).to(dtype)
    padded = pad_to_multiple(x, 16)
    assert padded.shape[2] % 16 == 0 and padded.shape[3] % 16 == 0
    assert padded.shape[2] - size[0] < 16 and padded.shape[3] - size[1] < 16
    assert padded.dtype == dtype
    assert torch.equal(crop_to(padded, size), x)


def test_padding_mirrors_first_and_then_repeats():
    row = torch.tensor([0.1, 0.2, 0.3]).view(1, 1, 1, 3)
    padded = pad_to_multiple(row, 8)
    expected = torch.tensor([0.1, 0.2, 0.3, 0.2, 0.1, 0.1, 0.1, 0.1])
    assert torch.equal(padded, expected.expand(1, 1, 8, 8))


def test_luma_is_the_grey_of_pillow():
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    grey = torch.from_numpy(np.array(Image.fromarray(pixels).convert("L"))).float()
    ours = luma(torch.from_numpy(pixels).permute(2, 0, 1)[None].double())[0, 0]
    assert (ours - grey).abs().max() <= 0.51


def test_mean_luma_of_a_large_half_precision_picture():
    images = torch.full((1, 3, 600, 800), 0.05).half()
    assert mean_luma(images).item() == pytest.approx(0.05, rel=1e-3)


def test_brighten_lifts_dark_pictures_only():
    generator = torch.Generator().manual_seed(0)
    dark = torch.rand(1, 3, 16, 16, generator=generator) * 0.1
    bright = torch.rand(1, 3, 16, 16, generator=generator) * 0.4 + 0.4
    black = torch.zeros(1, 3, 16, 16)
    nearly_black = torch.full((1, 3, 16, 16), 1 / 1020)
    out = brighten(torch.cat([dark, bright, black, nearly_black]))
    assert mean_luma(out)[0].item() == pytest.approx(0.4, abs=1e-4)
    assert torch.equal(out[1:2], bright)
    assert torch.equal(out[2:3], black)
    assert torch.allclose(out[3:4], nearly_black * MAX_GAIN)
