"""The dials of the result: what each does, that 0 does nothing at all, and that well-lit pictures are left alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import skimage.data
import torch

from jores import picture_statistics, pipeline
from jores.checkpoint import SHIPPED_SEGMENTER, SHIPPED_WEIGHTS, build, load_bundle
from jores.conditions import SemanticPrior
from jores.files.pictures import read_image
from jores.imaging.colours import ColourCast, scale_colours
from jores.imaging.compositing import feather_mask, shadow_weight
from jores.imaging.exposure import luma, mean_luma
from jores.imaging.resize import area_average, resize_map
from jores.metrics import psnr
from jores.semantics import class_mask, find_classes, load_segmenter
from jores.training.convert import to_tensor
from tests.flat import flat
from tests.tiny import TINY, shaken

SIZE = (60, 90)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def window() -> torch.Tensor:
    mask = torch.zeros(1, 1, *SIZE)
    mask[..., 10:50, 20:80] = 1
    return mask


def test_the_dials_at_rest_are_the_evaluated_recipe_bit_by_bit():
    x0, original = noise(2, 3, *SIZE) * 2 - 1, noise(2, 4, *SIZE, seed=1)
    for strength, mask in ((1.0, None), (0.3, None), (0.7, noise(2, 1, *SIZE, seed=2).round())):
        weight = torch.full((2, 1, *SIZE), strength) if mask is None else mask * strength
        picture = torch.lerp(original[:, :3], (x0 + 1) / 2, weight)
        expected = torch.cat([torch.where(weight > 0, picture, original[:, :3]), original[:, 3:]], 1)
        dials = {"strength": strength, "mask": mask}
        assert torch.equal(flat(pipeline.finish)(x0, original, **dials), expected)
        rest = {"feather": 0, "shadows": 0.0, "colour_fidelity": 0.0}
        assert torch.equal(flat(pipeline.finish)(x0, original, **dials, **rest), expected)


@pytest.mark.parametrize("pixels", [1, 7, 400])
def test_a_feather_lies_inside_the_mask_and_grows_with_the_depth(pixels):
    mask = window()
    soft = feather_mask(mask, pixels)
    assert torch.equal(soft > 0, mask > 0)  # outside nothing, and inside nothing vanishes
    row = soft[0, 0, 30, 20:80]
    assert torch.equal(row, row.flip(0)) and bool((row[:30].diff() >= 0).all())
    depth = torch.arange(1, 21)  # the window is 40 rows high: from a depth of 20 on they fall again
    assert torch.equal((row[:20] == 1), depth > min(pixels, 19))  # the middle is as deep as it gets
    original, x0 = noise(1, 3, *SIZE) * 3 - 1, torch.zeros(1, 3, *SIZE)
    result = flat(pipeline.finish)(x0, original, mask=mask, feather=pixels, shadows=0.3, colour_fidelity=0.5)
    outside = (mask == 0).expand_as(original)
    assert torch.equal(result[outside], original[outside])
    assert result[~outside].min() >= 0 and result[~outside].max() <= 1


def test_a_thin_stroke_is_enhanced_in_its_middle_beside_a_wide_area_too():
    mask = torch.zeros(1, 1, *SIZE)
    mask[..., 10:15, 5:60] = 1  # a stroke of five pixels
    mask[..., 25:, 20:80] = 0.5
    soft = feather_mask(mask, 40)
    assert torch.equal(soft[0, 0, 12, 10:50], torch.ones(40)) and soft[0, 0, 10, 10:50].max() < 0.5
    assert soft[0, 0, 30, 40] < 0.5 * soft[0, 0, 45, 40]


def test_a_feather_knows_no_edge_at_the_border_of_the_picture():
    whole = torch.full((2, 1, 5, 6), 0.4)
    assert torch.equal(feather_mask(whole, 3), whole)
    half = torch.zeros(1, 1, 8, 40)
    half[..., 20:] = 1
    assert torch.equal(feather_mask(half, 4)[..., 25:], half[..., 25:])


def test_shadows_leaves_what_is_lit_and_enhances_what_is_dark_up_to_the_edge():
    original = torch.full((1, 3, *SIZE), 0.05)
    original[..., 45:] = 0.8
    original = (original + 0.02 * noise(*original.shape)).clamp(0, 1)
    weight = shadow_weight(original, 1.0)
    assert weight[..., :44].min() > 0.95 and weight[..., 46:].max() < 0.05
    torch.testing.assert_close(shadow_weight(original, 0.5), (1 + weight) / 2)
    result = flat(pipeline.finish)(torch.full_like(original, -0.4), original, shadows=1.0)
    assert result[..., :44].min() > 0.28 and torch.equal(result[..., 55:], original[..., 55:])
    blue = torch.zeros(1, 3, 8, 8)
    blue[:, 2] = 0.9  # lit, though its luma is 0.1
    assert shadow_weight(blue, 1.0).max() == 0


@pytest.mark.parametrize(("power", "lit"), [(0.2, 0.91), (0.35, 0.67), (0.7, 0.5)])
def test_shadows_turn_no_tones_upside_down(power, lit):
    """Steps of light from dark to bright, enhanced by a power: what was brighter is at least as bright afterwards."""
    tones = torch.linspace(0.04, 0.96, 24).repeat_interleave(32)
    original = tones.expand(1, 3, 96, -1)
    result = flat(pipeline.finish)(original.pow(power) * 2 - 1, original, shadows=1.0)
    steps = result[0, 0, 48].view(24, 32).mean(1)
    assert steps.diff().min() > -0.02
    assert steps[:2].min() > 0.95 * 0.04**power  # the dark is enhanced
    before = tones.view(24, 32)[:, 0]
    kept = before > lit + 0.04
    assert kept.any() and (steps - before)[kept].abs().max() < 0.02  # the light stays


@pytest.mark.parametrize("power", [0.2, 0.35])
def test_with_shadows_no_tone_depends_on_a_threshold_of_the_dark(power):
    """A wall beside a dark area that gets lighter in small steps: it is never darker than that, and never jumps."""
    walls = []
    for dark in torch.linspace(0.02, 0.3, 29):
        original = torch.full((1, 3, *SIZE), float(dark))
        original[..., 45:] = 0.42
        result = flat(pipeline.finish)(original.pow(power) * 2 - 1, original, shadows=1.0)
        walls.append(float(result[0, 0, 30, 70]))
        assert walls[-1] > float(result[0, 0, 30, 10]) - 0.06, dark
    assert np.abs(np.diff(walls)).max() < 0.06


def colour_scale(result, original, amount):
    """The gains of a colour cast for the complete picture."""
    cast = ColourCast.of(result, original, amount, torch.Tensor.float)
    return cast.gains(original, lambda grid: resize_map(grid, result.shape[-2:]))


def test_colour_fidelity_takes_over_the_cast_and_nothing_else():
    detail = 0.3 + 0.3 * noise(1, 3, *SIZE)
    cast = torch.tensor([1.3, 1.0, 0.6]).view(1, 3, 1, 1)
    original = detail * cast * 0.1
    kept = scale_colours(detail, colour_scale(detail, original, 1.0))
    torch.testing.assert_close(luma(kept), luma(detail), atol=2e-3, rtol=0)
    means = kept.mean((2, 3))
    wanted = (original / luma(original).mean()).mean((2, 3)) * luma(detail).mean()
    torch.testing.assert_close(means, wanted, atol=0.02, rtol=0)
    half = scale_colours(detail, colour_scale(detail, original, 0.5)).mean((2, 3))
    assert bool(((half - detail.mean((2, 3))).abs() < (means - detail.mean((2, 3))).abs()).all())
    # A plain gain has changed no colour, and there is none to be had from black.
    torch.testing.assert_close(colour_scale(detail, detail * 0.02, 1.0), torch.ones_like(detail), atol=0.02, rtol=0)
    assert bool(torch.isfinite(scale_colours(detail, colour_scale(detail, detail * 0, 1.0))).all())


def test_the_colour_of_a_lamp_does_not_spread_to_the_wall_beside_it():
    original, made = torch.full((1, 3, 120, 180), 0.11), torch.full((1, 3, 120, 180), 0.55)
    for picture, lamp in ((original, (0.95, 0.65, 0.2)), (made, (1.0, 0.72, 0.3))):
        picture[..., 32:70, 62:93] = torch.tensor(lamp).view(3, 1, 1)
    kept = scale_colours(made, colour_scale(made, original, 1.0))
    wall = torch.ones(1, 1, 120, 180, dtype=torch.bool)
    wall[..., 30:72, 60:95] = False
    assert (kept - made).abs().amax(1, keepdim=True)[wall].max() < 0.03
    assert (kept[0, 0] / kept[0, 2])[50, 78] > 0.9 * 0.95 / 0.2  # the lamp itself is as it was


@pytest.mark.parametrize("dials", [{}, {"colour_fidelity": 1.0}, {"strength": 0.4, "shadows": 0.5}])
def test_a_black_and_white_picture_stays_so(dials):
    x0, grey = noise(2, 3, *SIZE) * 2 - 1, noise(2, 1, *SIZE).expand(-1, 3, -1, -1) * 0.2
    mixed = torch.cat([grey[:1], grey[1:] * torch.tensor([1, 1, 1.01]).view(3, 1, 1)])
    made = flat(pipeline.finish)(x0, mixed, **dials)
    assert torch.equal(made[0, 0], made[0, 1]) and torch.equal(made[0, 0], made[0, 2])
    assert (made[1, 0] - made[1, 2]).abs().max() > 0.1
    clear = torch.cat([grey, torch.zeros_like(grey[:, :1])], 1)
    clear[..., 4:, 4:] = torch.cat([grey, torch.ones_like(grey[:, :1])], 1)[..., 4:, 4:]
    clear[:, 0, :4, :4] += 0.1  # colours that are not seen
    made = flat(pipeline.finish)(x0, clear, **dials)[..., 4:, 4:]
    assert torch.equal(made[:, 0], made[:, 1]) and torch.equal(made[:, 0], made[:, 2])


def test_masks_of_classes_by_name():
    labels = ("wall", "sky", "tree", "screen", "screen")
    assert find_classes(" Sky,tree,", labels) == [1, 2] and find_classes("screen", labels) == [3, 4]
    assert find_classes("", labels) == []
    with pytest.raises(ValueError, match="no class 'trees'.*tree"):
        find_classes("sky, trees", labels)
    prior = SemanticPrior(noise(2, 5, 4, 6).softmax(1), labels, (16, 24))
    soft = class_mask(prior, [1, 2])
    torch.testing.assert_close(soft, class_mask(prior, [1]) + class_mask(prior, [2]))
    torch.testing.assert_close(class_mask(prior, [1, 2], inverted=True), 1 - soft)
    hard = class_mask(prior, [1, 2], threshold=0.4)
    assert torch.equal(hard, (soft >= 0.4).float()) and hard.shape == (2, 1, 16, 24)


def test_the_rim_of_a_mask_follows_the_edge_that_the_segmenter_saw():
    """A roof before the sky whose edge runs through the cells of the map."""
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(96.0), indexing="ij")
    sky = (y < 0.3 * x + 21.3).float()[None, None]
    seen = (sky * torch.tensor([0.5, 0.6, 0.8]).view(3, 1, 1) + 0.2 * (1 - sky) + noise(1, 3, 64, 96) * 0.02).clamp(
        0, 1
    )
    map_ = area_average(sky, (16, 24))
    soft = SemanticPrior(torch.cat([1 - map_, map_], 1), ("wall", "sky"), (128, 192))
    wanted = sky.repeat_interleave(2, 2).repeat_interleave(2, 3)
    errors = [(class_mask(p, [1]) - wanted).abs().mean() for p in (soft, replace(soft, seen=seen))]
    assert errors[1] < 0.5 * errors[0]
    both = class_mask(replace(soft, seen=seen), [0, 1])
    torch.testing.assert_close(both, torch.ones_like(both))
    small = replace(soft, seen=seen[..., ::8, ::8])  # the map of a small picture is finer than the picture
    assert torch.equal(class_mask(small, [1]), class_mask(soft, [1]))


def test_bad_dials_are_named_before_any_work_is_done():
    images, nets = noise(2, 3, 8, 9), build(TINY)
    nets.decomposition = None  # the first stage would fail otherwise
    for options, message in (
        ({"strength": 1.5}, "strength must be between 0 and 1, not 1.5"),
        ({"shadows": float("nan")}, "shadows must be"),
        ({"colour_fidelity": -0.1}, "colour_fidelity must be"),
        ({"feather": -1}, "feather must be 0 pixels or more"),
        ({"mask": torch.ones(1, 1, 9, 8)}, r"mask is \(1, 1, 9, 8\), must be \(2 or 1, 1, 8, 9\)"),
        ({"mask": torch.full((1, 1, 8, 9), float("nan"))}, "mask holds values outside"),
    ):
        with pytest.raises(ValueError, match=message):
            flat(pipeline.enhance)(images, nets, **options)


def test_an_exposure_that_is_given_wins_and_without_one_each_picture_has_its_own():
    nets, pictures = shaken(TINY), noise(3, 3, 48, 64) * torch.tensor([0.1, 0.3, 0.9]).view(3, 1, 1, 1)
    assert picture_statistics.wanted_exposure(nets, pictures, 0.2).tolist() == pytest.approx([0.2] * 3)
    proposed = picture_statistics.wanted_exposure(nets, pictures, None)
    assert len(proposed.unique()) == 3 and bool(((proposed > 0) & (proposed <= 1)).all())
    alone = [picture_statistics.wanted_exposure(nets, picture[None], None) for picture in pictures]
    torch.testing.assert_close(torch.cat(alone), proposed)
    enlarged = pictures.repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(picture_statistics.wanted_exposure(nets, enlarged, None), proposed)


def test_the_shipped_weights_hand_a_well_lit_picture_back(shared_data):
    nets, segmenter = load_bundle(SHIPPED_WEIGHTS), load_segmenter(SHIPPED_SEGMENTER)
    for name in ("000000000139.jpg", "000000001490.jpg"):
        picture = read_image(shared_data / "photos" / "coco_val128" / name).pixels[None, :, ::2, ::2]
        assert psnr(pipeline.enhance(picture, nets, segmenter), picture).item() > 30


@pytest.mark.parametrize("lit", [slice(None, 150), slice(-150, None)])  # where there is light, as from a window
def test_the_shipped_weights_brighten_a_picture_that_is_lit_in_one_place_alone(nets, lit):
    picture = to_tensor(skimage.data.astronaut())[None]
    picture = torch.cat([picture[..., lit], picture * 0.15], -1)
    assert mean_luma(picture) < 0.22
    assert picture_statistics.wanted_exposure(nets, picture, None) > 1.5 * mean_luma(picture)


@pytest.mark.slow
def test_no_mean_luma_is_a_threshold():
    """One picture, scaled from dark to light in fifty steps: the means of the results change without a jump."""
    nets = load_bundle(SHIPPED_WEIGHTS)
    picture = to_tensor(skimage.data.astronaut())[None, :, ::4, ::4].contiguous()
    scale = torch.linspace(0.1, 0.6, 50) / mean_luma(picture)
    pictures = torch.cat([(picture * s).clamp(0, 1) for s in scale])
    means = mean_luma(pipeline.adjust(nets, pipeline.decompose(nets, pictures)).picture)
    assert float(means.diff().abs().max()) < 0.05, means
    assert means[-1] >= means[0] - 0.05
