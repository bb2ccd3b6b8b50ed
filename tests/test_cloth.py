"""Cloth with coloured patterns, laid over photographs for training."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from jores.imaging.exposure import luma
from jores.training.cloth import KINDS, PERIODS, Cloth, Planes
from jores.training.data import CropSampler
from jores.training.pairs import Pair

SIZE = (96, 128)


def cloth(kind: str = "checks", period: float = 8.0) -> Cloth:
    return Cloth(kind, period, 0.0, ((0.8, 0.1, 0.1), (0.95, 0.9, 0.9)), (0.5, 0.5), (0.3, 0.3))


@pytest.mark.parametrize("kind", KINDS)
def test_the_pattern_has_its_period_and_lies_in_its_place_alone(kind):
    picture = torch.full((3, *SIZE), 0.4)
    made = cloth(kind)(picture)
    place = cloth().place(*SIZE)
    assert torch.equal(made[:, place[0] == 0], picture[:, place[0] == 0]) and bool((place == 1).any())
    inside = made[:, 40:56, 48:80]
    assert inside.std() > 0.05 and (inside[1] < inside[0]).all()
    torch.testing.assert_close(inside[..., 8:], inside[..., :-8], atol=0.03, rtol=0)


def test_the_cloth_takes_its_light_from_the_picture():
    picture = torch.full((3, *SIZE), 0.1)
    picture[..., 64:] = 0.5
    made = cloth(period=6)(picture)
    left, right = (luma(made[None, :, 40:56, part]).mean() for part in (slice(44, 52), slice(76, 84)))
    assert 3 < right / left < 7 and 0.5 < left / 0.1 < 1.6


def test_settings_are_drawn_within_their_bounds_and_the_same_for_the_same_seed():
    drawn = [Cloth.draw(np.random.default_rng(seed)) for seed in range(50)]
    assert {one.kind for one in drawn} == set(KINDS)
    assert all(PERIODS[0] <= one.period <= PERIODS[1] for one in drawn)
    assert drawn[7] == Cloth.draw(np.random.default_rng(7))
    for one in drawn:
        made = one(torch.rand(3, *SIZE, generator=torch.Generator().manual_seed(1)))
        assert made.shape == (3, *SIZE) and made.min() >= 0 and made.max() <= 1


def test_samples_get_it_by_their_share_and_without_it_nothing_changes():
    photo = Pair("plain", np.full((96, 96, 3), 120, np.uint8))
    pairs = [Pair("pair", photo.high, photo.high)]
    plain, woven = (CropSampler(pairs, [photo], crop=64, batch=8, photo_share=1.0, cloth=share) for share in (0.0, 1.0))
    first = plain(np.random.default_rng(3))
    again = CropSampler(pairs, [photo], crop=64, batch=8, photo_share=1.0)(np.random.default_rng(3))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert first["high"].std() < 1e-6 and (woven(np.random.default_rng(3))["high"].std((1, 2, 3)) > 0.01).sum() >= 6


def test_planes_are_even_on_both_sides_of_their_edge():
    made = Planes(((0.1, 0.1, 0.1), (0.8, 0.8, 0.7)), 0.0, 0.0)(torch.rand(3, *SIZE))
    for part, tone in ((made[..., :62], (0.1, 0.1, 0.1)), (made[..., 66:], (0.8, 0.8, 0.7))):
        torch.testing.assert_close(part, torch.tensor(tone).view(3, 1, 1).expand_as(part))
    for seed in range(20):
        drawn = Planes.draw(np.random.default_rng(seed))(torch.zeros(3, *SIZE))
        assert drawn.min() >= 0 and drawn.max() <= 1
