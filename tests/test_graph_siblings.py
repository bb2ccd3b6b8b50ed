"""Other wirings of the kinds that once leaked, mixed or garbled: on a real host, with the shipped model."""

from __future__ import annotations

import importlib
from types import SimpleNamespace

import pytest
import torch

from tests.graphs import (
    SHIPPED,
    SIZE,
    conditioned,
    custom_sample,
    ksample,
    our_sample,
    refine,
    run,
    scene,
    stock,
)

STEPS = 2
ADVANCED = {
    "aura": ("ModelSamplingAuraFlow", (1.73,)), 
    "lcm": ("ModelSamplingDiscrete", ("lcm", False)), "x0": ("ModelSamplingDiscrete", ("x0", False)),
    "continuous v": ("ModelSamplingContinuousV", ("v_prediction", 500.0, 0.03)),
    "another edm": ("ModelSamplingContinuousEDM", ("eps", 20.0, 0.02)),
}  # fmt: skip


def foreign(host, model, kind):
    name, arguments = ADVANCED[kind]
    return stock(getattr(host.model_advanced, name), model, *arguments)


@pytest.mark.parametrize("kind", ["aura", "continuous v", "lcm"])
@pytest.mark.parametrize("refused", [False, True])
def test_nothing_of_another_prompt_is_left_also_where_that_failed(host, graph, kind, refused):
    expected = our_sample(host, graph.one, STEPS), ksample(host, graph.one.model, graph.one)["samples"]
    sigmas = run(host, "JoReSSigmas", model=graph.plain, steps=4)[0]
    if refused:  # in the midst of the sampling, so that the host keeps the patches until the next one
        with pytest.raises(ValueError, match="noise schedule was replaced"):
            ksample(host, foreign(host, graph.one.model, kind), graph.one)
    else:  # loaded, but not sampled
        mm = importlib.import_module("comfy.model_management")
        with torch.inference_mode():
            mm.load_models_gpu([foreign(host, graph.plain, kind)])
    assert torch.equal(run(host, "JoReSSigmas", model=graph.plain, steps=4)[0], sigmas)
    assert torch.equal(our_sample(host, graph.one, STEPS), expected[0])
    assert torch.equal(ksample(host, graph.one.model, graph.one)["samples"], expected[1])


@pytest.mark.parametrize("kind", list(ADVANCED))
def test_other_foreign_schedules_are_refused(host, graph, kind):
    model = foreign(host, graph.plain, kind)
    with pytest.raises(ValueError, match="Schedule JoReS Sigmas: .*noise schedule was replaced"):
        run(host, "JoReSSigmas", model=model, steps=STEPS)
    with pytest.raises(ValueError, match="Sample JoReS Diffusion: .*noise schedule was replaced"):
        our_sample(host, graph.one, STEPS, model=model)
    with pytest.raises(ValueError, match="Apply RNet Refinement: .*noise schedule was replaced"):
        refine(host, model, graph.nets, graph.one.condition)
    with pytest.raises(ValueError, match="The sampler: .*noise schedule was replaced"):
        ksample(host, model, graph.one)


@pytest.mark.parametrize("error", [AttributeError("no 'timestep_spacing'"), RuntimeError("CUDA error: illegal access")])
def test_a_fault_of_the_host_or_the_device_is_no_foreign_schedule(host, graph, monkeypatch, error):  # noqa: F811
    def fail(*_given):
        raise error

    monkeypatch.setattr(importlib.import_module("comfy.model_sampling").EPS, "calculate_input", fail)
    with pytest.raises(type(error), match=str(error)):
        run(host, "JoReSSigmas", model=graph.plain, steps=STEPS)


def test_a_foreign_schedule_that_cannot_be_asked_is_refused_with_its_cause(host, graph):  # noqa: F811
    model = graph.plain.clone()
    model.add_object_patch("model_sampling", torch.nn.Identity())
    with pytest.raises(ValueError, match=r"replaced by another node's \(Identity\)") as refused:
        run(host, "JoReSSigmas", model=model, steps=STEPS)
    assert isinstance(refused.value.__cause__, AttributeError)


def guided(host, model, name, negative):  # noqa: F811
    module, node, arguments = {
        "APG": ("apg", "APG", (1.0, 5.0, 0.0)), "APG with momentum": ("apg", "APG", (0.0, 0.5, 0.5)),
        "PerpNeg": ("perpneg", "PerpNeg", (negative, 1.0)), "TCFG": ("tcfg", "TCFG", ()),
        "CFGZeroStar": ("cfg", "CFGZeroStar", ()),
    }[name]  # fmt: skip
    try:
        return stock(getattr(importlib.import_module(f"comfy_extras.nodes_{module}"), node), model, *arguments)
    except ImportError:
        pytest.skip("this host has no such node")


