"""Our sampler and schedule in the host's custom sampling, stock samplers on our MODEL, and RNet in a cloned MODEL."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from tests.flat import flat
from tests.graphs import SEED, SHIPPED, SIZE, conditioned, custom_sample, our_sample, refine, run, stock

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def graph(pack):
    """The shipped model up to the sampler, for a batch of two dim pictures."""
    steps = torch.linspace(0.05, 0.35, SIZE[1])
    image = steps.view(1, 1, -1, 1) * torch.tensor([1.0, 0.8, 0.6]) + torch.zeros(2, *SIZE, 3)
    image[1] = image[1].flip(1)
    model, nets, _vae = run(pack, "JoReSLoadModel", model_name=SHIPPED)
    return SimpleNamespace(nets=nets, image=image, plain=model, **vars(conditioned(pack, model, nets, image)))


class SharedNoise:
    """A NOISE that gives every picture of a batch the same, as 'Sample JoReS Diffusion' does."""

    def __init__(self, pack):
        self.seed, self.draw = SEED, pack.load("jores.diffusion.sampling").start_noise

    def generate_noise(self, latent):
        samples = latent["samples"]
        return self.draw((1, *samples.shape[1:]), self.seed, samples).expand_as(samples)


def recipe(pack, graph, steps, eta=0.0):
    return run(pack, "JoReSSampler", eta=eta)[0], run(pack, "JoReSSigmas", model=graph.plain, steps=steps)[0]


@pytest.fixture(scope="module")
def one(pack, graph):
    """The same for the first picture alone."""
    return conditioned(pack, graph.plain, graph.nets, graph.image[:1])


@pytest.mark.parametrize("steps", [1, 2, 4])
@pytest.mark.parametrize(("eta", "cfg"), [(0.0, None), (0.6, 1.0)])
def test_the_recipe_in_custom_sampling_is_our_sample_node(pack, graph, one, steps, eta, cfg):
    sampler, sigmas = recipe(pack, graph, steps, eta)
    assert len(sigmas) == steps + 1 and sigmas[-1] == 0 and (sigmas.diff() < 0).all()
    given = custom_sample(pack, one, sampler, sigmas, cfg=cfg)
    expected = our_sample(pack, one, steps, eta)
    torch.testing.assert_close(given, expected, atol=1e-6, rtol=0)
    if eta:
        assert (expected - our_sample(pack, one, steps)).abs().max() > 5e-4 or steps == 1


def test_random_noise_is_ours_for_one_picture_and_differs_from_the_second_on(pack, graph, one):
    draw, noise = pack.load("jores.diffusion.sampling").start_noise, stock(pack.custom.RandomNoise, SEED)
    single, both = one.latent, graph.latent
    assert torch.equal(noise.generate_noise(single), draw(single["samples"].shape, SEED, single["samples"]))
    drawn = noise.generate_noise(both)
    assert not torch.equal(drawn[0], drawn[1])
    sampler, sigmas = recipe(pack, graph, 2, 0.6)
    expected = our_sample(pack, graph, 2, 0.6)
    shared = custom_sample(pack, graph, sampler, sigmas, noise=SharedNoise(pack))
    torch.testing.assert_close(shared, expected, atol=1e-5, rtol=0)
    own = custom_sample(pack, graph, sampler, sigmas)
    assert (own[1] - expected[1]).abs().max() > 1e-3


def test_steps_that_are_not_the_methods_are_refused(pack, graph, one):
    sampler, sigmas = recipe(pack, graph, 4)
    with pytest.raises(ValueError, match="Select JoReS Sampler: these 3 steps are not the method's own"):
        custom_sample(pack, one, sampler, sigmas[1:])
    stranger = SimpleNamespace(inner_model=SimpleNamespace(inner_model=torch.nn.Identity()))
    with pytest.raises(ValueError, match="model is a Identity, not a JoReS model"):
        sampler.sampler_function(stranger, one.latent["samples"], sigmas, {})
    simple = stock(pack.custom.BasicScheduler, graph.plain, "simple", 4, 1.0)
    given = custom_sample(pack, one, sampler, simple)
    torch.testing.assert_close(given, our_sample(pack, one, 4), atol=1e-3, rtol=0)


@pytest.mark.parametrize("name", ["euler", "ddim"])
@pytest.mark.parametrize("steps", [2, 4])
def test_stock_samplers_are_the_librarys_at_equal_noise(pack, graph, one, name, steps):
    """Without RNet: stock samplers take eps from the x0 that it returns, the method from the UNet's own."""
    library = pack.load("jores.checkpoint")
    nets = library.load_bundle(library.SHIPPED_WEIGHTS)
    low = one.condition.low
    expected = flat(pack.load("jores.pipeline").sample)(
        nets, one.condition.condition, low=low, steps=steps, seed=SEED, refine=False, texture=1.0
    )  # fmt: skip
    assert expected.abs().max() < 1  # where the library clamps x0 and stock samplers do not, they may differ
    given = stock(
        pack.stock.KSampler, graph.plain, SEED, steps, 1.0, name, "simple", one.positive, one.negative, one.latent, 1.0
    )["samples"]  # fmt: skip
    torch.testing.assert_close(given, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("steps", [4, 20])
def test_a_sampling_in_two_parts_is_the_whole_one(pack, graph, one, steps):
    """With RNet, whose share of a step does not depend on how many there are before and after."""

    def part(latent, first, last, noise):
        return stock(
            pack.stock.KSamplerAdvanced, one.model, noise, SEED, steps, 1.0, "euler", "simple", one.positive,
            one.negative, latent, first, last, "enable" if last < steps else "disable",
        )  # fmt: skip

    whole = part(one.latent, 0, steps, "enable")["samples"]
    half = part(one.latent, 0, steps // 2, "enable")
    made = part(half, steps // 2, steps, "disable")["samples"]
    torch.testing.assert_close(made, whole, atol=1e-3, rtol=0)


def calls_of(net, work):
    """How often `net` ran during `work()`, and what that returned."""
    calls = []
    hook = net.register_forward_hook(lambda *_: calls.append(1))
    try:
        result = work()
    finally:
        hook.remove()
    return len(calls), result


@pytest.mark.parametrize(
    ("start", "end", "expected"), [(0.0, 1.0, 4), (0.0, 0.4, 2), (0.4, 1.0, 2), (0.6, 1.0, 1), (0.8, 1.0, 0)]
)
def test_rnet_runs_inside_its_window_only(pack, graph, one, start, end, expected):
    """Steps 999, 749, 499 and 249 lie at 0, 25, 50 and 75 % of the sampling."""
    model, rnet = refine(pack, graph.plain, graph.nets, one.condition, start, end), graph.nets.parts["refinement"].model
    sampler, sigmas = recipe(pack, graph, 4)
    ours, given = calls_of(rnet, lambda: our_sample(pack, one, 4, model=model))
    euler = stock(pack.custom.KSamplerSelect, "euler")
    theirs, _ = calls_of(rnet, lambda: custom_sample(pack, one, euler, sigmas, model=model))
    assert ours == theirs == expected
    assert torch.equal(given, our_sample(pack, one, 4, model=graph.plain)) == (expected == 0)


def test_two_refined_branches_of_one_model_do_not_touch_each_other(pack, graph, one):
    second = conditioned(pack, graph.plain, graph.nets, graph.image[1:])
    before = our_sample(pack, one, 2), our_sample(pack, second, 2), our_sample(pack, one, 2, model=graph.plain)
    assert not torch.equal(before[0], before[2])
    # A branch of a branch, with RNet twice, and a clone: neither is seen upstream.
    twice = refine(pack, one.model, graph.nets, one.condition)
    rnet = graph.nets.parts["refinement"].model
    assert calls_of(rnet, lambda: our_sample(pack, one, 2, model=twice.clone()))[0] == 4
    after = our_sample(pack, one, 2), our_sample(pack, second, 2), our_sample(pack, one, 2, model=graph.plain)
    assert all(map(torch.equal, before, after))


def test_rnet_is_loaded_and_dropped_with_the_model(pack, graph, one):
    import comfy.model_management as mm

    rnet = graph.nets.parts["refinement"]

    def loaded():
        return any(rnet.is_clone(entry.model) for entry in mm.current_loaded_models)

    seen = []
    hook = rnet.model.register_forward_hook(lambda *_: seen.append(loaded()))
    try:
        mm.unload_all_models()
        our_sample(pack, one, 1, model=graph.plain)
        assert not loaded()  # only who asks for RNet pays for it
        for sample in (our_sample, lambda *given: custom_sample(*given[:2], *recipe(pack, graph, 1))):
            mm.unload_all_models()
            assert not loaded()
            sample(pack, one, 1)
            assert loaded()
    finally:
        hook.remove()
    assert seen == [True, True]
    assert any(rnet.is_clone(nested) for nested in one.model.clone().get_nested_additional_models())


def test_latents_are_decoded_alike_on_every_host(pack, graph):
    """Hosts before 0.3.60 have no pixel-space VAE; there the loader gives one of its own."""
    latent = {"samples": torch.linspace(-1.2, 1.2, 3 * 16 * 24).view(1, 3, 16, 24)}
    own, given = pack.load("nodes.host.latents").PixelVAE(), run(pack, "JoReSLoadModel", model_name=SHIPPED)[2]
    for vae in (own, given):
        image = stock(pack.stock.VAEDecode, vae, latent)
        torch.testing.assert_close(image, ((latent["samples"] + 1) / 2).clamp(0, 1).movedim(1, -1), atol=1e-6, rtol=0)
        encoded = vae.encode(image)  # takes IMAGE, gives the latent itself
        torch.testing.assert_close(encoded, latent["samples"].clamp(-1, 1), atol=1e-6, rtol=0)
    assert stock(pack.stock.VAEDecodeTiled, own, latent, 64, 32).shape == (1, 16, 24, 3)
