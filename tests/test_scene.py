"""What a picture shows, in the proposal of its light (`jores.nets.scene`)."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from skimage import data
from torch import nn

from jores import picture_statistics
from jores.checkpoint import SHIPPED_SEGMENTER, SHIPPED_WEIGHTS, load_bundle
from jores.imaging.exposure import brightness_statistics
from jores.nets.exposure_head import LightMixture
from jores.nets.scene import SCENE_THUMBNAIL, SPREAD, SceneNet
from jores.semantics import load_segmenter
from jores.training.convert import to_tensor
from jores.training.expose import Expose, _taught
from jores.training.pairs import Pair
from tests.tiny import TINY, shaken

WITH_SCENE = replace(TINY, adjustment=replace(TINY.adjustment, light_bins=2, light_experts=2, scene=3))


@pytest.fixture(scope="module")
def released():
    return load_bundle(SHIPPED_WEIGHTS)


@pytest.fixture(scope="module")
def dark():
    """A free photograph in a tenth of its values, as (1, 3, H, W)."""
    return to_tensor(data.astronaut())[None] * 0.1


def test_a_net_that_was_never_fitted_has_nothing_to_say():
    assert not SceneNet(4)(torch.rand(2, 3, *SCENE_THUMBNAIL)).any()


def test_fitted_values_vary_alike_and_independently():
    net, mixing = SceneNet(4), torch.randn(256, 256)
    context = torch.randn(500, 256) @ mixing + torch.randn(256) * 3
    net.fit(context)
    values = net.projected(context)
    torch.testing.assert_close(values.mean(0), torch.zeros(4), atol=0.02, rtol=0)  # centre and components are rounded
    torch.testing.assert_close(values.T.cov(), SPREAD**2 * torch.eye(4), atol=0.02, rtol=0)


def test_the_encoder_sees_what_the_shipped_segmenters_does(dark):
    scene, segmenter = _taught(SceneNet(4)), load_segmenter(SHIPPED_SEGMENTER).model.net
    small = nn.functional.adaptive_avg_pool2d(dark, SCENE_THUMBNAIL)
    lit = small * (0.4 / (small * small.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1).mean())
    context = segmenter.encoded(lit.clamp(0, 1) * 2 - 1)[0].mean((2, 3))
    torch.testing.assert_close(scene.context(small), context, rtol=1e-4, atol=1e-5)


def test_a_fitted_net_is_not_taught_again():
    scene = SceneNet(4)
    scene.fit(torch.randn(50, 256))
    before = {key: value.clone() for key, value in scene.state_dict().items()}
    assert all(torch.equal(value, before[key]) for key, value in _taught(scene).state_dict().items())


@pytest.mark.slow
def test_a_picture_upside_down_is_as_bright_and_shows_something_else(released, dark):
    turned = dark.flip(2, 3)
    small = [nn.functional.adaptive_avg_pool2d(x, (48, 64)) for x in (dark, turned)]
    torch.testing.assert_close(*(brightness_statistics(x)[:, :12] for x in small), rtol=1e-3, atol=1e-3)
    first, second = (picture_statistics.wanted_exposure(released, x, None) for x in (dark, turned))
    assert (first / second).log().abs() > 0.003
    blind = released.anet.exposure_head
    torch.testing.assert_close(*(blind(x) for x in small), rtol=2e-3, atol=0)  # of no known scene


def test_the_scene_is_looked_at_once_for_exposure_and_shadows(released, dark, monkeypatch):
    calls, own = [], released.anet.scene.encoded
    monkeypatch.setattr(released.anet.scene, "encoded", lambda x: calls.append(1) or own(x))
    known = picture_statistics.global_statistics(released, dark, None)
    assert len(calls) == 1
    torch.testing.assert_close(
        known.exposure, picture_statistics.wanted_exposure(released, dark, None), rtol=1e-5, atol=0
    )


def test_the_proposal_of_a_big_picture_is_that_of_its_thumbnail(released, dark):
    whole = picture_statistics.wanted_exposure(released, dark, None)
    small = nn.functional.adaptive_avg_pool2d(dark, SCENE_THUMBNAIL)
    torch.testing.assert_close(picture_statistics.wanted_exposure(released, small, None), whole, rtol=0.01, atol=0)


def test_an_unknown_scene_is_an_average_one():
    mixture, pictures = LightMixture(2, 8, 3).eval(), torch.rand(2, 3, 48, 64) * 0.3
    with torch.no_grad():
        for p in mixture.parameters():
            p.add_(torch.randn(p.shape) * 0.3)
    torch.testing.assert_close(mixture(pictures), mixture(pictures, torch.zeros(2, 3)))
    assert not torch.allclose(mixture(pictures), mixture(pictures, torch.ones(2, 3)))


@pytest.mark.slow
def test_training_fits_the_scene_and_learns_by_it(tmp_path):
    """Light pictures are dim under one texture and bright under another, which the statistics tell apart less well."""
    rng, pairs = np.random.default_rng(1), []
    for i in range(8):
        cells = rng.integers(0, 60, (6, 8, 3))
        dark = np.kron(cells, np.ones((16, 16, 1))).astype(np.uint8)
        dark = dark if i % 2 else dark.transpose(1, 0, 2)[:96, :96]
        pairs.append(Pair(str(i), dark // 2 + 60 + 90 * (i % 2), dark // 8, group=i % 2))
    nets = shaken(WITH_SCENE)
    nets.anet.scene = SceneNet(3)
    stage = Expose(nets, pairs, None, pairs[:1], {"views": 1, "batch": 8, "lit": 0.1, "experts": [0, 1]})
    assert stage.scene.components.any()
    batch = stage.batch(rng)
    assert batch["known"].shape == (8, 23 + 3) and batch["known"][:, 23:].std() > 0.1
    head = stage.objective.net.heads[0].hidden
    stage.objective(batch)["loss"].backward()
    assert head.weight.grad[:, 23:].abs().sum() > 0
    with torch.no_grad():
        scores, _ = stage.validate(stage.objective.eval())
    assert np.isfinite(scores["score"])
    stage.export(stage.objective, tmp_path / "a.safetensors", {"stage": "expose"})
    saved = load_bundle(tmp_path / "a.safetensors").anet.scene
    assert torch.equal(saved.components, stage.scene.components)  # they were rounded before anything learned by them