@pytest.mark.parametrize("name", ["APG", "APG with momentum", "PerpNeg", "TCFG", "CFGZeroStar"])
def test_guidance_nodes_do_nothing_where_there_is_no_guidance(host, graph, name):
    """At cfg 1 the host gives them zeros for the negative: before, NaN and up to 31 levels of difference."""
    for model in (graph.plain, graph.one.model):
        expected = our_sample(host, graph.one, STEPS, model=model)
        made = our_sample(host, graph.one, STEPS, model=guided(host, model, name, graph.one.negative))
        assert torch.equal(made, expected)
    recipe = run(host, "JoReSSampler", eta=0.0)[0], run(host, "JoReSSigmas", model=graph.plain, steps=STEPS)[0]
    expected = custom_sample(host, graph.one, *recipe)
    model = guided(host, graph.one.model, name, graph.one.negative)
    assert torch.equal(custom_sample(host, graph.one, *recipe, model=model), expected)


@pytest.mark.parametrize("way", ["mirrored", "one pixel", "brighter"])
def test_conditions_of_a_picture_that_was_changed_on_the_way(host, graph, way):
    image = scene(0)
    image = {"mirrored": image.flip(2), "one pixel": image.clone(), "brighter": image * 1.5}[way]
    if way == "one pixel":
        image[0, 5, 5] += 0.01
    other = conditioned(host, graph.plain, graph.nets, image)
    message = "condition was made from another picture than the one that is sampled"
    with pytest.raises(ValueError, match=message):
        ksample(host, refine(host, graph.plain, graph.nets, other.condition), graph.one)
    with pytest.raises(ValueError, match="latent and positive were made from different pictures"):
        our_sample(host, SimpleNamespace(**{**vars(graph.one), "latent": other.latent}), 1)


@pytest.mark.parametrize(("first", "length"), [(0, 2), (1, 2), (2, 1)])
def test_parts_of_a_batch_are_refused_or_of_the_right_picture(host, graph, first, length):
    latent = stock(host.stock.LatentFromBatch, graph.batch.latent, first, length)
    with pytest.raises(ValueError, match=f"made from 3 pictures, but the latent holds {length}"):
        ksample(host, graph.plain, graph.batch, latent)
    given = SimpleNamespace(**{**vars(graph.one), "latent": latent})
    if length == 1:  # it is known which one
        with pytest.raises(ValueError, match="made from different pictures"):
            our_sample(host, given, 1)


def test_a_picture_from_a_batch_is_that_picture(host, graph):
    """Taken out before the first stage, as the message advises."""
    images = scene(1, 3)
    for index in range(3):
        given = conditioned(host, graph.plain, graph.nets, images[index : index + 1])
        latent = stock(host.stock.LatentFromBatch, graph.batch.latent, index, 1)
        made = our_sample(host, SimpleNamespace(**{**vars(given), "latent": latent}), 1)
        assert torch.equal(made, our_sample(host, given, 1))


ODD_IMAGES = {
    "2 channels": (scene(0)[..., :2], "must be .batch, height, width, 1, 3 or 4 channels."),
    "5 channels": (torch.zeros(1, 8, 8, 5), "must be .batch, height, width, 1, 3 or 4 channels."),
    "no batch": (scene(0)[0], "must be .batch, height, width, 1, 3 or 4 channels."),
    "a video": (scene(0)[None], "must be .batch, height, width, 1, 3 or 4 channels."),
    "no rows": (torch.zeros(1, 0, 8, 3), "of shape .* is empty"),
    "one NaN": (torch.where(scene(0) == scene(0).max(), float("nan"), scene(0)), "holds NaN or infinite"),
    "half": ((scene(0) * 255).half(), "holds levels up to"),
    "a latent": ({"samples": scene(0)}, "is a dict: connect an IMAGE"),
    "numpy": (scene(0).numpy(), "is a ndarray: connect an IMAGE"),
}  # fmt: skip


@pytest.mark.parametrize("kind", list(ODD_IMAGES))
def test_other_odd_images_are_refused_in_a_sentence(host, kind):
    image, message = ODD_IMAGES[kind]
    inputs = {"exposure": 0.0, "strength": 1.0, "steps": 1, "seed": 0, "semantic": False, "model_name": SHIPPED}
    with pytest.raises(ValueError, match=f"Enhance Low Light: image {message}"):
        run(host, "JoReSEnhance", image=image, **inputs)


