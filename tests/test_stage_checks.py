"""The stages of the library one by one: what they refuse, and what can be done with what they return."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from jores import pipeline
from jores.checkpoint import SHIPPED_SEGMENTER, SHIPPED_WEIGHTS, CheckpointError, load_bundle, save_bundle
from jores.semantics import load_segmenter
from tests.flat import flat

pytestmark = pytest.mark.slow
DARK = torch.rand(1, 3, 32, 48, generator=torch.Generator().manual_seed(0)) * 0.1


@pytest.fixture(scope="module")
def nets():
    return load_bundle(SHIPPED_WEIGHTS)


@pytest.fixture(scope="module")
def maps(nets):
    return pipeline.decompose(nets, DARK)


@pytest.mark.parametrize(
    ("pictures", "said"),
    [
        ((DARK * 2550).to(torch.uint8), "give floating-point numbers"),
        ((DARK * 2550).round(), "levels up to"),
        (DARK / 0, "NaN or infinite"),
        (DARK[0], "images must be"),
    ],
)
def test_every_stage_refuses_what_the_whole_refuses(nets, maps, pictures, said):
    segmenter = load_segmenter(SHIPPED_SEGMENTER)
    condition = pipeline.adjust(nets, maps)
    for stage in (
        lambda: pipeline.enhance(pictures, nets),
        lambda: pipeline.decompose(nets, pictures),
        lambda: pipeline.segment(segmenter, pictures),
        lambda: flat(pipeline.sample)(nets, condition, low=pictures, steps=1),
    ):
        with pytest.raises(ValueError, match=said):
            stage()


@pytest.mark.parametrize(
    ("dial", "said"),
    [
        ({"denoise": 2.0}, "denoise must be between 0 and 1"),
        ({"denoise": float("nan")}, "denoise must be between 0 and 1, not nan"),
        ({"brightness": 99.0}, "brightness must be between"),
        ({"illumination": torch.full((1, 1, 32, 48), float("nan"))}, "illumination holds NaN"),
        ({"illumination": torch.full((1, 1, 32, 48), 200.0)}, "illumination holds levels up to 200"),
    ],
)
def test_dials_of_anet_out_of_range(nets, maps, dial, said):
    with pytest.raises(ValueError, match=said):
        pipeline.adjust(nets, maps, **dial)


def test_a_condition_of_other_pictures(nets, maps):
    condition = pipeline.adjust(nets, maps)
    for low in (DARK[..., :16], DARK[:, :, :16]):
        with pytest.raises(ValueError, match="give both of the same pictures"):
            flat(pipeline.sample)(nets, condition, low=low, steps=1)


def test_results_can_be_trained_on_and_changed_in_place(nets):
    bright = flat(pipeline.enhance)(DARK, nets, steps=1)
    weight = torch.ones(3, 1, 1, requires_grad=True)
    (bright * weight).sum().backward()
    assert weight.grad is not None and not bright.requires_grad
    assert bright.clamp_(0, 0.5).amax() <= 0.5


def test_a_bundle_of_an_earlier_stage_says_what_it_lacks(nets, tmp_path):
    path = tmp_path / "adjust.safetensors"
    save_bundle(path, replace(nets, denoiser=None, refinement=None))
    with pytest.raises(
        CheckpointError, match="holds no denoiser net: it is the bundle of an earlier stage of training"
    ):
        load_bundle(path)
    assert load_bundle(path, parts=("decomposition", "adjustment")).adjustment is not None
