"""The nets: sizes, dtypes, the contracts between the stages."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from jores import pipeline
from jores.checkpoint import build
from jores.conditions import Given, GlobalStatistics
from jores.config import PRESETS
from jores.diffusion.sampling import start_noise
from jores.imaging.exposure import DIM, mean_colour, mean_luma, shadow_share
from jores.nets.adjustment import colour_cast
from jores.nets.decomposition import FLOOR, neighbourhood_max
from jores.nets.exposure_head import ExposureHead, LightHead, LightMixture
from jores.options import ClipOptions
from jores.video import enhance_frames
from tests.flat import flat
from tests.tiny import F_WIDTHS, TINY, TINY_0_1, shaken

LEVELS = torch.arange(192.0).view(1, 3, 8, 8) + 64
OPTIONS = {"refine": 1, "structure": 0, "unet_structure": 0, "prior_dropout": 0, "start_share": 0.2}


def whole_of(mean, gains=None, exposure=0.4, bins=4):
    """What is told of a whole picture whose shadows are as they should be."""
    gains = torch.zeros(1, 3 * bins, 4, 6) if gains is None else gains
    return GlobalStatistics(torch.tensor([exposure]), mean, torch.ones(1, 2), gains)


@pytest.mark.parametrize("size", [(1, 1), (1, 37), (16, 16), (45, 33)])
def test_any_size_comes_back_exactly(size):
    images = torch.rand(2, 3, *size) * 0.1
    out = flat(pipeline.enhance)(images, shaken(TINY), steps=2)
    assert out.shape == images.shape and bool(torch.isfinite(out).all())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_near_float32(dtype):
    images = torch.rand(1, 3, 24, 40) * 0.1
    exact = flat(pipeline.enhance)(images, shaken(TINY), steps=2)
    rough = flat(pipeline.enhance)(images, shaken(TINY, dtype), steps=2)
    assert (exact - rough).abs().mean() < 0.02


def test_without_gradients_maps_are_written_over_but_no_input_is_and_nothing_changes():
    nets = shaken(TINY)
    images, x_t, classes = torch.rand(2, 3, 32, 48) * 0.1, torch.randn(2, 3, 32, 48), torch.rand(2, 150, 4, 6) / 150
    given = [x.clone() for x in (images, x_t, classes)]

    def run():
        maps = nets.dnet(images)
        exposure = nets.anet.propose_exposure(images)
        out = nets.anet(maps, nets.anet.statistics(images, exposure, mean_colour(images)))
        level = torch.full((2,), 0.5)
        made = maps.reflectance, maps.illumination, out.reflectance, out.illumination, *out.features
        kept = [x.clone() for x in made]
        v = nets.unet(x_t, level, Given(images, out, classes))
        refined = nets.rnet(x_t.clamp(-1, 1), level, out)
        assert all(torch.equal(before, after) for before, after in zip(kept, made, strict=True))
        return *kept, v, refined

    with torch.no_grad():
        fast = run()
    for with_gradients, without in zip(run(), fast, strict=True):
        torch.testing.assert_close(with_gradients, without, rtol=1e-5, atol=1e-5)
    assert all(torch.equal(a, b) for a, b in zip(given, (images, x_t, classes), strict=True))


def test_reflectance_times_illumination_is_the_picture_and_both_are_in_range():
    images = torch.rand(1, 3, 40, 24) ** 3
    images[..., :8] = 0
    maps = shaken(TINY).decomposition(images)
    assert (maps.picture - images).abs().max() < 1e-6
    assert maps.reflectance.min() >= 0 and maps.reflectance.max() <= 1 + 1e-6
    assert maps.illumination.min() >= FLOOR and maps.illumination.max() <= 1 + 1e-6


def test_the_upper_envelope_is_smooth_and_never_below_the_picture():
    x = torch.rand(1, 1, 64, 50)
    envelope = neighbourhood_max(x)
    assert (envelope - x).min() > -1e-6
    assert envelope.diff(dim=-1).abs().max() < 0.1 * x.diff(dim=-1).abs().max()


def test_the_colour_cast_of_the_whole_picture_reaches_every_window():
    """The tint follows from the mean colour alone, and a grey picture has none."""
    nets, images = build(TINY), torch.rand(1, 3, 32, 32) * 0.2
    net, maps = nets.adjustment, nets.decomposition(images)
    torch.nn.init.normal_(net.tint.weight, std=0.2, generator=torch.Generator().manual_seed(0))
    grey, reddish = torch.full((1, 3), 0.1), torch.tensor([[0.2, 0.1, 0.05]])
    plain, tinted = (net(maps, whole_of(mean), clamp=False).reflectance for mean in (grey, reddish))
    ratios = (tinted / plain)[0].flatten(1)
    expected = net.tint(colour_cast(reddish)).exp()[0]
    torch.testing.assert_close(ratios, expected[:, None].expand_as(ratios), rtol=1e-4, atol=1e-4)
    assert torch.equal(net.tint(colour_cast(grey)), torch.zeros(1, 3))


def test_the_pipeline_obeys_seed_exposure_strength_and_mask():
    nets, images = shaken(TINY), torch.rand(1, 4, 32, 32) * 0.2
    out = flat(pipeline.enhance)(images, nets, seed=1)
    assert torch.equal(out, flat(pipeline.enhance)(images, nets, seed=1))
    assert not torch.equal(out, flat(pipeline.enhance)(images, nets, seed=2))
    assert not torch.equal(out, flat(pipeline.enhance)(images, nets, seed=1, exposure=0.8))
    assert torch.equal(out[:, 3], images[:, 3])
    assert torch.equal(flat(pipeline.enhance)(images, nets, strength=0.0), images)
    mask = torch.zeros(1, 1, 32, 32)
    mask[..., :16] = 1
    half = flat(pipeline.enhance)(images, nets, seed=1, mask=mask)
    assert torch.equal(half[..., 16:], images[..., 16:])
    assert torch.allclose(half[..., :16], out[..., :16], atol=1e-6)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(0, 3, 8, 8), "hold no pixels"),
        (torch.zeros(1, 2, 8, 8), r"must be \(B, 3 or 4, H, W\)"),
        (torch.full((1, 3, 8, 8), float("nan")), "NaN"),
        (LEVELS, "levels up to 255, not 0 to 1: divide by 255"),
        (LEVELS + 0.25, "levels up to 255.25"),
        (LEVELS.half(), "levels up to 255"),
        ((LEVELS * 0.1).round(), "levels up to 26"),  # dark ones
        (torch.cat((LEVELS / 255, LEVELS.clamp(0, 3))), "levels up to 3"),  # one among good pictures
        (torch.cat((LEVELS, torch.ones(1, 1, 8, 8)), 1), "levels up to 255"),
    ],
)
def test_pictures_that_cannot_be_worked_on_are_refused(images, message):
    """Levels of 0 to 255 became white pictures, without a word."""
    nets = shaken(TINY)
    with pytest.raises(ValueError, match=message):
        pipeline.enhance(images, nets)
    for clip in (ClipOptions(smooth=False), ClipOptions()):
        if len(images):
            with pytest.raises(ValueError, match=message):
                list(enhance_frames(list(images[-1:].split(1)), nets, clip=clip))


def test_a_few_values_above_white_are_no_levels():
    light = torch.full((1, 3, 8, 8), 0.1)
    light[..., :2, :2], light[..., 4, 4] = 7.5, 1.2
    black = torch.zeros_like(light)  # all its values are integers
    made = pipeline.enhance(torch.cat((light, black, light / 10)), shaken(TINY))
    assert made.shape == (3, 3, 8, 8) and torch.isfinite(made).all()


@pytest.mark.parametrize("tile", (0, 64))
@pytest.mark.parametrize("wrong", (
    *({"exposure": torch.tensor(e)} for e in ([0.4], [0.4] * 3, 0.4, [[0.4, 0.4]], [0.4, 0.0], [0.4, -0.1],
                                              [0.4, 1.1], [0.4, torch.nan])),
    {"steps": 10**6}, {"mask": torch.ones(1, 1, 3, 3)}, {"mask": torch.full((1, 1, 70, 80), 2.0)},
))  # fmt: skip
def test_what_cannot_be_used_is_refused_before_any_net_works(wrong, tile):
    nets, worked = shaken(TINY), []
    hooks = [net.register_forward_hook(lambda *_: worked.append(1)) for part in nets.parts().values()
             for net in part.modules()]  # fmt: skip
    with pytest.raises(ValueError, match=f"{[*wrong][0]}|schedule|steps"):
        flat(pipeline.enhance)(torch.rand(2, 3, 70, 80) * 0.1, nets, tile=tile, **wrong)
    assert hooks and not worked


def test_the_paper_preset_builds_samples_and_takes_a_training_step_at_a_tiny_size():
    from jores.training.diffuse import DiffusionObjective

    paper = PRESETS["paper"]
    small = dataclasses.replace(
        paper,
        decomposition=TINY.decomposition,
        adjustment=TINY.adjustment,
        denoiser=dataclasses.replace(
            paper.denoiser, widths=(8, 8, 16, 16, 16), blocks=(1,) * 5, embedding=16, feature_widths=F_WIDTHS
        ),
        refinement=dataclasses.replace(paper.refinement, widths=(8, 8), embedding=16, feature_widths=F_WIDTHS),
    )
    nets = shaken(small)
    assert pipeline.enhance(torch.rand(1, 3, 18, 21) * 0.1, nets).shape == (1, 3, 18, 21)
    objective = DiffusionObjective(nets, {**OPTIONS, "structure": 0.3, "unet_structure": 0.3})
    terms = objective(batch())
    terms["loss"].backward()
    assert all(p.grad is not None for n, p in nets.denoiser.named_parameters() if "semantic" not in n)


def test_gains_change_colour_in_the_reflectance_and_light_in_the_illumination():
    net, maps = shaken(TINY_0_1).adjustment, shaken(TINY_0_1).decomposition(torch.rand(1, 3, 24, 40) * 0.1)

    def adjusted(*factors):
        gains = torch.tensor(factors).log().view(1, 3, 1, 1).expand(1, 3, 4, 6)
        return net(maps, whole_of(torch.full((1, 3), 0.05), gains), clamp=False)

    without, brighter, warmer = adjusted(1.0, 1, 1), adjusted(2.0, 2, 2), adjusted(2.0, 1, 0.5)
    assert torch.allclose(brighter.illumination, 2 * without.illumination, atol=1e-6)
    assert torch.allclose(brighter.reflectance, without.reflectance, atol=1e-6)
    assert torch.allclose(warmer.illumination, without.illumination, atol=1e-6)
    ratio = torch.tensor([2, 1, 0.5]).view(1, 3, 1, 1)
    assert torch.allclose(warmer.reflectance, without.reflectance * ratio, atol=1e-5)


@pytest.mark.parametrize(("config", "channels"), [(TINY, 12), (TINY_0_1, 3)])
def test_the_gains_look_at_the_whole_picture_and_at_the_exposure(config, channels):
    net, images = shaken(config).adjustment, torch.rand(2, 3, 60, 90) * 0.1
    mean = mean_colour(images)
    gains = net.statistics(images, torch.tensor([0.4, 0.4]), mean).gains
    assert gains.shape == (2, channels, 24, 32) and gains.dtype == torch.float32
    half_as_bright = net.statistics(images, torch.tensor([0.2, 0.4]), mean).gains
    assert not torch.equal(gains[0], half_as_bright[0]) and torch.allclose(gains[1], half_as_bright[1], atol=1e-6)


def test_the_nets_are_told_how_far_the_shadows_are_to_be_lifted():
    nets, images = shaken(TINY), torch.rand(1, 3, 32, 48) * 0.3
    maps, mean, exposure = nets.decomposition(images), mean_colour(images), torch.tensor([0.4])
    deep, flat_light = (
        nets.adjustment(maps, nets.adjustment.statistics(images, exposure, mean, torch.tensor([[share, 0.5]])))
        for share in (0.3, 0.9)
    )
    assert (deep.illumination - flat_light.illumination).abs().max() > 1e-3


def test_rnet_gets_no_gradient_into_the_unet():
    from jores.training.diffuse import DiffusionObjective

    nets = shaken(TINY)
    terms = DiffusionObjective(nets, OPTIONS)(batch())
    terms["refinement"].backward()
    assert all(p.grad is None for p in nets.denoiser.parameters())
    assert any(p.grad is not None and p.grad.any() for p in nets.refinement.parameters())


def test_training_on_its_own_estimates_takes_what_sampling_starts_with():
    from jores.training.diffuse import DiffusionObjective

    nets, low = shaken(TINY), torch.rand(1, 3, 32, 32) * 0.1
    condition = pipeline.adjust(nets, pipeline.decompose(nets, low), exposure=0.4)
    sampled = flat(pipeline.sample)(nets, condition, low=low, steps=1, seed=3)
    objective = DiffusionObjective(nets, {**OPTIONS, "own": 1.0, "psnr": 0.04})
    own = objective._own_x0(start_noise(low.shape, 3, low), Given(low, condition))
    torch.testing.assert_close(own, sampled, rtol=1e-4, atol=1e-4)
    terms = objective(batch())
    assert 0 <= terms["diffusion"] - terms["x0"] < 0.1  # the loss is on x0; "x0" is that, clamped
    terms["loss"].backward()
    assert all(p.grad is not None for p in nets.denoiser.parameters())


def batch():
    low = torch.rand(2, 3, 32, 32) * 0.1
    return {
        "low": low, "high": torch.rand(2, 3, 32, 32), "exposure": torch.tensor([0.4, 0.5]),
        "input_mean": torch.full((2, 3), 0.05), "shadows": torch.full((2, 2), 0.6),
        "semantics": torch.rand(2, 150, 4, 4) / 150,
        "thumbnail": torch.rand(2, 3, 48, 64) * 0.1, "place": torch.eye(2, 3).expand(2, 2, 3) / 2,
    }  # fmt: skip


def test_an_open_gate_of_release_0_1_hands_back_the_own_brightness_but_in_use_no_less_than_dim():
    head, picture = ExposureHead(4), torch.full((2, 3, 48, 64), 0.2)
    picture[1] = 0.6
    with torch.no_grad():
        head.out.bias[1] = 10  # the gate; the weights are zero
    assert head.train()(picture).tolist() == pytest.approx([0.2, 0.6], rel=1e-3)
    assert head.eval()(picture).tolist() == pytest.approx([DIM, 0.6], rel=1e-3)


def test_pictures_that_release_0_1_took_for_well_lit_keep_their_exposure():
    head = shaken(TINY_0_1).adjustment.exposure_head
    bright, dark = torch.rand(1, 3, 48, 64) * 0.5 + 0.3, torch.rand(1, 3, 48, 64) * 0.3
    proposed = head(torch.cat([bright, dark]))
    torch.testing.assert_close(proposed[0], mean_luma(bright)[0])
    assert not torch.isclose(proposed[1], mean_luma(dark)[0])


def test_a_mixture_proposes_what_the_expert_of_a_picture_does_and_the_mean_where_it_may_be_anyones():
    mixture, pictures = LightMixture(2, 8).eval(), torch.rand(3, 3, 48, 64) * 0.2
    told = torch.full((3,), 0.4)
    for expert, offset in zip(mixture.heads, (-0.3, 0.2), strict=True):
        with torch.no_grad():
            expert.out.bias[0], expert.out_shadows.bias[0] = offset, 2 * offset
    first, second = (torch.stack([e(pictures), e.shadows(pictures, told)[:, 0]]) for e in mixture.heads)
    assert (first < second).all()

    def proposed():
        return torch.stack([mixture(pictures), mixture.shadows(pictures, told)[:, 0]])

    torch.testing.assert_close(proposed(), (first * second).sqrt())
    for bias, expected in (((20, 0), first), ((0, 20), second)):
        with torch.no_grad():
            mixture.sorter.out.bias.copy_(torch.tensor(bias))
        torch.testing.assert_close(proposed(), expected)


def test_an_open_gate_hands_back_brightness_and_shadows_whatever_they_are():
    head, picture = LightHead(4).eval(), torch.rand(2, 3, 48, 64) ** 2
    picture[1] *= 0.1
    own = shadow_share(picture, picture)
    with torch.no_grad():
        head.out.bias[1], head.out_shadows.bias[1] = 10, 10
    torch.testing.assert_close(head(picture), mean_luma(picture), rtol=1e-3, atol=1e-4)
    told = head.shadows(picture, torch.tensor([0.4, 0.5]))
    torch.testing.assert_close(told, torch.stack([own, own], 1), rtol=1e-3, atol=1e-4)
