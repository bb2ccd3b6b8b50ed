"""The input `texture` in the graph: what a flow draws is mixed with R' x L', as in the library."""

from __future__ import annotations

import importlib
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

pytestmark = pytest.mark.slow

SIZE, SEED, STEPS = (48, 64), 5, 3
NAME = "texture.safetensors"


@pytest.fixture(scope="module")
def pack(jores_pack_nodes, comfy_inprocess):
    load = lambda name: importlib.import_module(f"jores_pack.{name}")  # noqa: E731
    custom = importlib.import_module("comfy_extras.nodes_custom_sampler")
    samplers = importlib.import_module("comfy.samplers")
    return SimpleNamespace(
        nodes=jores_pack_nodes, stock=comfy_inprocess.nodes, base=comfy_inprocess.base, load=load, custom=custom,
        samplers=samplers,
    )  # fmt: skip


@pytest.fixture(scope="module")
def graph(pack):
    """A small flow with random weights, loaded by the node, up to the sampler."""
    library, presets = pack.load("jores.checkpoint"), pack.load("jores.config").PRESETS
    texture = presets["texture"]
    narrow = replace(texture.denoiser, widths=(16, 24, 32))
    torch.manual_seed(0)
    nets = library.build(replace(texture, denoiser=narrow))
    torch.nn.init.normal_(nets.unet.head.weight, std=0.1)
    folder = pack.base / "models" / "jores"
    folder.mkdir(exist_ok=True)
    library.save_bundle(folder / NAME, nets)
    model, loaded, _vae = run(pack, "JoReSLoadModel", model_name=NAME)
    image = torch.rand(1, *SIZE, 3, generator=torch.Generator().manual_seed(1)) * 0.12
    condition = exposed(pack, SimpleNamespace(nets=loaded, image=image), 0.4)
    positive, _, latent = run(pack, "JoReSCondition", condition=condition)
    return SimpleNamespace(
        model=model, nets=loaded, image=image, condition=condition, positive=positive, latent=latent,
        library=library.load_bundle(folder / NAME), mean=condition.condition.picture * 2 - 1,
    )  # fmt: skip


def run(pack, node_id, **inputs):
    with torch.inference_mode():
        return pack.nodes[node_id].execute(**inputs).result


def refined(pack, graph, texture, model=None):
    return run(
        pack, "JoReSApplyRefinement", model=model or graph.model, nets=graph.nets, condition=graph.condition,
        start_percent=0.0, end_percent=1.0, texture=texture,
    )[0]  # fmt: skip


def ours(pack, graph, texture, *, tile=0, positive=None):
    return run(
        pack, "JoReSSample", model=refined(pack, graph, 0.9), positive=positive or graph.positive, latent=graph.latent,
        steps=STEPS, seed=SEED, eta=0.0, tile=tile, texture=texture,
    )[0]["samples"]  # fmt: skip


def exposed(pack, graph, exposure):
    retinex = run(pack, "JoReSDecompose", nets=graph.nets, image=graph.image)[0]
    return run(pack, "JoReSAdjust", nets=graph.nets, retinex=retinex, exposure=exposure, denoise=1.0)[0]


def stock(pack, graph, sampler, model, sigmas=None, latent=None):
    """SamplerCustomAdvanced's `output`; its sigmas are those of 'Schedule JoReS Sigmas' unless given."""
    return both_outputs(pack, graph, sampler, model, sigmas, latent)[0]


def both_outputs(pack, graph, sampler, model, sigmas=None, latent=None):
    """`output` and `denoised_output`, in this order."""
    call = lambda node, *inputs: (node.execute if hasattr(node, "execute") else getattr(node(), node.FUNCTION))(*inputs)  # noqa: E731
    results = lambda outputs: getattr(outputs, "result", outputs)  # noqa: E731
    first = lambda outputs: results(outputs)[0]  # noqa: E731
    with torch.inference_mode():
        guider = first(call(pack.custom.BasicGuider, model, graph.positive))
        noise = first(call(pack.custom.RandomNoise, SEED))
        sigmas = run(pack, "JoReSSigmas", model=graph.model, steps=STEPS)[0] if sigmas is None else sigmas
        latent = graph.latent if latent is None else latent
        made = results(call(pack.custom.SamplerCustomAdvanced, noise, guider, sampler, sigmas, latent))
        return made[0]["samples"], made[1]["samples"]


