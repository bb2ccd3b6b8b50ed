"""Photographs darkened on the fly: what the nets are shown of a picture agrees with the picture."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from jores.imaging.srgb import decode_srgb
from jores.nets.adjustment import THUMBNAIL
from jores.training.convert import to_pixels, to_tensor
from jores.training.darkening import Darkening, Lamp
from jores.training.data import Crop, CropSampler, coarse_thumbnail, darkened_thumbnail, fine_thumbnail
from jores.training.pairs import Pair

GREY = (1.0, 1.0, 1.0)
LAMP = Lamp(0.4, -0.5, 0.5, 20.0)


def test_darkening_is_dark_noisy_and_leaves_some_pictures_alone():
    picture = torch.full((3, 64, 64), 0.7)
    drawn = [Darkening.draw(np.random.default_rng(i)) for i in range(200)]
    alone = [d for d in drawn if d.gain == 1.0]
    assert 20 <= len(alone) <= 60 and torch.equal(alone[0](picture, torch.Generator().manual_seed(0)), picture)
    for d in (d for d in drawn if d.gain < 1 and not d.shade):
        dark = d(picture, torch.Generator().manual_seed(0))
        assert dark.mean() < (0.75 if d.depth else 0.6) and abs(float(dark.mean() - d(picture).mean())) < 0.02
        assert not torch.equal(dark, d(picture))
        assert dark.min() >= 0 and dark.max() <= 1 and not dark.isnan().any()
        assert d.lamp is None or d.lamp.gain * d.gain <= 1 + 1e-6  # a lamp lights no more than the day did
    assert 40 <= sum(d.jpeg > 0 for d in drawn) <= 120 and not any(d.jpeg for d in alone)
    for kind, least, most in (("lamp", 8, 50), ("toe", 100, 160), ("depth", 40, 100), ("shade", 12, 40)):
        assert least <= sum(bool(getattr(d, kind)) for d in drawn if d.gain < 1) <= most, kind
    assert {d.patch for d in drawn} == {1, 3, 5} and 20 <= sum(d.patch > 1 for d in drawn if d.gain < 1) <= 80
    assert 40 <= sum(d.chroma < 1 for d in drawn) <= 110


def test_noise_in_patches_is_as_strong_and_broader():
    picture = torch.full((3, 200, 200), 0.5)
    fine, patchy = (
        Darkening(0.1, 0.002, 0.0, GREY, patch=patch)._noise(picture, torch.Generator().manual_seed(0))
        for patch in (1, 3)
    )
    assert float(patchy[..., 2:-2, 2:-2].std()) == pytest.approx(float(fine.std()), rel=0.05)
    neighbours = (patchy[..., 1:] * patchy[..., :-1]).mean() / patchy.var()
    assert float(neighbours) == pytest.approx(2 / 3, abs=0.05)  # two of three columns are shared


@pytest.mark.parametrize("chroma", [0.0, 0.5])
def test_the_grain_of_cameras_is_as_strong_and_grey(chroma):
    picture = torch.full((3, 200, 200), 0.5)
    noise = Darkening(0.1, 0.002, 0.0, GREY, chroma=chroma)._noise(picture, torch.Generator().manual_seed(0))
    assert float(noise.std()) == pytest.approx(0.002, rel=0.03)
    assert float(torch.corrcoef(noise.flatten(1))[0, 1]) == pytest.approx(1 - chroma**2, abs=0.02)


def test_the_toe_crushes_shadows():
    shadows = torch.full((3, 8, 8), 0.3)
    power, toe = (float(Darkening(1 / 100, 0, 0, GREY, toe=toe)(shadows).mean()) for toe in (False, True))
    assert toe < 0.5 * power
    everything = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0)).square()
    for curve in (False, True):  # encoding is the inverse of decoding
        assert (Darkening(0.9999, 0, 0, GREY, toe=curve)(everything) - everything).abs().max() < 1e-3


def test_against_the_light_shadows_are_deeper_and_keep_their_texture():
    texture = 0.05 * torch.rand(3, 128, 128, generator=torch.Generator().manual_seed(0))
    picture = texture + torch.where(torch.arange(128) < 64, 0.2, 0.9)  # a wall, and the window beside it
    plain, deep = (decode_srgb(Darkening(0.999, 0, 0, GREY, depth=depth)(picture)) for depth in (0.0, 1.0))
    lost = deep / plain
    assert lost[..., :48].max() < 0.06 and lost[..., 80:].min() > 0.75
    assert lost[0, :, :48].std() < 0.1 * lost[0, :, :48].mean()  # light, not texture: it would vary by a third
    assert lost[0, 20:100, 63].mean() < 0.1 and lost[0, 20:100, 64].mean() > 0.7  # no halo at the window's frame


def test_a_lamp_stands_where_it_stands_whatever_is_cut_out():
    high, darken = np.full((120, 160, 3), 180, np.uint8), Darkening(1 / 50, 0, 0, GREY, lamp=LAMP)
    whole, crop = darken(to_tensor(high)), Crop(16, 48, 64, False, False, False)
    row, column = divmod(int(whole[0].argmax()), 160)
    assert abs(row - 30) <= 1 and abs(column - 112) <= 1  # (0.4, -0.5) of -1..1
    part = darken(to_tensor(high[crop.slices]), place=crop.place((slice(0, 120), slice(0, 160))))
    assert (part - whole[:, crop.slices[0], crop.slices[1]]).abs().max() < 1e-5


def test_thumbnails_of_dark_pictures_are_not_rounded_to_levels():
    rng = np.random.default_rng(0)
    dark = rng.integers(0, 6, (400, 600, 3), dtype=np.uint8)
    seen = coarse_thumbnail(dark)
    assert seen.shape == (3, *THUMBNAIL)
    assert torch.equal(seen, F.adaptive_avg_pool2d(to_tensor(dark)[None], THUMBNAIL)[0])  # as ANet makes its own
    assert (seen * 255 - (seen * 255).round()).abs().max() > 0.3


def test_the_thumbnail_of_a_darkened_photograph_is_that_of_the_dark_picture():
    """Also where noise that ends at black makes the mean brighter than the light was."""
    coarse = torch.rand(1, 3, 6, 8, generator=torch.Generator().manual_seed(0))
    high = to_pixels(F.interpolate(coarse, size=(480, 640), mode="bicubic")[0].clamp(0, 1))
    for darken in (
        Darkening(1 / 100, 0.004, 0.004, GREY),
        Darkening(1 / 30, 0.001, 0.002, (1.2, 1.0, 0.8), jpeg=60, lamp=LAMP),
        Darkening(1 / 2, 0.001, 0.002, GREY, depth=1.0),
    ):
        true = coarse_thumbnail(to_pixels(darken(to_tensor(high), torch.Generator().manual_seed(1))))
        shown = darkened_thumbnail(fine_thumbnail(high), darken, np.random.default_rng(2))
        assert (shown - true).mean().abs() < 0.03 * true.mean()
        assert (shown - true).abs().mean() < 0.25 * true.mean()  # fewer pixels to a cell, hence more grain
        noiseless = F.adaptive_avg_pool2d(darken(to_tensor(high))[None], THUMBNAIL)[0]
        if darken.read_noise > 0.002:
            assert noiseless.mean() < 0.93 * true.mean()


@pytest.mark.parametrize("darken", [Darkening(1 / 20, 0, 0, GREY, lamp=LAMP), Darkening(1 / 2, 0, 0, GREY, depth=1)])
def test_the_sampler_lights_crop_and_thumbnail_alike(monkeypatch, darken):
    monkeypatch.setattr(Darkening, "draw", lambda rng: darken)
    slope = np.linspace(80, 220, 96 * 128).astype(np.uint8) if darken.depth else np.full(96 * 128, 200, np.uint8)
    photo = Pair("grey", slope.reshape(96, 128)[..., None].repeat(3, 2))
    sampler = CropSampler([Pair("pair", photo.high, photo.high)], [photo], crop=64, batch=1, photo_share=1.0)
    for seed in range(12):
        batch = sampler(np.random.default_rng(seed))
        where = F.affine_grid(batch["place"], [1, 3, 64, 64], align_corners=False)
        seen = F.grid_sample(batch["thumbnail"], where, padding_mode="border", align_corners=False)
        assert (seen - batch["low"]).abs().max() < 0.02, seed


def test_a_darkened_photograph_may_come_from_a_jpeg():
    picture, kept = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0)), Darkening(0.2, 0, 0, (1, 1, 1))
    compressed = Darkening(0.2, 0, 0, (1, 1, 1), jpeg=30)(picture, torch.Generator())
    exact = kept(picture, torch.Generator())
    assert 0.01 < (compressed - exact).abs().mean() < 0.2 and torch.equal(kept(picture, torch.Generator()), exact)
    assert torch.equal(compressed * 255, (compressed * 255).round())


def test_a_picture_in_shade_keeps_its_bright_parts_and_nearly_its_mean():
    shaded = [Darkening.draw(np.random.default_rng(i)) for i in range(200)]
    shaded = [d for d in shaded if d.shade]
    picture = torch.rand(3, 96, 128, generator=torch.Generator().manual_seed(0)) * 0.1
    picture = picture + torch.where(torch.arange(128) < 48, 0.3, 0.7)  # a face, and more than half of sky
    for d in shaded:
        fitted = d.fitted(picture)
        dark = fitted(picture)
        lost = decode_srgb(dark) / decode_srgb(picture)
        assert lost[..., 56:].median() > 0.8 and lost[..., :40].median() < 0.75 * lost[..., 56:].median(), d
        assert dark.mean() > 0.7 * picture.mean()


def test_darkening_in_part_takes_more_light_from_the_shadows():
    picture, rng = torch.full((3, 40, 60), 0.2), np.random.default_rng(2)
    picture[..., 30:] = 0.9
    for _ in range(20):
        dark = Darkening.draw_in_part(rng).fitted(picture)(picture)
        assert (dark[..., 10] / picture[..., 10]).mean() < 0.9 * (dark[..., 50] / picture[..., 50]).mean()
