"""The nodes in a ComfyUI of this process: what they compute, what they refuse, and what their schemas promise."""

from __future__ import annotations

import pytest
import torch

from tests.blocks import SIZE, STEPS, conditioned, ksample, picture, to_bchw
from tests.flat import flat
from tests.graphs import run


@pytest.mark.parametrize(("semantic", "eta"), [(True, 0.7), (False, 0.0)])
def test_the_stages_as_blocks_give_what_the_library_gives(pack, model, semantic, eta):
    image = picture(batch=2)
    refined, _condition, positive, _negative, latent = conditioned(pack, model, image, semantic)
    sampled = run(pack, "JoReSSample", model=refined, positive=positive, latent=latent, steps=STEPS, seed=7, eta=eta)[0]
    blocks = run(pack, "JoReSFinish", latent=sampled, image=image, strength=1.0)[0]
    segmenter = model.segmenter.model if semantic else None
    expected = flat(pack.pipeline.enhance)(to_bchw(image), model.library, segmenter, steps=STEPS, seed=7, eta=eta)
    assert blocks.shape == image.shape
    torch.testing.assert_close(to_bchw(blocks), expected, atol=model.tolerance, rtol=0)
    assert (expected - to_bchw(image)).abs().mean() > 0.05  # the random net does something


def test_sampling_without_refinement_is_the_librarys(pack, model):
    image = picture()
    refined, condition, positive, _negative, latent = conditioned(pack, model, image, semantic=False)
    inputs = {"positive": positive, "latent": latent, "steps": STEPS, "seed": 3, "eta": 0.0}
    plain = run(pack, "JoReSSample", model=model.model, **inputs)[0]["samples"]
    low = to_bchw(image)
    expected = flat(pack.pipeline.sample)(
        model.library, condition.condition, low=low, steps=STEPS, seed=3, refine=False
    )  # fmt: skip
    torch.testing.assert_close(plain, expected, atol=model.tolerance, rtol=0)
    with_rnet = run(pack, "JoReSSample", model=refined, **inputs)[0]["samples"]
    assert (with_rnet - plain).abs().mean() > 1e-3


def test_the_whole_pipeline_as_one_block(pack, model):
    image = picture(batch=2, channels=4)
    before = image.clone()
    mask = torch.zeros(1, *SIZE)
    mask[:, :, 25:] = 1
    inputs = {
        "image": image,
        "strength": 1.0,
        "steps": STEPS,
        "seed": 1,
        "exposure": 0.4,
        "semantic": True,
        "mask": mask,
        "smooth_frames": False,
    }
    result = run(pack, "JoReSEnhance", model_name=f"{model.name}.safetensors", **inputs)[0]
    expected = flat(pack.pipeline.enhance)(
        to_bchw(image), model.library, model.segmenter.model, steps=STEPS, seed=1, exposure=0.4, mask=mask[:, None]
    )
    torch.testing.assert_close(to_bchw(result), expected, atol=model.tolerance, rtol=0)
    assert torch.equal(image, before)
    assert torch.equal(result[:, :, :25], image[:, :, :25])
    assert torch.equal(result[..., 3], image[..., 3])
    assert not torch.equal(result[0], result[1])


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("size", [(1, 1), (3, 70)])
def test_any_size_and_channel_count(pack, model, channels, size):
    image = picture(channels=channels, size=size)
    result = run(
        pack, "JoReSEnhance", image=image, exposure=0.0, strength=1.0, steps=1, seed=0, semantic=True,
        model_name=f"{model.name}.safetensors",
    )[0]  # fmt: skip
    assert result.shape == (1, *size, max(channels, 3))
    assert torch.isfinite(result).all() and 0 <= result.min() <= result.max() <= 1


