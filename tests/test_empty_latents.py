"""The pack's VAE and a latent that no sampler has worked on: as refused as by 'Finish Enhancement'."""

from __future__ import annotations

import json

import pytest
import torch

from host.client import PromptError
from host.server import PACK
from tests.graphs import SHIPPED, SIZE, run, scene, stock

EMPTY = "VAE Decode: latent is still empty, no sampler has worked on it: is KSampler or .* bypassed"
BYPASSED = {"9": ["7", 2], "12": ["7", 2]}  # the samplers of the template, and what passes through them


@pytest.fixture(params=["the host's", "of older hosts"])
def vae(pack, request):
    if request.param == "of older hosts":
        return pack.load("nodes.host.latents").PixelVAE()
    return run(pack, "JoReSLoadModel", model_name=SHIPPED)[2]


def test_an_empty_latent_is_refused_whole_and_in_tiles(pack, vae):
    empty = torch.zeros(1, 3, *SIZE)
    partly = torch.cat([scene(0).movedim(-1, 1), empty])
    for samples in (empty, partly, empty.half()):
        with pytest.raises(ValueError, match=EMPTY):
            stock(pack.stock.VAEDecode, vae, {"samples": samples})
        with pytest.raises(ValueError, match=EMPTY):
            stock(pack.stock.VAEDecodeTiled, vae, {"samples": samples}, 512, 64)


@pytest.mark.parametrize("grey", [0.5, 0.49803922, 0.0, 1.0])
def test_a_picture_of_one_grey_is_a_picture(pack, vae, grey):
    """Of exactly 0.5 the latent is all zeros, too, after 'VAE Encode' or with nodes between."""
    image = torch.full((2, *SIZE, 3), grey)
    latent = stock(pack.stock.VAEEncode, vae, image)
    one = stock(pack.stock.LatentFromBatch, latent, 0, 1)
    turned = stock(pack.stock.LatentFlip, one, "y-axis: horizontally")
    for given in (latent, one, turned):
        made = stock(pack.stock.VAEDecode, vae, given)
        torch.testing.assert_close(made, image[: len(made)], atol=1e-6, rtol=0)
    finished = run(pack, "JoReSFinish", latent=latent, image=image, strength=1.0)[0]
    torch.testing.assert_close(finished, image, atol=1e-6, rtol=0)


def test_encoded_pictures_are_equal_to_what_they_were(pack, vae):
    image = torch.where(scene(0) > 0.1, 0.5, scene(0))
    encoded = stock(pack.stock.VAEEncode, vae, image)["samples"]
    assert torch.equal(encoded, image.movedim(-1, 1) * 2 - 1) and bool(encoded.eq(0).any())


@pytest.mark.parametrize("sampler", list(BYPASSED))
def test_the_template_with_a_bypassed_sampler_says_so(comfy_client, sampler):
    graph = json.loads((PACK / "workflows" / "api" / "stock_ksampler_rnet.json").read_text("utf-8"))
    for node in graph.values():
        for name, link in node["inputs"].items():
            if link == [sampler, 0]:
                node["inputs"][name] = BYPASSED[sampler]
    del graph[sampler]
    with pytest.raises(PromptError, match=EMPTY) as refused:
        comfy_client.run(graph)
    assert refused.value.details["node_type"] == "VAEDecode"
