"""Gains that follow edges: what they change, what they leave alone, and that no edge of the light gets a rim."""

from __future__ import annotations

import pytest
import torch

from jores import pipeline
from jores.conditions import RetinexMaps
from jores.imaging.exposure import luma
from jores.nets.lifting import TONE, brightness_guide, local_lift, relit, roll_off, sliced, tightened
from jores.tiling.tiler import Tiler
from tests.tiny import TINY, TINY_0_1, shaken

BINS = 8


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def window(dark: float = 0.05, light: float = 0.8) -> tuple[torch.Tensor, torch.Tensor]:
    """R and L of a dark wall beside a window, with an L that spreads over the wall as DNet's does."""
    picture = torch.full((1, 3, 96, 160), dark)
    picture[..., 80:] = light
    illumination = picture[:, :1].clone()
    illumination[..., 60:80] = torch.linspace(dark, light, 20)
    return picture / illumination, illumination


def test_a_gain_of_one_changes_nothing_and_no_gain_clips():
    x = torch.linspace(0, 1, 101)
    torch.testing.assert_close(roll_off(x, torch.ones(())), x)
    for gain in (0.2, 0.7, 1.5, 4.0, 60.0):
        y = roll_off(x, torch.tensor(gain))
        assert y[-1] == pytest.approx(1, abs=1e-4) and y.max() <= 1 + 1e-5 and bool((y.diff() >= -1e-5).all())
        assert y[1] == pytest.approx(0.01 * gain, rel=0.05 if gain < 20 else 0.3)


def test_the_grid_is_sliced_between_the_two_nearest_bins():
    gains = noise(1, 3 * BINS, 4, 6) - 0.5
    for place in (0.0, 3 / 7, 3.25 / 7, 1.0):
        low, part = min(int(place * 7), 6), place * 7 - min(int(place * 7), 6)
        groups = gains.view(1, BINS, 3, 4, 6)
        expected = torch.lerp(groups[:, low], groups[:, low + 1], part)
        found = sliced(gains, torch.full((1, 1, 4, 6), place))
        torch.testing.assert_close(found, expected)


def test_dark_and_bright_places_get_gains_of_their_own():
    r, light = window()
    gains = torch.zeros(1, BINS, 3, 4, 6)
    gains[:, :4] = 1.0  # dark bins
    lift = local_lift(r, light, torch.ones(1, 1, 1, 1), gains.flatten(1, 2))
    picture, lifted = r * light, lift.reflectance * lift.lifted
    wall, pane = lifted[..., :40] / picture[..., :40], lifted[..., 120:] / picture[..., 120:]
    assert wall.min() > 2.2 and (pane - 1).abs().max() < 0.02


@pytest.mark.parametrize("strength", [0.5, 1.5])
def test_no_rim_and_no_haze_where_light_meets_dark(strength):
    r, light = window()
    gains = torch.zeros(1, BINS, 3, 4, 6)
    gains[:, :4] = strength
    profile = local_lift(r, light, torch.full((1, 1, 1, 1), 1.2), gains.flatten(1, 2)).bright[0, 0, 48]
    wall, pane = profile[:78], profile[82:]
    step = float(pane.median() - wall.median())
    assert float(wall.max() - wall.min()) < 0.03 * step and float(pane.max() - pane.min()) < 0.03 * step


def test_tightened_maps_are_the_same_picture_and_in_range():
    r, light = window()
    maps = RetinexMaps(r * noise(1, 3, 96, 160), light)
    tight = tightened(maps, brightness_guide(maps.picture))
    torch.testing.assert_close(tight.picture, maps.picture)
    assert tight.reflectance.max() <= 1 + 1e-5 and bool((tight.illumination <= maps.illumination + 1e-6).all())
    assert tight.illumination[0, 0, 48, 76] < 0.5 * maps.illumination[0, 0, 48, 76]  # the light on the wall is gone


def test_the_guide_keeps_edges_and_drops_noise():
    noisy = (0.05 + 0.01 * torch.randn(1, 3, 96, 160, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    plain, edge = brightness_guide(noisy), brightness_guide(torch.mul(*window()))
    assert plain.std() < 0.35 * noisy.amax(1).pow(TONE).std()
    assert edge[0, 0, 48, 77] < edge[0, 0, 48, 10] + 0.05 and edge[0, 0, 48, 83] > edge[0, 0, 48, 150] - 0.05


def test_light_is_dimmed_by_a_number_and_brightened_up_to_white():
    light = torch.linspace(0, 1, 21).view(1, 1, 1, -1).expand(3, -1, -1, -1)
    dimmed, same, brighter = relit(light, torch.tensor([0.5, 1.0, 1.4]).view(3, 1, 1, 1))
    assert torch.equal(dimmed, light[0] * 0.5) and torch.equal(same, light[0])
    assert brighter[0, 0, 5] == pytest.approx(0.25 * 1.4, rel=0.01) and brighter.max() == brighter[0, 0, -1] == 1
    assert (brighter.diff() > 0).all() and (brighter >= light[0]).all()


def wall_around_a_window() -> torch.Tensor:
    """(1, 3, 128, 160): dark, with grain; white in the middle."""
    picture = 0.04 + 0.01 * noise(1, 3, 128, 160)
    picture[..., 40:88, 60:100] = 1
    return picture


@pytest.mark.parametrize("denoise", (1.0, 0.6, 0.3, 0.0))
def test_no_rim_beside_a_window_however_much_is_cleaned(nets, denoise):
    """R' is mixed with the R that goes with L', not with DNet's, whose L is much brighter there."""
    maps = pipeline.decompose(nets, wall_around_a_window())
    seen = luma(pipeline.adjust(nets, maps, denoise=denoise).picture)[0, 0]
    beside = torch.cat([seen[30:38, 50:110], seen[90:98, 50:110]])
    assert beside.mean().item() == pytest.approx(seen[:20].mean().item(), rel=0.1)


@pytest.mark.parametrize("config", (TINY, TINY_0_1), ids=("now", "0.1"))
def test_a_share_of_the_cleaning_lies_between_all_and_none(config):
    """Also in tiles; and the whole of it is what it is without the setting."""
    nets = shaken(config)
    maps = pipeline.decompose(nets, wall_around_a_window())
    full, half, none = (pipeline.adjust(nets, maps, denoise=share) for share in (1, 0.5, 0))
    assert torch.equal(full.reflectance, pipeline.adjust(nets, maps).reflectance)
    ends = torch.stack([full.reflectance, none.reflectance])
    inside = (ends.amin(0) > 0) & (ends.amax(0) < 1)  # not clipped
    torch.testing.assert_close(half.reflectance[inside], ends.mean(0)[inside], atol=1e-5, rtol=1e-4)
    assert inside.float().mean() > 0.3 and torch.equal(full.illumination, none.illumination)
    tiled = pipeline.adjust(nets, maps, denoise=0.5, tiler=Tiler(64))
    assert (tiled.picture - half.picture).abs().mean() < 0.02


def test_without_cleaning_the_tint_stays():
    """It belongs to the picture's colour cast, not to its noise."""
    nets = shaken(TINY)
    torch.nn.init.zeros_(nets.anet.head.weight), torch.nn.init.zeros_(nets.anet.head.bias)  # nothing is cleaned
    maps = pipeline.decompose(nets, wall_around_a_window() * torch.tensor([1, 0.6, 0.3]).view(3, 1, 1))
    full, none = (pipeline.adjust(nets, maps, denoise=share) for share in (1, 0))
    assert torch.equal(full.reflectance, none.reflectance)
