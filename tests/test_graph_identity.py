"""A graph on a real host: what another prompt patched does not leak, schedules and pictures are not mixed, and odd
inputs are refused in a sentence."""

from __future__ import annotations

import importlib
from types import SimpleNamespace

import pytest
import torch

from tests.graphs import (
    FOREIGN,
    SHIPPED,
    SIZE,
    STEPS,
    conditioned,
    custom_sample,
    ksample,
    our_sample,
    patched,
    refine,
    run,
    scene,
    stock,
)
from tests.tiny import bundle_of_0_1


@pytest.mark.parametrize("kind", ["continuous", "discrete eps", "sd3"])
def test_what_one_prompt_patched_is_not_seen_by_the_next(host, graph, kind):
    sigmas = run(host, "JoReSSigmas", model=graph.plain, steps=4)[0]
    expected = our_sample(host, graph.one, STEPS)
    with pytest.raises(
        ValueError, match="noise schedule was replaced"
    ):  # loads the patched MODEL, and leaves it loaded
        ksample(host, patched(host, graph.plain, kind), graph.one)
    assert torch.equal(run(host, "JoReSSigmas", model=graph.plain, steps=4)[0], sigmas)
    model = refine(host, graph.plain, graph.nets, graph.one.condition, 0.3, 1.0)
    late = our_sample(host, graph.one, STEPS, model=model)
    assert torch.equal(our_sample(host, graph.one, STEPS), expected)
    again = refine(host, graph.plain, graph.nets, graph.one.condition, 0.3, 1.0)
    assert torch.equal(our_sample(host, graph.one, STEPS, model=again), late)


@pytest.mark.parametrize("kind", list(FOREIGN))
def test_foreign_schedules_are_refused_by_our_nodes_and_all_samplers(host, graph, kind):
    foreign, name = patched(host, graph.plain, kind), "noise schedule was replaced by another node's .*ModelSampling"
    if kind == "cascade":
        name = "noise schedule was replaced by another node's .StableCascadeSampling"
    sampler = run(host, "JoReSSampler", eta=0.0)[0]
    sigmas = run(host, "JoReSSigmas", model=graph.plain, steps=STEPS)[0]
    with pytest.raises(ValueError, match=f"Schedule JoReS Sigmas: .*{name}"):
        run(host, "JoReSSigmas", model=foreign, steps=STEPS)
    with pytest.raises(ValueError, match=f"Sample JoReS Diffusion: .*{name}"):
        our_sample(host, graph.one, STEPS, model=foreign)
    with pytest.raises(ValueError, match=f"Apply RNet Refinement: .*{name}"):
        refine(host, foreign, graph.nets, graph.one.condition)
    with pytest.raises(ValueError, match=f"The sampler: .*{name}"):
        custom_sample(host, graph.one, sampler, sigmas, model=foreign)
    for model in (foreign, patched(host, graph.one.model, kind)):  # without RNet, and patched after it
        with pytest.raises(ValueError, match=f"The sampler: .*{name}"):
            ksample(host, model, graph.one)


@pytest.mark.parametrize(
    ("module", "name", "arguments"),
    [("model_advanced", "RescaleCFG", (0.7,)), ("differential_diffusion", "DifferentialDiffusion", ()),
     ("cfg", "CFGZeroStar", ()), ("tcfg", "TCFG", ()), ("mahiro", "Mahiro", ())],
)  # fmt: skip
def test_patches_that_leave_the_schedule_alone_are_taken(host, graph, module, name, arguments):
    try:
        node = getattr(importlib.import_module(f"comfy_extras.nodes_{module}"), name)
    except ImportError:
        pytest.skip("this host has no such node")
    for model in (graph.plain, graph.one.model):
        model = stock(node, model, *arguments)
        assert torch.isfinite(our_sample(host, graph.one, STEPS, model=model)).all()
        assert torch.isfinite(ksample(host, model, graph.one, cfg=2.0)["samples"]).all()