@pytest.mark.parametrize("texture", [0.0, 0.3, 1.0])
def test_the_sample_node_gives_the_librarys_picture(pack, graph, texture):
    options = pack.load("jores.options").SampleOptions(STEPS, SEED, texture=texture)
    expected = pack.load("jores.pipeline").sample(
        graph.library, graph.condition.condition, None, options, low=graph.condition.low
    )
    torch.testing.assert_close(ours(pack, graph, texture), expected, atol=1e-5, rtol=0)


def test_tiles_mix_alike(pack, graph):
    full, tiled = ours(pack, graph, 0.3), ours(pack, graph, 0.3, tile=64)
    mean, drawn = ours(pack, graph, 0.0, tile=64), ours(pack, graph, 1.0, tile=64)
    torch.testing.assert_close(full, tiled, atol=1e-5, rtol=0)  # one tile covers it
    torch.testing.assert_close(tiled, torch.lerp(mean, drawn, 0.3), atol=1e-5, rtol=0)


def test_select_sampler_takes_its_own_texture(pack, graph):
    sampler = run(pack, "JoReSSampler", eta=0.0, texture=0.3)[0]
    given = stock(pack, graph, sampler, refined(pack, graph, 0.9))
    torch.testing.assert_close(given, ours(pack, graph, 0.3), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["euler", "ddim", "heunpp2", "dpmpp_2m"])
def test_apply_rnet_mixes_for_stock_samplers(pack, graph, name):
    sampler = pack.samplers.sampler_object(name)
    none, some, full = (stock(pack, graph, sampler, refined(pack, graph, texture)) for texture in (0.0, 0.3, 1.0))
    torch.testing.assert_close(none, graph.mean, atol=1e-4, rtol=0)
    assert (full - graph.mean).abs().mean() > 0.005
    torch.testing.assert_close(some, torch.lerp(graph.mean, full, 0.3), atol=1e-4, rtol=0)


STOCK = ["euler", "heunpp2", "dpmpp_2m", "dpmpp_sde", "lcm", "uni_pc", "dpm_fast", "dpm_adaptive"]


@pytest.mark.parametrize("name", STOCK)
def test_denoised_output_has_the_texture_of_the_output(pack, graph, name):
    if name not in pack.samplers.KSampler.SAMPLERS:
        pytest.skip("this host has no such sampler")
    sampler = pack.samplers.sampler_object(name)
    sigmas = pack.samplers.calculate_sigmas(graph.model.get_model_object("model_sampling"), "karras", 6)
    outputs = {t: both_outputs(pack, graph, sampler, refined(pack, graph, t), sigmas) for t in (0.3, 1.0)}
    full = outputs[1.0][1]
    usual = float((full - outputs[1.0][0]).abs().mean())  # dpm_adaptive ends before sigma 0
    assert (full - graph.mean).abs().mean() > 0.005
    for texture, (output, denoised) in outputs.items():
        torch.testing.assert_close(denoised, torch.lerp(graph.mean, full, texture), atol=1e-3, rtol=0)
        assert (denoised - output).abs().mean() <= usual + 1e-3


@pytest.mark.parametrize("texture", [0.0, 0.3])
def test_denoised_output_in_the_midst_of_the_steps_has_the_texture_and_the_rest_goes_on(pack, graph, texture):
    """Of SplitSigmas' first part: `output` is still noisy, and what follows must not know of the interpolation."""
    sampler, steps = pack.samplers.sampler_object("euler"), run(pack, "JoReSSigmas", model=graph.model, steps=STEPS)[0]
    full = both_outputs(pack, graph, sampler, refined(pack, graph, 1.0), steps[:3])
    noisy, denoised = both_outputs(pack, graph, sampler, refined(pack, graph, texture), steps[:3])
    torch.testing.assert_close(denoised, torch.lerp(graph.mean, full[1], texture), atol=1e-4, rtol=0)
    assert torch.equal(noisy, full[0])