def test_stock_sampler_follows_ddim(pack, model):
    """KSampler, euler, "simple" takes the library's time steps. It differs in two ways: eps comes from the x0 that RNet
    returned, and x0 is not clamped; so the comparison runs without RNet, on a picture that stays within [-1, 1]."""
    image = picture(size=(32, 48)) + 0.2
    _refined, condition, positive, negative, latent = conditioned(pack, model, image)
    stock = ksample(pack, model.model, positive, negative, latent)
    prior = pack.pipeline.segment(model.segmenter.model, to_bchw(image), model.library)
    schedule_module = pack.load("jores.diffusion.schedule")
    schedule = schedule_module.NoiseSchedule(model.library.config.schedule)
    x = pack.load("jores.diffusion.sampling").start_noise(latent["samples"].shape, 5, latent["samples"])
    given_to = pack.load("jores.conditions").Given
    taus = schedule.timesteps(4)
    with torch.inference_mode():
        for t, after in zip(taus, [*taus[1:], -1], strict=True):
            alpha_bar, alpha_after = schedule.alpha_bar(t), schedule.alpha_bar(after)
            output = model.library.denoiser(
                x, torch.tensor([alpha_bar**0.5]), given_to(to_bchw(image), condition.condition, prior.probabilities)
            )
            x0, eps = schedule.x0_and_eps(x, output, alpha_bar)
            x = alpha_after**0.5 * x0 + (1 - alpha_after) ** 0.5 * eps
    difference = (stock - x).abs().max() / x.abs().max()
    assert difference < 1e-3, difference


def test_refinement_follows_every_call_of_a_stock_sampler_and_leaves_clones_alone(pack, model):
    image = picture(size=(32, 48))
    refined, _condition, positive, negative, latent = conditioned(pack, model, image)
    before = ksample(pack, model.model, positive, negative, latent)
    rnet, calls = model.nets.parts["refinement"].model, []
    hook = rnet.register_forward_hook(lambda *_: calls.append(1))
    changed = ksample(pack, refined.clone(), positive, negative, latent)
    assert len(calls) == 4
    ksample(pack, refined, positive, negative, latent, sampler_name="heun")
    hook.remove()
    assert len(calls) == 4 + 7
    assert (changed - before).abs().mean() > 1e-3
    assert changed.abs().max() <= 1 + 1e-5
    torch.testing.assert_close(ksample(pack, model.model, positive, negative, latent), before, rtol=0, atol=0)


def test_the_refinement_window_and_areas(pack, model):
    image = picture(size=(32, 64))
    refined, condition, positive, negative, latent = conditioned(pack, model, image)
    never = run(
        pack, "JoReSApplyRefinement", model=model.model, nets=model.nets, condition=condition, start_percent=0.99,
        end_percent=1.0,
    )[0]  # fmt: skip
    inputs = {"positive": positive, "latent": latent, "steps": STEPS, "seed": 3, "eta": 0.0}
    plain, late, full = (
        run(pack, "JoReSSample", model=m, **inputs)[0]["samples"] for m in (model.model, never, refined)
    )
    assert torch.equal(plain, late) and not torch.equal(plain, full)
    area = pack.stock.ConditioningSetArea().append(positive, width=64, height=32, x=0, y=0, strength=1.0)[0]
    # The host counts areas in latents of 1/8 size; here a latent is a pixel, so this is the top left 8 x 4 of it.
    both = pack.stock.ConditioningCombine().combine(positive, area)[0]
    out = ksample(pack, model.model, both, negative, latent)
    assert torch.isfinite(out).all()
    whole = ksample(pack, model.model, positive, negative, latent)
    torch.testing.assert_close(out[..., 16:, 32:], whole[..., 16:, 32:], atol=0.2, rtol=0)


def test_cfg_and_a_batch_of_latents(pack, model):
    image = picture(size=(16, 32))
    _refined, _condition, positive, negative, latent = conditioned(pack, model, image)
    two = {"samples": latent["samples"].repeat(2, 1, 1, 1)}
    out = ksample(pack, model.model, positive, negative, two, cfg=3.0)
    assert out.shape == (2, 3, 16, 32) and torch.isfinite(out).all()
    assert not torch.equal(ksample(pack, model.model, positive, negative, latent, cfg=3.0), out[:1] * 0)
    decoded = pack.stock.VAEDecode().decode(model.vae, {"samples": out})[0]
    assert decoded.shape == (2, 16, 32, 3)


