"""The camera of the pairs: read off a pair, and used on other pictures."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from jores.training.camera import Camera
from jores.training.convert import to_pixels, to_tensor
from jores.training.data import CropSampler
from jores.training.pairs import Pair, load_pairs

CAMERA = Camera((0.03, 0.05, 0.04), (1.2, 0.9, 1.05), (0.008, 0.004, 0.006))


def picture(seed=0, side=(240, 320)):
    coarse = torch.rand(1, 3, 6, 8, generator=torch.Generator().manual_seed(seed)) * 0.9 + 0.1
    return F.interpolate(coarse, size=side, mode="bicubic")[0].clamp(0, 1)


def pair_of(camera, seed=0):
    high = picture(seed)
    return Pair("made", to_pixels(high), to_pixels(camera(high, torch.Generator().manual_seed(seed))))


def test_what_a_camera_did_to_a_pair_is_read_off_it():
    found = Camera.of(pair_of(CAMERA))
    assert found.gain == pytest.approx(CAMERA.gain, rel=0.2)
    assert found.contrast == pytest.approx(CAMERA.contrast, abs=0.08)
    assert found.noise == pytest.approx(CAMERA.noise, rel=0.15)


def test_the_noise_is_the_cameras_and_the_same_for_the_same_generator():
    clean = CAMERA(picture())
    noisy, again = (CAMERA(picture(), torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(noisy, again) and torch.equal(noisy * 255, (noisy * 255).round())
    bright = (clean > 0.1).all(0)  # where black does not cut the noise off
    measured = (noisy - clean)[:, bright].std(1)
    assert torch.allclose(measured, torch.tensor(CAMERA.noise), rtol=0.1)


def test_another_exposure_changes_the_light_alone():
    half, whole = CAMERA.at(0.5)(picture()), CAMERA(picture())
    assert half.mean() < 0.8 * whole.mean() and CAMERA.at(1.0) == CAMERA


def test_a_pair_that_is_black_or_white_has_no_camera():
    assert Camera.of(Pair("black", np.full((64, 64, 3), 120, np.uint8), np.zeros((64, 64, 3), np.uint8))) is None


def test_pictures_are_darkened_as_the_pairs_were():
    """With `as_pairs`, photographs and the pairs' own light pictures; the pairs' cameras alone decide how dark."""
    pairs = [pair_of(CAMERA, seed) for seed in range(2)]
    photo = Pair("photo", np.full((240, 320, 3), 200, np.uint8))
    sampler = CropSampler(pairs, [photo], crop=64, batch=24, photo_share=1.0, as_pairs=1.0)
    batch = sampler(np.random.default_rng(0))
    grey = (batch["high"] == 200 / 255).all(dim=3).all(dim=2).all(dim=1)
    assert 4 < int(grey.sum()) < 20
    ratio = batch["low"].mean((1, 2, 3)) / batch["high"].mean((1, 2, 3))
    assert ratio.min() > 0.1 and ratio.max() < 0.5
    seen = batch["thumbnail"][grey].mean((1, 2, 3))  # a grey wall is as dark anywhere
    assert torch.allclose(seen, batch["low"][grey].mean((1, 2, 3)), rtol=0.05)


def test_lols_pictures_follow_the_law(shared_data):
    """Darkened by what was read off its own dark picture, a light picture becomes that dark picture again; not where
    a window gave the two another light."""
    errors = []
    for pair in load_pairs(shared_data / "lol_v1", "train")[::30]:
        made, true = Camera.of(pair)(to_tensor(pair.high), torch.Generator().manual_seed(0)), to_tensor(pair.low)
        made, true = (F.avg_pool2d(p, 8) for p in (made, true))
        errors.append(float((made - true).abs().mean() / true.mean()))
    assert np.median(errors) < 0.15, errors