@pytest.mark.parametrize("kind", ["bool", "bfloat16", "needs a gradient", "not contiguous", "a channel first"])
def test_unusual_tensors_that_say_the_same_give_the_same(host, kind):
    image, mask = scene(0), torch.ones(1, *SIZE)
    inputs = {"exposure": 0.3, "strength": 1.0, "steps": 1, "seed": 0, "semantic": False, "model_name": SHIPPED}
    if kind == "bfloat16":
        image = image.bfloat16().float()
    expected = run(host, "JoReSEnhance", image=image, mask=mask, **inputs)[0]
    other = {"bfloat16": image.bfloat16(), "needs a gradient": image.clone().requires_grad_(),
             "not contiguous": image.movedim(-1, 0).contiguous().movedim(0, -1)}.get(kind, image)  # fmt: skip
    white = {"bool": mask > 0, "a channel first": mask[:, None]}.get(kind, mask)
    assert torch.equal(run(host, "JoReSEnhance", image=other, mask=white, **inputs)[0], expected)


@pytest.mark.parametrize(
    ("sampler", "scheduler"),
    [("dpmpp_2m_sde", "karras"), ("lcm", "sgm_uniform"), ("uni_pc", "normal"), ("res_multistep", "beta")],
)
def test_other_samplers_give_nearly_the_same_picture(host, graph, sampler, scheduler):
    expected = ksample(host, graph.one.model, graph.one, steps=4)["samples"].clamp(-1, 1)
    made = ksample(host, graph.one.model, graph.one, sampler_name=sampler, scheduler=scheduler, steps=6)["samples"]
    assert (made.clamp(-1, 1) - expected).abs().mean() * 127.5 < 4


@pytest.mark.parametrize("empty", [False, True])
@pytest.mark.parametrize("recipe", ["ours", "stock", "stock without RNet"])
def test_inside_of_a_noise_mask_is_the_result_and_outside_the_latent(host, graph, recipe, empty):
    size = tuple(graph.one.latent["samples"].shape[-2:])
    mask = torch.zeros(1, 1, *size)
    mask[..., 8:36, 12:48] = 1
    held = graph.one.latent["samples"] if empty else scene(0).movedim(-1, 1) * 2 - 1
    latent = {**graph.one.latent, "samples": held, "noise_mask": mask}
    if recipe == "ours":
        method = run(host, "JoReSSampler", eta=0.0)[0], run(host, "JoReSSigmas", model=graph.plain, steps=4)[0]
        sampled = lambda latent: custom_sample(host, SimpleNamespace(**{**vars(graph.one), "latent": latent}), *method)  # noqa: E731
    else:
        model = graph.plain if "without" in recipe else graph.one.model
        sampled = lambda latent: ksample(host, model, graph.one, latent, steps=4)["samples"]  # noqa: E731
    made, whole = (sampled(one).float() for one in (latent, graph.one.latent))
    inside = mask.expand_as(made) > 0
    assert (made - whole)[inside].abs().max() < 4 / 127.5 and (made - whole)[inside].abs().mean() < 0.5 / 127.5
    assert (made - held)[~inside].abs().max() < 1 / 127.5


@pytest.mark.parametrize("recipe", ["ours", "stock"])
@pytest.mark.parametrize("share", [0.25, 0.75])
def test_a_soft_noise_mask_gives_its_share_of_the_result(host, graph, recipe, share):
    held = scene(0).movedim(-1, 1) * 2 - 1
    mask = torch.full((1, 1, *held.shape[-2:]), share)
    given = SimpleNamespace(**{**vars(graph.one), "latent": {**graph.one.latent, "samples": held, "noise_mask": mask}})
    if recipe == "ours":
        method = run(host, "JoReSSampler", eta=0.0)[0], run(host, "JoReSSigmas", model=graph.plain, steps=4)[0]
        made, whole = (custom_sample(host, one, *method).float() for one in (given, graph.one))
    else:
        made, whole = (ksample(host, graph.one.model, one, steps=4)["samples"].float() for one in (given, graph.one))
    assert (made - torch.lerp(held, whole, share)).abs().mean() < 0.5 / 127.5


def test_context_windows_are_refused(host, graph):
    """They cut the frames of a batch, but not what the conditioning holds of them."""
    node = importlib.import_module("comfy_extras.nodes_context_windows").ContextWindowsManualNode
    model = node.execute(graph.batch.model, 2, 1, "standard_static", 1, False, "pyramid", 0).result[0]
    with pytest.raises(ValueError, match="Context Windows cut the batch"):
        ksample(host, model, graph.batch)
    our_sample(host, graph.batch, 1)