def test_an_edited_light_replaces_the_proposed_one(pack, model):
    retinex = run(pack, "JoReSDecompose", nets=model.nets, image=picture())[0]
    light = torch.linspace(0, 1, SIZE[1]).expand(1, *SIZE)
    condition, reflectance, lifted, preview = run(
        pack, "JoReSAdjust", nets=model.nets, retinex=retinex, exposure=0.3, denoise=0.0, illumination=light
    )
    assert torch.equal(lifted, light)
    torch.testing.assert_close(to_bchw(preview), (to_bchw(reflectance) * light[:, None]).clamp(0, 1))
    assert condition.condition.exposure.item() == pytest.approx(0.3)


@pytest.mark.parametrize("model", ["compact"], indirect=True)  # both kinds have one segmenter
def test_the_mask_of_a_class_and_the_map(pack, model):
    image = picture(batch=2)
    prior, colours, mask = run(pack, "JoReSSegment", segmenter=model.segmenter, image=image, class_name="wall")
    assert colours.shape == image.shape and mask.shape == (2, *SIZE)
    assert len(prior.labels) == 150 and 0 <= mask.min() <= mask.max() <= 1
    inputs = {"segmenter": model.segmenter, "image": image}
    other = run(pack, "JoReSSegment", class_name="sky", **inputs)[2]
    assert not torch.equal(mask, other)
    both = run(pack, "JoReSSegment", class_name="wall", more_classes="Sky, wall", **inputs)[2]
    torch.testing.assert_close(both, mask + other)
    hard = run(pack, "JoReSSegment", class_name="wall", more_classes="sky", threshold=0.2, invert=True, **inputs)[2]
    assert torch.equal(hard, (both < 0.2).float())
    with pytest.raises(ValueError, match="Segment Semantic Prior: more_classes: there is no class 'skies'.*sky"):
        run(pack, "JoReSSegment", class_name="wall", more_classes="skies", **inputs)


def test_the_controls_of_the_result_are_the_librarys(pack, model):
    image, x0 = picture(batch=2, channels=4) * 6, torch.rand(2, 3, *SIZE) * 2 - 1
    mask = torch.zeros(1, *SIZE)
    mask[:, 5:30, 8:40] = 1
    dials = {"strength": 0.9, "feather": 4, "shadows": 0.8, "colour_fidelity": 0.6}
    result = run(pack, "JoReSFinish", latent={"samples": x0}, image=image, mask=mask, **dials)[0]
    expected = flat(pack.pipeline.finish)(x0, to_bchw(image), mask=mask[:, None], **dials)
    assert torch.equal(to_bchw(result), expected)
    outside = mask[0] == 0
    assert torch.equal(result[:, outside], image[:, outside]) and not torch.equal(result[:, 17], image[:, 17])
    inputs = {"exposure": 0.0, "steps": 1, "seed": 0, "semantic": False, "model_name": f"{model.name}.safetensors"}
    result = run(pack, "JoReSEnhance", image=image, mask=mask, smooth_frames=False, **inputs, **dials)[0]
    expected = flat(pack.pipeline.enhance)(to_bchw(image), model.library, steps=1, mask=mask[:, None], **dials)
    torch.testing.assert_close(to_bchw(result), expected, atol=model.tolerance, rtol=0)
    with pytest.raises(ValueError, match="Enhance Low Light: mask holds NaN"):
        run(pack, "JoReSEnhance", image=image, mask=mask / 0, **inputs, **dials)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.zeros(0, 4, 4, 3), "Enhance Low Light: image of shape .* is empty"),
        (torch.full((1, 4, 4, 3), float("nan")), "Enhance Low Light: image holds NaN"),
        (torch.zeros(1, 4, 4, 2), "Enhance Low Light: image must be"),
        (torch.zeros(1, 4, 4, 3, device="meta"), "Enhance Low Light: image has a size but no values"),
    ],
)
def test_bad_pictures_are_refused_by_name(pack, model, image, message):
    inputs = {"exposure": 0.0, "strength": 1.0, "steps": 1, "seed": 0, "semantic": False}
    with pytest.raises(ValueError, match=message):
        run(pack, "JoReSEnhance", image=image, model_name=f"{model.name}.safetensors", **inputs)


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float16", "uint8", "bool"])
def test_pictures_and_masks_of_any_dtype_are_taken(pack, model, dtype):
    """PyTorch has no aminmax for some of them."""
    image = (picture(size=(16, 32)) * 3).to(getattr(torch, dtype))
    mask = torch.eye(16, 32)[None].to(getattr(torch, dtype))
    inputs = {"exposure": 0.0, "strength": 1.0, "steps": 1, "seed": 0, "semantic": False}
    inputs["model_name"] = f"{model.name}.safetensors"
    result = run(pack, "JoReSEnhance", image=image, mask=mask, **inputs)[0]
    assert torch.equal(result, run(pack, "JoReSEnhance", image=image.float(), mask=mask.float(), **inputs)[0])
    with pytest.raises(ValueError, match="Enhance Low Light: mask has a size but no values"):
        run(pack, "JoReSEnhance", image=image, mask=mask.to("meta"), **inputs)


