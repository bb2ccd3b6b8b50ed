"""Big pictures on the graph: the blocks in tiles give what the library gives, and ask for a tile's memory."""

from __future__ import annotations

import importlib
from types import SimpleNamespace

import pytest
import torch

from tests.flat import flat

SIZE, TILE = (150, 180), 96
SHIPPED = "jores-compact.safetensors (shipped)"
SEGMENTER = "deeplab-ade20k (shipped)"


@pytest.fixture(scope="module")
def pack(jores_pack_nodes):
    load = lambda name: importlib.import_module(f"jores_pack.{name}")  # noqa: E731
    pipeline, checkpoint = load("jores.pipeline"), load("jores.checkpoint")
    return SimpleNamespace(nodes=jores_pack_nodes, load=load, pipeline=pipeline, checkpoint=checkpoint)


def run(pack, node_id, **inputs):
    with torch.inference_mode():
        return pack.nodes[node_id].execute(**inputs).result


@pytest.fixture(scope="module")
def image():
    y, x = torch.meshgrid(torch.linspace(0, 1, SIZE[0]), torch.linspace(0, 1, SIZE[1]), indexing="ij")
    scene = torch.stack([0.2 + 0.6 * x, 0.3 + 0.4 * y, 0.8 - 0.5 * x], -1) * (0.05 + 0.2 * x * y)[..., None]
    noise = torch.randn(2, *scene.shape, generator=torch.Generator().manual_seed(0)) * 0.005
    return (scene + noise).clamp(0, 1)


@pytest.fixture(scope="module")
def graph(pack, image):
    """The shipped model up to the sampler, for a batch of two."""
    model, nets, _vae = run(pack, "JoReSLoadModel", model_name=SHIPPED)
    segmenter = run(pack, "JoReSLoadSegmenter", segmenter_name=SEGMENTER)[0]
    retinex = run(pack, "JoReSDecompose", nets=nets, image=image)[0]
    condition = run(pack, "JoReSAdjust", nets=nets, retinex=retinex, exposure=0.0, denoise=1.0)[0]
    seen = {"segmenter": segmenter, "image": image, "class_name": "sky", "condition": condition}
    prior = run(pack, "JoReSSegment", **seen)[0]
    positive, _negative, latent = run(pack, "JoReSCondition", condition=condition, semantic=prior)
    refined = run(
        pack, "JoReSApplyRefinement", model=model, nets=nets, condition=condition, start_percent=0.0, end_percent=1.0
    )[0]  # fmt: skip
    return SimpleNamespace(
        model=refined, plain=model, nets=nets, positive=positive, latent=latent, segmenter=segmenter.model
    )


def psnr(a, b):
    return -10 * torch.log10((a - b).square().mean())


def test_the_blocks_in_tiles_give_what_the_library_gives(pack, graph, image, monkeypatch):
    library, low = pack.checkpoint.load_bundle(pack.checkpoint.SHIPPED_WEIGHTS), image.movedim(-1, 1)
    eta = 0.5  # fresh noise, too, belongs to the whole picture
    net = type(graph.model.model.diffusion_model).__mro__[1]  # the host's one asks for R' x L' by the same call
    seen, forward = [], net.forward

    def watched(self, x, *args, **kwargs):
        seen.append(tuple(x.shape[-2:]))
        return forward(self, x, *args, **kwargs)

    monkeypatch.setattr(net, "forward", watched)
    inputs = {"model": graph.model, "positive": graph.positive, "latent": graph.latent, "steps": 2, "seed": 3}
    tiled = run(pack, "JoReSSample", eta=eta, tile=TILE, **inputs)[0]
    assert len(seen) > 2 * 2 * 4 and max(map(max, seen)) <= TILE
    seen.clear()
    whole = run(pack, "JoReSSample", eta=eta, **inputs)[0]
    assert seen == [SIZE] * 4
    tiled, whole = (run(pack, "JoReSFinish", latent=x, image=image, strength=1.0)[0] for x in (tiled, whole))
    condition = pack.pipeline.adjust(library, pack.pipeline.decompose(library, low))  # as the graph's: of the whole
    alone = [pack.pipeline.segment(graph.segmenter, one, library) for one in low.split(1)]  # as the node does
    prior = pack.load("jores.conditions").join_frames(alone)
    x0 = flat(pack.pipeline.sample)(library, condition, prior, low=low, steps=2, seed=3, eta=eta, tile=TILE)
    expected = pack.pipeline.finish(x0, low)
    assert psnr(tiled.movedim(-1, 1), expected) > 65  # a tenth of an 8-bit level
    assert psnr(tiled, whole) > 45
    assert not torch.equal(tiled, whole)


def test_the_one_block_in_tiles_and_at_a_working_size(pack, graph, image):
    library, low = pack.checkpoint.load_bundle(pack.checkpoint.SHIPPED_WEIGHTS), image[:1].movedim(-1, 1)
    inputs = {"exposure": 0.0, "strength": 1.0, "steps": 1, "seed": 0, "semantic": True, "model_name": SHIPPED}
    for options in ({"tile": TILE}, {"working_size": 90}):
        result = run(pack, "JoReSEnhance", image=image[:1], **inputs, **options)[0]
        expected = flat(pack.pipeline.enhance)(low, library, graph.segmenter, steps=1, **options)
        torch.testing.assert_close(result.movedim(-1, 1), expected, atol=1e-4, rtol=0)
    with pytest.raises(ValueError, match="tile must be 0 or at least 64"):
        run(pack, "JoReSEnhance", image=image, **inputs, tile=20)