def test_foreign_schedules_are_refused_also_with_bundles_of_0_1(host, comfy_inprocess):
    folder = comfy_inprocess.base / "models" / "jores"
    folder.mkdir(parents=True, exist_ok=True)
    name = bundle_of_0_1(folder / "older.safetensors").name
    model, nets, _vae = run(host, "JoReSLoadModel", model_name=name)
    given = conditioned(host, model, nets, scene(0))
    assert torch.isfinite(ksample(host, model, given)["samples"]).all()
    with pytest.raises(ValueError, match="The sampler: .*noise schedule was replaced"):
        ksample(host, patched(host, model, "flux"), given)


@pytest.mark.parametrize("index", [0, 1, 2])
def test_one_latent_of_three_is_refused_not_guessed(host, graph, index):
    latent = stock(host.stock.LatentFromBatch, graph.batch.latent, index, 1)
    message = "condition was made from 3 pictures, but the latent holds 1"
    sample = {"positive": graph.batch.positive, "latent": latent, "steps": 1, "seed": 0, "eta": 0.0}
    with pytest.raises(ValueError, match=f"Sample JoReS Diffusion: the {message}"):
        run(host, "JoReSSample", model=graph.plain, **sample)
    with pytest.raises(ValueError, match=f"The JoReS model: the {message}"):
        ksample(host, graph.plain, graph.batch, latent)
    given = SimpleNamespace(**{**vars(graph.batch), "latent": latent})
    recipe = run(host, "JoReSSampler", eta=0.0)[0], run(host, "JoReSSigmas", model=graph.plain, steps=1)[0]
    with pytest.raises(ValueError, match=message):
        custom_sample(host, given, *recipe, model=graph.plain)


def test_counts_that_agree_or_one_condition_are_taken(host, graph):
    six = stock(host.stock.RepeatLatentBatch, graph.batch.latent, 2)
    with pytest.raises(ValueError, match="made from 3 pictures, but the latent holds 6"):
        ksample(host, graph.plain, graph.batch, six)
    two = stock(host.stock.RepeatLatentBatch, graph.one.latent, 2)
    assert len(ksample(host, graph.one.model, graph.one, two)["samples"]) == 2
    assert len(our_sample(host, SimpleNamespace(**{**vars(graph.one), "latent": two}), STEPS)) == 2
    plain = {"samples": torch.zeros_like(graph.one.latent["samples"])}  # a stock latent carries no fingerprint
    assert torch.equal(ksample(host, graph.plain, graph.one, plain)["samples"],
                       ksample(host, graph.plain, graph.one)["samples"])  # fmt: skip


def test_conditions_priors_and_latents_of_another_picture_are_refused(host, graph):
    message = "condition was made from another picture than the one that is sampled"
    foreign = refine(host, graph.plain, graph.nets, graph.other.condition)
    with pytest.raises(ValueError, match=message):
        our_sample(host, graph.one, 1, model=foreign)
    with pytest.raises(ValueError, match=message):
        ksample(host, foreign, graph.one)
    with pytest.raises(ValueError, match="conditionings of different pictures"):  # the negative conditioning alone
        mixed = SimpleNamespace(**{**vars(graph.one), "negative": graph.other.negative})
        ksample(host, refine(host, graph.plain, graph.nets, graph.one.condition), mixed, cfg=2.0)
    recipe = run(host, "JoReSSampler", eta=0.0)[0], run(host, "JoReSSigmas", model=graph.plain, steps=1)[0]
    with pytest.raises(ValueError, match=message):
        custom_sample(host, graph.one, *recipe, model=foreign)
    with pytest.raises(ValueError, match="latent and positive were made from different pictures"):
        our_sample(host, SimpleNamespace(**{**vars(graph.one), "latent": graph.other.latent}), 1)
    prior = run(host, "JoReSSegment", segmenter=graph.segmenter, image=scene(7), class_name="sky")[0]
    with pytest.raises(ValueError, match="semantic and condition were made from different pictures"):
        run(host, "JoReSCondition", condition=graph.one.condition, semantic=prior)
    run(host, "JoReSCondition", condition=graph.other.condition, semantic=prior)
    joined = SimpleNamespace(**{**vars(graph.one), "positive": graph.one.positive + graph.other.positive})
    with pytest.raises(ValueError, match="positive was joined from conditions of different pictures"):
        our_sample(host, joined, 1)