@pytest.mark.parametrize("recipe", ["ours", "stock"])
@pytest.mark.parametrize("share", [0.5, "half of the picture"])
def test_denoised_output_keeps_the_latent_outside_of_its_noise_mask(pack, graph, recipe, share):
    mask = torch.full((1, 1, *SIZE), share) if share == 0.5 else torch.ones(1, 1, *SIZE)
    if share != 0.5:
        mask[..., : SIZE[1] // 2] = 0
    latent = {**graph.latent, "samples": torch.full((1, 3, *SIZE), -0.5), "noise_mask": mask}
    own = run(pack, "JoReSSampler", eta=0.0, texture=0.3)[0]
    sampler = own if recipe == "ours" else pack.samplers.sampler_object("euler")
    output, denoised = both_outputs(pack, graph, sampler, refined(pack, graph, 0.3), latent=latent)
    torch.testing.assert_close(denoised, output, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["uni_pc", "uni_pc_bh2"])
def test_samplers_that_write_into_the_sigmas_do_it_in_a_copy(pack, graph, name):
    sampler = pack.samplers.sampler_object(name)
    sigmas = run(pack, "JoReSSigmas", model=graph.model, steps=STEPS)[0]
    before = sigmas.clone()
    given = stock(pack, graph, sampler, refined(pack, graph, 0.0), sigmas)
    torch.testing.assert_close(given, graph.mean, atol=1e-4, rtol=0)
    assert torch.equal(sigmas, before), "the host keeps them for the next prompt"


def test_the_mean_is_that_of_the_conditioning_which_is_in_force_at_the_end(pack, graph):
    """Of two exposures for two ranges of steps, as ConditioningSetTimestepRange gives them."""
    other = exposed(pack, graph, 0.2)
    ranges = [
        [part, {**options, "start_percent": start, "end_percent": end}]
        for (part, options), start, end in (
            (graph.positive[0], 0.0, 0.6), (run(pack, "JoReSCondition", condition=other)[0][0], 0.6, 1.0)
        )
    ]  # fmt: skip
    both = SimpleNamespace(**{**vars(graph), "positive": ranges})
    sampler = pack.samplers.sampler_object("euler")
    given = stock(pack, both, sampler, refined(pack, graph, 0.0))
    torch.testing.assert_close(given, other.condition.picture * 2 - 1, atol=1e-4, rtol=0)


@pytest.mark.parametrize("texture", [0.3, 1.0])
def test_of_two_nodes_in_a_row_the_last_decides(pack, graph, texture):
    sampler = pack.samplers.sampler_object("euler")
    twice = refined(pack, graph, texture, refined(pack, graph, 0.0))
    first = refined(pack, graph, 1.0, graph.model)
    full = stock(pack, graph, sampler, refined(pack, graph, 1.0, first))  # RNet twice, as there
    torch.testing.assert_close(
        stock(pack, graph, sampler, twice), torch.lerp(graph.mean, full, texture), atol=1e-4, rtol=0
    )


def test_two_exposures_joined_by_masks_each_keep_their_own_mean(pack, graph):
    """The mean is blended as the host blends the conditionings, and not taken from one of them."""
    darker = exposed(pack, graph, 0.2)
    other = run(pack, "JoReSCondition", condition=darker)[0]
    left = torch.zeros(1, *SIZE)
    left[..., : SIZE[1] // 2] = 1
    both = [
        [part, {**options, "mask": mask, "mask_strength": 1.0, "set_area_to_bounds": False}]
        for (part, options), mask in ((graph.positive[0], left), (other[0], 1 - left))
    ]
    given = ours(pack, graph, 0.0, positive=both)
    means = graph.mean, darker.condition.picture * 2 - 1
    expected = torch.where(left[:, None] > 0, *means)
    torch.testing.assert_close(given, expected, atol=1e-4, rtol=0)


def test_enhance_has_the_same_dial(pack, graph):
    def enhanced(texture, steps=STEPS):
        return run(
            pack, "JoReSEnhance", image=graph.image, exposure=0.4, strength=1.0, steps=steps, seed=SEED, semantic=False,
            model_name=NAME, texture=texture,
        )[0]  # fmt: skip

    none, some, full = enhanced(0.0), enhanced(0.3), enhanced(1.0)
    torch.testing.assert_close(none, graph.mean.add(1).div(2).clamp(0, 1).movedim(1, -1), atol=1e-5, rtol=0)
    inside = (full > 0) & (full < 1) & (none > 0) & (none < 1)
    assert (some - torch.lerp(none, full, 0.3))[inside].abs().max() < 1e-5
    assert (full - none).abs().mean() > 0.002
