"""The shipped weights: every prior is really used, and the result is a good picture."""

from __future__ import annotations

import dataclasses
import json

import pytest
import skimage.data
import torch

from jores import pipeline
from jores.checkpoint import SHIPPED_WEIGHTS, load_bundle, read_header
from jores.commands.evaluate import mean_of
from jores.config import PRESETS
from jores.files.pictures import read_image
from jores.files.tables import pairs_of_table
from jores.imaging.exposure import luma, mean_luma
from jores.metrics.scores import score
from jores.nets.attention import RetinexAttention
from jores.training.convert import to_tensor
from jores.training.darkening import Darkening
from tests.benchmarks.ablation import without
from tests.flat import flat

pytestmark = pytest.mark.slow


def plain_shapes():
    """(3, 96, 128): a gradient and a plain rectangle on it."""
    y, x = torch.meshgrid(torch.linspace(0, 1, 96), torch.linspace(0, 1, 128), indexing="ij")
    picture = torch.stack([0.2 + 0.6 * x, 0.3 + 0.4 * y, 0.8 - 0.5 * x])
    picture[:, 20:60, 30:80] = torch.tensor([0.9, 0.5, 0.2]).view(3, 1, 1)
    return picture


def grain(picture):
    """Spread against mean inside the plain rectangle."""
    flat = picture[..., 28:52, 40:70]
    return float((flat.std(dim=(2, 3)) / flat.mean((2, 3))).mean())


@pytest.fixture(scope="module")
def scene(nets, segmenter):
    """A dark scene of plain shapes under sensor noise, its condition, its prior and its result."""
    generator, picture = torch.Generator().manual_seed(0), plain_shapes()
    low = ((picture * 0.08 + torch.randn(picture.shape, generator=generator) * 0.01).clamp(0, 1) * 255).round() / 255
    low = low[None]
    condition = pipeline.adjust(nets, pipeline.decompose(nets, low))
    prior = pipeline.segment(segmenter, low)
    return low, condition, prior, pipeline.sample(nets, condition, prior, low=low)


def test_the_header_tells_licence_data_and_training():
    config, metadata = read_header(SHIPPED_WEIGHTS)
    assert config == PRESETS["texture"] and {"licence", "data", "training"} <= metadata.keys()
    assert {r["stage"] for r in json.loads(metadata["training"])} >= {"decompose", "expose", "adjust", "diffuse"}
    assert SHIPPED_WEIGHTS.stat().st_size < 40e6
    assert sum(p.numel() for part in load_bundle(SHIPPED_WEIGHTS).parts().values() for p in part.parameters()) <= 15e6


def test_every_condition_changes_the_result(nets, scene):
    low, condition, prior, x0 = scene

    def moved(c=condition, p=prior, **kw):
        return float((flat(pipeline.sample)(nets, c, p, low=low, **kw) - x0).abs().mean())

    other = dataclasses.replace(prior, probabilities=prior.probabilities.roll(7, 1))
    dimmed = dataclasses.replace(condition, illumination=condition.illumination * 0.7)
    grey = dataclasses.replace(condition, reflectance=condition.reflectance.mean(1, keepdim=True).expand(-1, 3, -1, -1))
    featureless = dataclasses.replace(condition, features=tuple(f * 0 for f in condition.features))
    # These weights listen little to which class is where (see the model card), but they do not ignore it.
    assert moved(p=other) > 1e-6 and moved(p=None) > 1e-4
    assert moved(c=dimmed) > 0.05 and moved(c=grey) > 0.02 and moved(c=featureless) > 1e-3
    assert moved(refine=False) > 1e-3
    with without(nets.denoiser, RetinexAttention):
        assert moved() > 1e-4


def test_the_exposure_dial_is_obeyed(nets, segmenter, scene):
    low = scene[0]
    means = [float(mean_luma(flat(pipeline.enhance)(low, nets, segmenter, exposure=e))) for e in (0.3, 0.45, 0.6)]
    assert means == pytest.approx([0.3, 0.45, 0.6], abs=0.1) and means == sorted(means)


@pytest.mark.parametrize("gain", [1.0, 0.3, 0.05])
def test_a_brighter_exposure_never_gives_a_darker_picture(nets, gain):
    """Up to white; the nets have seen few targets above 0.8."""
    maps = pipeline.decompose(nets, plain_shapes()[None] * gain)
    wanted = torch.linspace(0.3, 1, 15)
    means = torch.cat([mean_luma(pipeline.adjust(nets, maps, exposure=e.view(1)).picture) for e in wanted])
    assert means.diff().min() > -1e-3 and means[-1] > 0.6


@pytest.mark.parametrize("share", [0.03, 0.1, 0.3, 0.6, 0.85, 0.95])
def test_a_picture_is_made_as_dark_as_it_is_told(nets, segmenter, share):
    """The nets have learned to brighten; below its own brightness a picture is dimmed, and looks like itself."""
    low = plain_shapes()[None]
    wanted = share * mean_luma(low)
    adjusted = pipeline.adjust(nets, pipeline.decompose(nets, low), exposure=wanted)
    assert torch.equal(adjusted.exposure, wanted)
    made = flat(pipeline.enhance)(low, nets, segmenter, exposure=wanted.item(), steps=2)
    for picture, close in ((adjusted.picture, 0.06), (made, 0.12)):  # what is drawn is not dimmed
        assert (mean_luma(picture) / wanted).item() == pytest.approx(1, abs=0.1)
        assert (picture / share - low).abs().mean() < close


def test_noise_is_gone(scene):
    low, _, _, x0 = scene
    assert grain((x0 + 1) / 2) < 0.3 * grain(low)


@pytest.mark.parametrize(("patch", "left"), [(1, 0.15), (3, 0.5)])
def test_the_grey_grain_of_cameras_is_gone(nets, patch, left):
    sensor = Darkening(1 / 30, 0.002, 0.006, (1.0, 1.0, 1.0), patch=patch, chroma=0.1)
    low = sensor(plain_shapes(), torch.Generator().manual_seed(0))[None]
    assert grain(pipeline.adjust(nets, pipeline.decompose(nets, low)).picture) < left * grain(low)


def test_against_the_light_the_shadows_are_lifted(nets):
    high = to_tensor(skimage.data.coffee())
    low = Darkening(0.8, 0.001, 0.003, (1.0, 1.0, 1.0), depth=1.0)(high, torch.Generator().manual_seed(0))[None]
    result, high = pipeline.adjust(nets, pipeline.decompose(nets, low)).picture, high[None]
    dark = luma(high) < luma(high).quantile(0.4)
    before, after, true = (float(luma(picture)[dark].mean()) for picture in (low, result, high))
    assert before < 0.2 * true and after > 0.55 * true  # the same gain for all of the picture gives 0.4
    assert score(result, high)["psnr_raw"] > 20


def test_real_photographs_held_out_from_training(shared_data, nets, segmenter):
    rows = []
    for pair in pairs_of_table(shared_data / "lol_v1/pairs.tsv", "val")[::13]:
        low, high = (read_image(p).pixels[None] for p in (pair.low, pair.high))
        rows.append({"picture": pair.name, **score(pipeline.enhance(low, nets, segmenter), high)})
    mean = mean_of(rows)
    assert mean["psnr_gt_mean"] > 22 and mean["ssim_gt_mean"] > 0.7, mean
