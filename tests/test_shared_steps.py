"""What the steps of a stock sampler share: the same pictures as without sharing, and nothing is left or mixed up."""

from __future__ import annotations

import importlib
from types import SimpleNamespace

import pytest
import torch

from tests.graphs import ksample, our_sample, run, scene, stock

STEPS = 3


@pytest.fixture
def made(host, graph):
    """Counts how often guides and modulations are computed."""
    counts = {"guides": 0, "modulations": 0}
    unet, rnet = graph.plain.model.diffusion_model, graph.nets.parts["refinement"].model

    def counted(net, name):
        inner = getattr(net, name)

        def count(*args):
            counts[name] += 1
            return inner(*args)

        setattr(net, name, count)

    counted(unet, "guides")
    counted(rnet, "modulations")
    yield counts
    del unet.guides, rnet.modulations


def alone(graph, monkeypatch, job):
    """The result of `job` when every step computes everything anew."""
    with monkeypatch.context() as patch:
        for shared in vars(graph.plain.model.diffusion_model).values():
            if hasattr(shared, "get") and type(shared).__name__.startswith("SharedBy"):
                patch.setattr(shared, "get", lambda _key, make: make())
        return job()


def with_prior(host, graph, given, image):
    inputs = {"segmenter": graph.segmenter, "image": image, "class_name": "sky", "condition": given.condition}
    prior = run(host, "JoReSSegment", **inputs)[0]
    positive, negative, latent = run(host, "JoReSCondition", condition=given.condition, semantic=prior)
    return SimpleNamespace(**{**vars(given), "positive": positive, "negative": negative, "latent": latent})


@pytest.mark.parametrize(("count", "cfg", "guides"), [(1, 1.0, 1), (3, 1.0, 1), (1, 2.0, 2)])
def test_stock_samplers_compute_once_what_all_steps_share(host, graph, made, monkeypatch, count, cfg, guides):
    """With cfg 2 the positive has a semantic prior, the negative has none."""
    given = with_prior(host, graph, graph.batch if count > 1 else graph.one, scene(int(count > 1), count))
    job = lambda: ksample(host, given.model, given, steps=STEPS, cfg=cfg)["samples"]  # noqa: E731
    result = job()
    assert made == {"guides": guides, "modulations": 1}
    net = graph.plain.model.diffusion_model
    assert not (net.guides_of._entries or net.for_rnet._entries or net.tilers._entries)  # nothing stays in memory
    expected = alone(graph, monkeypatch, job)
    assert made == {"guides": guides + STEPS * guides, "modulations": 1 + STEPS}
    assert torch.equal(result, expected)


def test_our_sampler_computes_it_once_for_each_picture(host, graph, made, monkeypatch):
    result = our_sample(host, graph.batch, STEPS)
    assert made == {"guides": 3, "modulations": 3}
    assert torch.equal(result, alone(graph, monkeypatch, lambda: our_sample(host, graph.batch, STEPS)))


def test_two_pictures_of_one_size_in_turn_each_get_their_own(host, graph, made):
    first, second = ksample(host, graph.one.model, graph.one), ksample(host, graph.other.model, graph.other)
    again = ksample(host, graph.one.model, graph.one)
    assert made == {"guides": 3, "modulations": 3}
    assert torch.equal(first["samples"], again["samples"]) and not torch.equal(first["samples"], second["samples"])


def test_regions_of_different_lights_are_not_mixed(host, graph, monkeypatch):
    """Three conditionings of one shape, one more than are kept, in every step."""
    image = scene(0)
    retinex = run(host, "JoReSDecompose", nets=graph.nets, image=image)[0]
    lights = []
    for place, exposure in enumerate((0.2, 0.4, 0.7)):
        light = run(host, "JoReSAdjust", nets=graph.nets, retinex=retinex, exposure=exposure, denoise=1.0)[0]
        mask = torch.zeros(1, *image.shape[1:3])
        mask[:, :, place * 21 : (place + 1) * 22] = 1
        positive = run(host, "JoReSCondition", condition=light)[0]
        lights += stock(host.stock.ConditioningSetMask, positive, mask, "default", 1.0)
    given = SimpleNamespace(positive=lights, negative=lights, latent=graph.one.latent)
    job = lambda: ksample(host, graph.plain, given, steps=STEPS)["samples"]  # noqa: E731
    assert torch.equal(job(), alone(graph, monkeypatch, job))


def test_weights_that_hooks_change_within_a_sampling_make_their_own_guides(host, graph, monkeypatch):
    """A LoRA on the positive conditioning alone, which is otherwise the same as the negative."""
    hooks, net = importlib.import_module("comfy.hooks"), graph.plain.model.diffusion_model
    key = next(f"encoders.{i}.retinex.value.weight" for i, level in enumerate(net.encoders) if level.retinex)
    weights = {f"diffusion_model.{key}": net.state_dict()[key] + 0.1}
    lora = hooks.create_hook_model_as_lora(weights, None, 1.0, 0.0)
    plain = graph.one.positive
    hooked = [[text, {**values, "hooks": lora}] for text, values in plain]
    given = SimpleNamespace(positive=hooked, negative=plain, latent=graph.one.latent)
    job = lambda: ksample(host, graph.plain, given, steps=STEPS, cfg=2.0)["samples"]  # noqa: E731
    result = job()
    assert torch.equal(result, alone(graph, monkeypatch, job))
    given.positive = plain
    assert not torch.equal(result, job())


def test_the_net_of_the_model_has_the_layout_that_processors_like(graph):
    nets = graph.plain.model.diffusion_model, graph.nets.parts["refinement"].model
    weights = [w for net in nets for w in net.parameters() if w.ndim == 4 and min(w.shape[2:]) > 1]
    assert weights and all(w.is_contiguous(memory_format=torch.channels_last) for w in weights)
