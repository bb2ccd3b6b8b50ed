"""What the nodes compute in: who chooses it, that it reaches every net, and how little it changes a picture."""

from __future__ import annotations

import gc
import weakref
from types import SimpleNamespace

import pytest
import torch

from tests.blocks import conditioned, ksample
from tests.graphs import run

SHIPPED = "jores-compact.safetensors (shipped)"


@pytest.fixture(autouse=True)
def free_choice(comfy_inprocess, monkeypatch):
    """A ComfyUI that was started without --force-fp32."""
    from comfy.cli_args import args

    monkeypatch.setattr(args, "force_fp32", False)
    return args


@pytest.fixture
def processor(pack, monkeypatch):
    """Lets a test say whether the processor has bfloat16."""
    precision = pack.load("jores.precision")
    return lambda has: monkeypatch.setattr(precision, "fast_in_bfloat16", lambda _device: has)


@pytest.fixture(scope="module")
def image(pack):
    return run(pack, "JoReSLoadExample", picture="coffee")[0][:, 100:190, 100:212]


def enhance(pack, image, **inputs):
    settings = {"exposure": 0.0, "strength": 1.0, "steps": 2, "seed": 0, "semantic": True, "model_name": SHIPPED}
    return run(pack, "JoReSEnhance", image=image, **settings, **inputs)[0]


def five_stages(pack, image, precision, sampler):
    names = {"model": SHIPPED, "segmenter": "deeplab-ade20k (shipped)"}
    model, nets, _ = run(pack, "JoReSLoadModel", model_name=names["model"], precision=precision)
    segmenter = run(pack, "JoReSLoadSegmenter", segmenter_name=names["segmenter"])[0]
    loaded = SimpleNamespace(model=model, nets=nets, segmenter=segmenter)
    refined, _condition, positive, negative, latent = conditioned(pack, loaded, image)
    if sampler == "stock":
        made = {"samples": ksample(pack, refined, positive, negative, latent)}
    else:
        made = run(pack, "JoReSSample", model=refined, positive=positive, latent=latent, steps=4, seed=5, eta=0.0)[0]
    return run(pack, "JoReSFinish", latent=made, image=image, strength=1.0)[0]


def levels(a, b):
    return (a - b).abs().max() * 255


def test_one_block_in_bfloat16_is_the_library_in_bfloat16_and_a_level_from_float32(pack, image):
    exact, quick = (enhance(pack, image, precision=name) for name in ("float32", "bfloat16"))
    assert 0 < levels(quick, exact) <= 1.5 and quick.dtype == torch.float32
    assert torch.equal(enhance(pack, image, precision="float32"), exact)  # the nets of before are not changed
    library = pack.checkpoint.load_bundle(pack.checkpoint.SHIPPED_WEIGHTS)
    pack.load("jores.precision").reduce_precision(library, "bfloat16")
    segmenter = pack.load("jores.semantics").load_segmenter(pack.checkpoint.SHIPPED_SEGMENTER)
    options = pack.load("jores.options").SampleOptions(steps=2, seed=0)
    with torch.inference_mode():
        wanted = pack.pipeline.enhance(image.movedim(-1, 1), library, segmenter, options)
    assert levels(quick, wanted.movedim(1, -1)) <= 1.5  # the host's layers round scales of norms, too


@pytest.mark.parametrize("sampler", ["own", "stock"])
def test_the_stages_and_a_stock_sampler_are_a_level_from_float32(pack, image, sampler):
    exact, quick = (five_stages(pack, image, name, sampler) for name in ("float32", "bfloat16"))
    assert 0 < levels(quick, exact) <= 2.0


@pytest.mark.parametrize("option", ["force_fp32", "fp32_unet"])
def test_auto_is_what_processor_and_host_want(pack, image, processor, free_choice, monkeypatch, option):
    exact, quick = (enhance(pack, image, precision=name) for name in ("float32", "bfloat16"))
    processor(has=False)
    assert torch.equal(enhance(pack, image), exact)
    unload()
    processor(has=True)
    assert torch.equal(enhance(pack, image), quick)
    unload()
    monkeypatch.setattr(free_choice, option, True)
    assert torch.equal(enhance(pack, image), exact)
    assert torch.equal(enhance(pack, image, precision="bfloat16"), quick)  # said in the graph: it counts


def test_what_runs_after_the_nodes_computes_as_before(pack, image):
    """ComfyUI runs a whole prompt in one inference mode, whose end would hide what a node left switched on."""
    with torch.inference_mode():
        for sampler in ("own", "stock"):
            five_stages(pack, image, "bfloat16", sampler)
            assert not torch.is_autocast_enabled("cpu"), sampler
        enhance(pack, image, precision="bfloat16")
        assert not torch.is_autocast_enabled("cpu") and (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


def test_nets_of_two_precisions_stay_loaded_side_by_side_and_go_with_their_patchers(pack, image):
    import comfy.model_management as mm

    kept, path = pack.load("nodes.host.kept"), pack.load("nodes.host.folders").bundle_path(SHIPPED)
    unload()
    nets = {}
    for name in ("float32", "bfloat16", "float32", "bfloat16"):
        enhance(pack, image, precision=name)
        assert nets.setdefault(name, kept.kept_nets(path, name)) is kept.kept_nets(path, name)
    assert len(mm.current_loaded_models) == 9  # twice four nets, and the segmenter
    alive = [weakref.ref(patcher.model) for both in nets.values() for patcher in both.parts.values()]
    gc.disable()
    try:
        nets.clear()
        unload()
        assert [net() for net in alive] == [None] * 8
    finally:
        gc.enable()


def test_a_device_without_bfloat16_is_named(pack, monkeypatch):
    nets = pack.checkpoint.load_bundle(pack.checkpoint.SHIPPED_WEIGHTS, parts=("decomposition",))
    reduce = pack.load("jores.precision").reduce_precision
    with pytest.raises(ValueError, match="meta devices cannot compute in bfloat16: choose auto or float32"):
        reduce(nets, "bfloat16", torch.device("meta"))
    reduce(nets, "auto", torch.device("meta"))


def unload():
    """As the button "Unload Models" does: the host, and the pack with it, forgets the nets."""
    import comfy.model_management as mm

    mm.unload_all_models()