def test_memory_is_asked_for_a_tile(pack, graph):
    """What the host computes before it loads the model, from the conditioning that the sampler node makes."""
    sampler_helpers = importlib.import_module("comfy.sampler_helpers")
    frame_of, shape = pack.load("nodes.diffusion").frame_of, (1, 3, 6000, 8000)

    def asked(tile):
        conds = {"positive": sampler_helpers.convert_cond(frame_of(graph.positive, 0, tile))}
        return sampler_helpers.estimate_memory(graph.model, shape, conds)[1]

    assert asked(512) == pytest.approx(asked(256) * 4, rel=1e-6)
    assert asked(0) < 4 * 2**30  # what a picture that does not fit is cut into


def test_stock_samplers_do_what_does_not_fit_in_tiles(pack, graph, monkeypatch, comfy_inprocess):
    """The net is blended at every step, RNet too; the memory is that of a tile."""
    seen, net = [], graph.model.model.diffusion_model
    rnet, fold = graph.model.additional_models["jores_refinement"][0].model, net.config.fold
    hooks = [
        part.register_forward_pre_hook(lambda _net, args, side=side: seen.append(side * max(args[0].shape[-2:])))
        for part, side in ((net.stem, fold), (rnet, 1))
    ]

    def sampled():
        with torch.inference_mode():
            return comfy_inprocess.nodes.KSampler().sample(
                graph.model, 3, 2, 1.0, "euler", "simple", graph.positive, graph.positive, graph.latent
            )[0]["samples"]

    try:
        whole = sampled()
        assert len(seen) == 4 and min(seen) >= max(SIZE)
        seen.clear()
        for name in ("host.model", "host.refinement"):
            module = pack.load(f"nodes.{name}")
            monkeypatch.setattr(module, "tiler_of", lambda *_: pack.load("jores.tiling.tiler").Tiler(TILE))
        tiled = sampled()
    finally:
        for hook in hooks:
            hook.remove()
    assert len(seen) > 4 * 4 and max(seen) <= TILE
    assert psnr(tiled / 2, whole / 2) > 45 and not torch.equal(tiled, whole)


@pytest.mark.parametrize("region", ["masks", "areas"])
def test_regions_of_the_host_with_a_light_of_their_own(pack, graph, image, region, comfy_inprocess):
    """Two conditionings, joined by stock nodes: in tiles, too, and with a mask for every frame."""
    nodes = comfy_inprocess.nodes
    retinex = run(pack, "JoReSDecompose", nets=graph.nets, image=image)[0]
    lights, left = [], torch.zeros(2, *SIZE)
    left[0, :, :70] = left[1, :, 70:] = 1
    for place, exposure in enumerate((0.3, 0.6)):
        condition = run(pack, "JoReSAdjust", nets=graph.nets, retinex=retinex, exposure=exposure, denoise=1.0)[0]
        light = run(pack, "JoReSCondition", condition=condition)[0]
        if region == "masks":
            mask = 1 - left if place else left
            lights += nodes.ConditioningSetMask().append(light, mask, "default", 1.0)[0]
        else:
            lights += nodes.ConditioningSetAreaPercentage().append(light, 0.5, 1.0, place / 2, 0, 1.0)[0]
    inputs = {"model": graph.plain, "positive": lights, "latent": graph.latent, "steps": 1, "seed": 0, "eta": 0.0}
    whole, tiled = (run(pack, "JoReSSample", tile=tile, **inputs)[0]["samples"] for tile in (0, TILE))
    assert psnr(tiled / 2, whole / 2) > 40
    if region == "masks":
        means = [[float(frame[..., part].mean()) for part in (slice(60), slice(80, None))] for frame in whole]
        assert means[0][0] < means[0][1] and means[1][0] > means[1][1]


def test_memory_that_runs_out_halves_the_tile_of_the_sampler(pack, graph, image):
    """A real exception from inside the native model; the conditioning is then cut on the fly."""
    inputs = {"model": graph.model, "positive": graph.positive, "latent": graph.latent, "steps": 1, "seed": 3}
    whole = run(pack, "JoReSSample", eta=0.0, **inputs)[0]["samples"]

    def small_device(_net, args):
        if args[0].shape[-1] > 100:
            raise torch.cuda.OutOfMemoryError("out of memory")

    hook = graph.model.model.diffusion_model.register_forward_pre_hook(small_device)
    try:
        halved = run(pack, "JoReSSample", eta=0.0, **inputs)[0]["samples"]
    finally:
        hook.remove()
    assert psnr(halved / 2, whole / 2) > 45


def test_an_area_of_the_host_gets_its_own_part_of_the_semantic_map(pack, comfy_inprocess):
    """The cut map, resized by the net to its own cells, is what the whole map shows there."""
    conds, resize = pack.load("nodes.host.conds"), pack.load("jores.imaging.resize").resize_map
    coarse = torch.rand(1, 2, 12, 16)
    cond = conds.CoarseMap(coarse, (96, 128))
    part = cond.process_cond(batch_size=1, area=(48, 64, 16, 32)).cond
    torch.testing.assert_close(part, resize(coarse, (12, 16))[..., 2:8, 4:12])
    assert torch.equal(cond.process_cond(batch_size=3, area=None).cond, coarse.expand(3, -1, -1, -1))