def finish(host, latent, image, caplog):
    caplog.clear()
    result = run(host, "JoReSFinish", latent=latent, image=image, strength=0.5)[0]
    assert result.shape == image.shape and torch.isfinite(result).all()
    return "does not look like" in caplog.text


def test_finish_warns_of_another_original_and_takes_an_edited_one(host, graph, caplog):
    latent = {**graph.one.latent, "samples": our_sample(host, graph.one, 1)}
    image = scene(0)
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(3)) * 0.005
    edited = [image, (image * 255).round() / 255, (image * 2).clamp(0, 1), image.sqrt() * 0.7, (image + noise).abs()]
    assert not any(finish(host, latent, one, caplog) for one in edited)
    assert all(finish(host, latent, one, caplog) for one in (scene(7), image.flip(2), image.flip(1), image * 0 + 0.1))
    batch = {**graph.batch.latent, "samples": our_sample(host, graph.batch, 1)}
    assert not finish(host, batch, scene(1, 3), caplog)
    assert finish(host, batch, scene(1, 3).flip(0), caplog)
    second = stock(host.stock.LatentFromBatch, batch, 1, 1)
    assert not finish(host, second, scene(1, 3)[1:2], caplog) and finish(host, second, scene(1, 3)[:1], caplog)
    other = {**graph.other.latent, "samples": our_sample(host, graph.other, 1)}
    joined = stock(importlib.import_module("comfy_extras.nodes_latent").LatentBatch, latent, other)
    assert not finish(host, joined, torch.cat([scene(0), scene(7)]), caplog)
    assert finish(host, joined, torch.cat([scene(3), scene(4)]), caplog)
    assert not finish(host, {"samples": latent["samples"]}, scene(7), caplog)  # nothing is known of it


BAD_LATENTS = {
    "video": (torch.zeros(1, 3, 1, *SIZE), "a video's latent"),
    "longer video": (torch.zeros(1, 3, 5, *SIZE), "a video's latent"),
    "empty": (torch.zeros(0, 3, *SIZE), "is empty, there is no picture to work on"),
    "nan": (torch.full((1, 3, *SIZE), float("nan")), "holds NaN or infinite values"),
    "inf": (torch.full((1, 3, *SIZE), float("inf")), "holds NaN or infinite values"),
    "audio": (torch.zeros(1, 8, 64), "this model works on pixels"),
}


@pytest.mark.parametrize("kind", list(BAD_LATENTS))
def test_odd_latents_are_refused_in_a_sentence(host, graph, kind):
    samples, message = BAD_LATENTS[kind]
    given = SimpleNamespace(**{**vars(graph.one), "latent": {"samples": samples}})
    for sample in (our_sample, lambda host, given, _steps: ksample(host, graph.plain, given)):
        with pytest.raises(ValueError, match=message):
            sample(host, given, 1)
    with pytest.raises(ValueError, match=message):
        run(host, "JoReSFinish", latent={"samples": samples}, image=scene(0), strength=1.0)


