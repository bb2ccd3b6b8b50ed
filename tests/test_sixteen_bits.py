"""Where the host gives more than 8 bits, as newer ones do, no node rounds to 8: a dark gradient of 1/65535 steps."""

from __future__ import annotations

import importlib
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

HEIGHT, WIDTH = 96, 128
SHIPPED = "jores-compact.safetensors (shipped)"


@pytest.fixture(scope="module")
def pack(jores_pack_nodes, comfy_inprocess):
    load = lambda name: importlib.import_module(f"jores_pack.{name}")  # noqa: E731
    return SimpleNamespace(nodes=jores_pack_nodes, load=load)


def run(pack, node_id, **inputs):
    with torch.inference_mode():
        return pack.nodes[node_id].execute(**inputs).result


def gradient() -> Tensor:
    """(1, H, W, 3): every pixel 1/65535 above the one before it, from black to a fifth of white."""
    levels = torch.arange(HEIGHT * WIDTH, dtype=torch.float64) / 65535
    return levels.float().reshape(1, HEIGHT, WIDTH, 1).expand(-1, -1, -1, 3).contiguous()


def levels_of(image: Tensor) -> int:
    """How many of 65536 levels the green of an IMAGE has."""
    return len((image[..., 1] * 65535).round().unique())


def enhance(pack, image: Tensor, **inputs: object) -> Tensor:
    usual = {"exposure": 0.0, "strength": 1.0, "steps": 1, "seed": 0, "semantic": False, "model_name": SHIPPED}
    return run(pack, "JoReSEnhance", image=image, **usual | inputs)[0]


def test_the_gradient_has_more_levels_than_8_bits_hold():
    assert levels_of(gradient()) == HEIGHT * WIDTH
    assert levels_of((gradient() * 255).round() / 255) < 64


@pytest.mark.parametrize("quality", ["draft", "standard"])
def test_a_gradient_stays_itself_at_strength_0(pack, quality: str):
    torch.testing.assert_close(enhance(pack, gradient(), strength=0.0, quality=quality), gradient(), rtol=0, atol=0)


def test_a_gradient_stays_itself_outside_the_mask(pack):
    mask = torch.zeros(1, HEIGHT, WIDTH)
    mask[..., : WIDTH // 2] = 1
    result = enhance(pack, gradient(), mask=mask)
    assert torch.equal(result[:, :, WIDTH // 2 :], gradient()[:, :, WIDTH // 2 :])
    assert not torch.equal(result, gradient())


@pytest.mark.parametrize("quality", ["draft", "standard"])
def test_an_enhanced_gradient_is_as_fine(pack, quality: str):
    """Lifted, neighbouring levels lie further apart; rounded to 8 bits they would be 256 at most."""
    assert levels_of(enhance(pack, gradient(), quality=quality)) > HEIGHT * WIDTH // 4


def test_the_stages_keep_the_levels(pack):
    _model, nets, _vae = run(pack, "JoReSLoadModel", model_name=SHIPPED)
    retinex, reflectance, _l = run(pack, "JoReSDecompose", nets=nets, image=gradient())[:3]
    condition, cleaned, _l, preview = run(pack, "JoReSAdjust", nets=nets, retinex=retinex, exposure=0.4, denoise=0.0)
    for stage in (reflectance, cleaned, preview):
        assert levels_of(stage) > 1024
    latent = run(pack, "JoReSCondition", condition=condition)[2]
    latent["samples"] = latent["samples"] + 0.1  # a latent that is still empty is refused
    finished = run(pack, "JoReSFinish", latent=latent, image=gradient(), strength=0.0)[0]
    assert torch.equal(finished, gradient())


def test_a_comparison_keeps_the_levels(pack):
    (both,) = run(pack, "JoReSCompare", before=gradient(), after=gradient(), mode="side by side", position=0.5)
    assert torch.equal(both[:, :, :WIDTH], gradient()) and torch.equal(both[:, :, -WIDTH:], gradient())
