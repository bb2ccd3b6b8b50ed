"""The nodes where the host has an accelerator: nets are loaded to it, pictures come from main memory and go back."""

from __future__ import annotations

import pytest
import torch

from tests.blocks import STEPS, conditioned, ksample, picture, to_bchw
from tests.flat import flat
from tests.graphs import run
from tests.other_device import DEVICE, METAL, Elsewhere, other_device


@pytest.fixture(scope="module", autouse=True)
def accelerator(comfy_inprocess):
    """The host believes in a device "meta"; what it would ask CUDA about it is answered here."""
    import comfy.model_management as mm

    room = 8 * 2**30
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mm, "get_torch_device", lambda: DEVICE)
        patch.setattr(mm, "get_total_memory", lambda *_args, **_kwargs: room)
        patch.setattr(
            mm, "get_free_memory", lambda _dev=None, torch_free_too=False: (room, room) if torch_free_too else room
        )
        with other_device():
            yield
            mm.unload_all_models()


@pytest.mark.parametrize("model", ["compact"], indirect=True)
def test_the_blocks_and_the_stock_sampler(pack, model):
    image = picture(batch=2)
    library = flat(pack.pipeline.enhance)(to_bchw(image), model.library, model.segmenter.model, steps=STEPS, seed=7)
    refined, condition, positive, negative, latent = conditioned(pack, model, image)
    sampled = run(pack, "JoReSSample", model=refined, positive=positive, latent=latent, steps=STEPS, seed=7, eta=0.0)[0]
    assert isinstance(next(model.model.model.diffusion_model.parameters()), Elsewhere)  # it was loaded indeed
    blocks = run(pack, "JoReSFinish", latent=sampled, image=image, strength=1.0)[0]
    assert blocks.device.type == "cpu" and (to_bchw(blocks) - library).abs().max() < 1e-4
    assert ksample(pack, refined, positive, negative, latent).device.type == "cpu"
    assert torch.isfinite(condition.condition.picture).all()


@pytest.mark.parametrize("model", ["compact"], indirect=True)
def test_in_tiles_and_as_one_block(pack, model):
    image = picture(size=(80, 100))
    low, segmenter, options = to_bchw(image), model.segmenter.model, {"steps": 1, "seed": 7, "tile": 64}
    library = model.library
    prior = pack.pipeline.segment(segmenter, low, library)
    condition = pack.pipeline.adjust(library, pack.pipeline.decompose(library, low))
    x0 = flat(pack.pipeline.sample)(library, condition, prior, low=low, **options)
    expected = pack.pipeline.finish(x0, low)
    refined, _condition, positive, _negative, latent = conditioned(pack, model, image)
    sampled = run(pack, "JoReSSample", model=refined, positive=positive, latent=latent, eta=0.0, **options)[0]
    blocks = run(pack, "JoReSFinish", latent=sampled, image=image, strength=1.0)[0]
    assert (to_bchw(blocks) - expected).abs().mean() < 1e-3
    expected = flat(pack.pipeline.enhance)(low, library, segmenter, **options)
    inputs = {"model_name": "compact.safetensors", "exposure": 0.0, "strength": 1.0, "semantic": True}
    one = run(pack, "JoReSEnhance", image=image, mask=torch.ones(1, 80, 100), **inputs, **options)[0]
    assert one.device.type == "cpu"
    torch.testing.assert_close(to_bchw(one), expected, atol=1e-4, rtol=0)


def test_bright_pictures_on_a_device_without_float64(pack):  # noqa: F811
    """Before: pictures with levels of 2 and more, as in HDR, ended the node on Apple's GPUs."""
    check = pack.load("nodes.host.pictures").check_range
    bright = torch.rand(1, 8, 8, 3, generator=torch.Generator().manual_seed(0))
    bright[0, 0, 0] = 5.5
    with other_device(METAL):
        check(bright.to(DEVICE), "image")
        with pytest.raises(ValueError, match="divide by 255"):
            check((bright * 40).to(DEVICE), "image")