def test_finish_refuses_a_latent_that_no_sampler_worked_on(host, graph):
    """As it comes from 'Condition JoReS Diffusion' where the sampler between is bypassed: a grey picture."""
    empty, image = graph.one.latent, scene(0)
    partly = {"samples": torch.cat([our_sample(host, graph.one, 1), empty["samples"]])}
    for latent in (empty, partly):
        with pytest.raises(ValueError, match="Finish Enhancement: latent is still empty.*Diffusion' bypassed"):
            run(host, "JoReSFinish", latent=latent, image=image, strength=1.0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_latents_of_other_types_work(host, graph, dtype):
    latent = {**graph.one.latent, "samples": graph.one.latent["samples"].to(dtype)}
    given = SimpleNamespace(**{**vars(graph.one), "latent": latent})
    assert torch.equal(our_sample(host, given, STEPS), our_sample(host, graph.one, STEPS))
    made, expected = (ksample(host, graph.one.model, one)["samples"] for one in (given, graph.one))
    apart = made.double() - expected  # the host draws its noise in the latent's own type: another sample of the detail
    assert apart.abs().mean() < 0.02 and apart.abs().max() < 0.15
    run(host, "JoReSFinish", latent={"samples": made.to(dtype)}, image=scene(0), strength=1.0)


LEVELS = (scene(0) * 255).round()


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (LEVELS.to(torch.uint8), "image holds levels up to .*, not 0 to 1: divide by 255"),
        (LEVELS, "image holds levels"),
        (scene(0) * 255, "image holds levels"),
        (torch.cat((scene(0), scene(0), LEVELS.clamp(0, 3))), "image holds levels up to 3"),  # in one of them
        (LEVELS.to(torch.int64), "image holds levels"),
        (None, "image is None .is the node before it muted"),
        ("picture.png", "image is a str: connect an IMAGE"),
        ([scene(0)], "image is a list"),
    ],
)
def test_odd_images_are_refused_in_a_sentence(host, graph, image, message):
    inputs = {"exposure": 0.0, "strength": 1.0, "steps": 1, "seed": 0, "semantic": False, "model_name": SHIPPED}
    with pytest.raises(ValueError, match=f"Enhance Low Light: {message}"):
        run(host, "JoReSEnhance", image=image, **inputs)
    with pytest.raises(ValueError, match=f"Decompose Retinex: {message}"):
        run(host, "JoReSDecompose", nets=graph.nets, image=image)
    with pytest.raises(ValueError, match=f"Finish Enhancement: {message}"):
        run(host, "JoReSFinish", latent=graph.one.latent, image=image, strength=1.0)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.zeros(0, *SIZE), "mask must be .batch, height, width., at least one"),
        (torch.full((1, *SIZE), 255, dtype=torch.uint8), "mask holds levels up to 255"),
        (torch.full((1, *SIZE), 255.0), "mask holds levels up to 255"),
        (torch.zeros(4), "mask must be"),
        ("white", "mask is a str"),
    ],
)
def test_odd_masks_are_refused_in_a_sentence(host, graph, mask, message):
    with pytest.raises(ValueError, match=f"Finish Enhancement: {message}"):
        run(host, "JoReSFinish", latent=graph.one.latent, image=scene(0), strength=1.0, mask=mask)


def test_load_images_empty_mask_is_named_where_the_sizes_agree_too(host):
    picture, inputs = torch.full((1, 64, 64, 3), 0.1), {"exposure": 0.0, "strength": 1.0, "steps": 1, "seed": 0}
    for count in (1, 2):
        with pytest.raises(ValueError, match="nothing is painted on mask"):
            run(host, "JoReSEnhance", image=picture.expand(count, -1, -1, -1), mask=torch.zeros(count, 64, 64),
                semantic=False, model_name=SHIPPED, **inputs)  # fmt: skip


def test_a_black_mask_of_another_size_is_said_in_the_log(host, graph, caplog):
    latent, mask = {"samples": torch.ones(1, 3, *SIZE)}, torch.zeros(1, *SIZE)
    run(host, "JoReSFinish", latent=latent, image=scene(0), strength=1.0, mask=mask)
    assert "mask is black everywhere" in caplog.text


@pytest.mark.parametrize("value", [None, "text", [], [1, 2], [[torch.zeros(1, 77, 768), {}]]])
def test_a_conditioning_without_a_picture_is_named(host, graph, value):
    inputs = {"model": graph.plain, "latent": graph.one.latent, "steps": 1, "seed": 0, "eta": 0.0}
    with pytest.raises(ValueError, match="Sample JoReS Diffusion: positive (is|carries no picture).*'Condition JoReS"):
        run(host, "JoReSSample", positive=value, **inputs)


@pytest.mark.parametrize("value", [None, "text", [1, 2]])
def test_wires_that_carry_something_else_are_named(host, graph, value):
    one, wrong = graph.one, ".*(is None|is a str|is a list)"
    sample = {"model": graph.plain, "positive": one.positive, "latent": one.latent, "steps": 1, "seed": 0, "eta": 0.0}
    calls = [
        ("JoReSSample", sample, ["model", "latent"]),
        ("JoReSCondition", {"condition": one.condition}, ["condition"]),
        ("JoReSAdjust", {"nets": graph.nets, "retinex": None, "exposure": 0.0, "denoise": 1.0}, ["nets", "retinex"]),
        ("JoReSSegment", {"segmenter": graph.segmenter, "image": scene(0), "class_name": "sky"}, ["segmenter"]),
        ("JoReSFinish", {"latent": one.latent, "image": scene(0), "strength": 1.0}, ["latent", "image"]),
        ("JoReSSigmas", {"model": graph.plain, "steps": 1}, ["model"]),
    ]
    for node, inputs, names in calls:
        for name in names:
            with pytest.raises(ValueError, match=f"{name}{wrong}"):
                run(host, node, **{**inputs, name: value})