def test_a_name_that_comes_from_another_node_changes_nothing_by_itself(pack):
    """The host asks for the fingerprint before that node has run."""
    for node_id, name in (("JoReSLoadModel", "model"), ("JoReSLoadSegmenter", "segmenter"), ("JoReSEnhance", "model")):
        assert pack.nodes[node_id].fingerprint_inputs(**{f"{name}_name": None}) == ""


def test_wrong_wires_are_refused_by_name(pack, model):
    image = picture(size=(16, 32))
    refined, condition, positive, negative, latent = conditioned(pack, model, image)
    sample = {"positive": positive, "latent": latent, "steps": 1, "seed": 0, "eta": 0.0}
    prompt = [[torch.zeros(1, 77, 768), {}]]
    four = {"samples": torch.zeros(1, 4, 2, 4)}
    with pytest.raises(ValueError, match="Sample JoReS Diffusion: latent is .1, 4, 2, 4"):
        run(pack, "JoReSSample", model=model.model, **{**sample, "latent": four})
    with pytest.raises(ValueError, match="Sample JoReS Diffusion: positive carries no picture"):
        run(pack, "JoReSSample", model=model.model, **{**sample, "positive": prompt})
    with pytest.raises(ValueError, match="a text prompt"):
        ksample(pack, model.model, prompt, prompt, latent)
    with pytest.raises(ValueError, match="made from a picture of 32x16"):
        ksample(pack, model.model, positive, negative, four)
    with pytest.raises(ValueError, match="Finish Enhancement: latent holds 1 picture.* of 32x16, image 1 of 50x37"):
        run(pack, "JoReSFinish", latent=latent, image=picture(), strength=1.0)
    with pytest.raises(ValueError, match="Finish Enhancement: mask is 9x8"):
        run(pack, "JoReSFinish", latent=latent, image=image, strength=1.0, mask=torch.ones(1, 8, 9))
    with pytest.raises(ValueError, match="Finish Enhancement: nothing is painted on mask"):  # as Load Image gives it
        run(pack, "JoReSFinish", latent=latent, image=image, strength=1.0, mask=torch.zeros(1, 64, 64))
    other = run(pack, "JoReSSegment", segmenter=model.segmenter, image=picture(), class_name="sky")[0]
    with pytest.raises(ValueError, match="Condition JoReS Diffusion: semantic was made from"):
        run(pack, "JoReSCondition", condition=condition, semantic=other)
    bigger = conditioned(pack, model, picture())
    with pytest.raises(ValueError, match="Apply RNet Refinement: condition was made from a picture of 32x16"):
        run(pack, "JoReSSample", model=refined, **{**sample, "positive": bigger[2], "latent": bigger[4]})