def test_patches_for_another_unet_work_or_say_why_not(host, graph):
    names = ("freelunch", "sag", "lumina2", "hypertile")
    free, guidance, lumina, hyper = (importlib.import_module(f"comfy_extras.nodes_{name}") for name in names)
    for node, arguments in ((free.FreeU, (1.1, 1.2, 0.9, 0.2)), (free.FreeU_V2, (1.3, 1.4, 0.9, 0.2))):
        with pytest.raises(ValueError, match="a JoReS model has no 'model_channels'.*take the node out"):
            stock(node, graph.plain, *arguments)
    sag = stock(guidance.SelfAttentionGuidance, graph.plain, 0.5, 2.0)
    for sample in (lambda: ksample(host, sag, graph.one, cfg=2.0), lambda: our_sample(host, graph.one, 1, model=sag)):
        with pytest.raises(ValueError, match="no blocks like Stable Diffusion's.*attn1"):
            sample()
    tiled = stock(hyper.HyperTile, graph.plain, 256, 2, 0, False)  # it is for speed alone
    assert torch.equal(our_sample(host, graph.one, 1, model=tiled), our_sample(host, graph.one, 1, model=graph.plain))
    renorm = stock(lumina.RenormCFG, graph.plain, 100.0, 1.0)
    assert torch.isfinite(ksample(host, renorm, graph.one, cfg=2.0)["samples"]).all()
    if hasattr(host.model_advanced, "ModelNoiseScale"):
        with pytest.raises(ValueError, match="changes the model's noise schedule .ModelNoiseScale"):
            stock(host.model_advanced.ModelNoiseScale, graph.plain, 8.0)


@pytest.mark.parametrize(
    ("sampler", "scheduler", "steps"),
    [("heun", "karras", 10), ("deis", "karras", 4), ("euler", "karras", 4), ("dpmpp_2m", "normal", 10),
     ("euler", "ddim_uniform", 1), ("ddim", "ddim_uniform", 4), ("euler", "ddim_uniform", 10),
     ("dpm_fast", "simple", 4), ("dpm_adaptive", "normal", 4), ("ipndm_v", "linear_quadratic", 4),
     ("dpmpp_2m", "kl_optimal", 10), ("lcm", "beta", 4), ("uni_pc", "sgm_uniform", 4), ("euler", "exponential", 4)],
)  # fmt: skip
def test_stock_samplers_and_schedulers_end_at_the_picture(host, graph, sampler, scheduler, steps):
    """Before, ddim_uniform began at an empty latent with little noise, and ended in garbage or NaN."""
    finer = sampler in ("heun", "dpm_fast", "dpm_adaptive")  # which call the net more often, so it draws more
    expected = ksample(host, graph.one.model, graph.one, steps=100 if finer else 4)["samples"].clamp(-1, 1)
    made = ksample(host, graph.one.model, graph.one, sampler_name=sampler, scheduler=scheduler, steps=steps)["samples"]
    assert (made.clamp(-1, 1) - expected).abs().mean() * 127.5 < 5


@pytest.mark.parametrize(
    ("sampler", "scheduler"), [("heun", "simple"), ("heun", "karras"), ("dpm_2_ancestral", "normal")]
)
def test_samplers_that_divide_by_the_noise_level_are_refused_where_it_falls_too_far(host, graph, sampler, scheduler):
    """They would give 25 to 40 levels of noise."""
    with pytest.raises(ValueError, match=f"the sampler '{sampler}' divides by the noise level.*choose euler"):
        ksample(host, graph.one.model, graph.one, sampler_name=sampler, scheduler=scheduler, steps=4)
