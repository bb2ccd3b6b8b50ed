"""What the diffusion draws is safe: fine detail and nothing else, in its place, the same in tiles, clips and graphs.

With the shipped weights and real pictures. Differences are in levels of 255.
"""

from __future__ import annotations

import importlib
from types import SimpleNamespace

import pytest
import torch
from skimage.data import coffee
from torch.nn import functional as F

from jores import pipeline
from jores.imaging.exposure import luma
from jores.metrics import psnr
from jores.nets.denoiser import fine_detail
from jores.tiling.tiler import Tiler
from jores.training.convert import to_tensor
from jores.training.darkening import Darkening
from jores.video import enhance_frames
from tests.benchmarks.drawn import FACE_LIGHT, GREY, TEXTURE, Drawer, a_face, spread
from tests.benchmarks.flicker import make_clips
from tests.benchmarks.texture import Dark
from tests.flat import flat
from tests.letters import page, reading_rate, words_on_a_page
from tests.sensor import sensor
from tests.tiny import Memory

pytestmark = pytest.mark.slow

PORTRAIT = slice(45, 150), slice(52, 146)  # rows and columns of `a_face`: from the forehead to the chin
PARTS = {"eyes": (slice(56, 78), slice(60, 134)), "mouth": (slice(103, 124), slice(72, 118))}


@pytest.fixture(scope="module")
def draw(nets, segmenter):
    return Drawer(nets, segmenter)


@pytest.fixture(scope="module")
def face(draw):
    """The dark picture and its truth; R' x L', and eight seeds at texture 1."""
    dark = a_face()
    mean, drawn = draw(dark, 8)
    return SimpleNamespace(dark=dark, truth=dark.high, mean=mean, drawn=drawn)


def levels(difference):
    return 255 * difference.square().mean().sqrt().item()


def likeness(pictures, truth):
    """Normalised cross-correlation of the luma of pictures (B, 3, H, W) with that of the truth (1, 3, H, W), (B,)."""
    a, b = (F.normalize(luma(p).flatten(1) - luma(p).mean((1, 2, 3))[:, None]) for p in (pictures, truth))
    return (a * b).sum(1)


def test_what_is_drawn_is_fine_and_leaves_light_and_colour_alone(face):
    """Blocks of 16 pixels keep the mean that they have in R' x L'."""
    added = face.drawn - face.mean
    assert levels(fine_detail(added)) > 1  # something is drawn
    blocks = 255 * F.avg_pool2d(added, 16)
    assert blocks.square().mean().sqrt() < 0.5
    assert luma(blocks).abs().flatten().quantile(0.99) < 1
    assert blocks.abs().max() < 2


def test_seeds_differ_little_in_a_face(face):
    rows, columns = PORTRAIT
    drawn, truth = face.drawn[..., rows, columns], face.truth[..., rows, columns]
    typical, error = spread(drawn).mean().item(), levels(drawn - truth)
    assert 0.3 < typical < 5
    assert typical < 0.5 * error
    assert spread(drawn).flatten().quantile(0.99) < 15


@pytest.mark.parametrize("part", PARTS)
def test_eyes_and_mouth_stay_where_they_are(face, part):
    """Every seed is as like the truth as R' x L' is, and most like it where it is, not a pixel beside."""
    rows, columns = PARTS[part]
    truth, mean = face.truth[..., rows, columns], face.mean[..., rows, columns]
    assert (likeness(face.drawn[..., rows, columns], truth) > likeness(mean, truth) - 0.01).all()
    moved = {
        (y, x): likeness(face.drawn.roll((y, x), (2, 3))[..., rows, columns], truth)
        for y in (-2, -1, 0, 1, 2)
        for x in (-2, -1, 0, 1, 2)
    }
    assert all((moved[0, 0] >= other).all() for other in moved.values())


@pytest.mark.parametrize("steps", [20, 60])
def test_more_steps_than_learned_do_not_engrave_the_picture(nets, face, steps):
    low = face.dark.low[..., 32:160, 32:160]
    few, many = (flat(pipeline.enhance)(low, nets, None, steps=n, texture=1.0) for n in (8, steps))
    roughness = [fine_detail(luma(picture)).std() for picture in (few, many)]
    assert roughness[1] < 1.1 * roughness[0]


def test_a_seed_changes_nothing_without_texture(nets, segmenter, face):
    low = face.dark.low[..., :96, :96]
    none, other, some, different = (
        flat(pipeline.enhance)(low, nets, segmenter, seed=seed, texture=texture, steps=2)
        for texture in (0.0, TEXTURE)
        for seed in (0, 1)
    )
    assert torch.equal(none, other) and not torch.equal(some, different)


def test_tiles_draw_what_the_whole_picture_draws(nets, segmenter):
    """Whatever R' x L' itself loses in tiles, what is drawn on it agrees much better."""
    low, tile = FACE_LIGHT(to_tensor(coffee()[100:296, 200:450]), sensor())[None], 192

    def made(texture, tile=0, seed=3):
        return flat(pipeline.enhance)(low, nets, segmenter, texture=texture, tile=tile, seed=seed)

    whole, in_tiles = made(0.0), made(0.0, tile)
    drawn, drawn_in_tiles, other = made(1.0), made(1.0, tile), made(1.0, seed=4)
    assert Tiler(tile).windows(low.shape[-2:]) > 1
    assert psnr(drawn_in_tiles, drawn) > 45 > psnr(other, drawn)
    assert psnr(drawn_in_tiles - in_tiles, drawn - whole) > 50
    assert psnr(drawn_in_tiles, drawn) > psnr(in_tiles, whole) - 2


@pytest.fixture(scope="module")
def words():
    return words_on_a_page((12, 14, 16, 18, 20))


@pytest.mark.parametrize(
    ("gain", "noise"), [(1 / 30, 1), (1 / 100, 1), (1 / 100, 3)], ids=["a 30th", "a 100th", "a 100th, much noise"]
)
def test_letters_stay_as_readable_as_without_drawing(draw, words, gain, noise):
    """Letters of 12 to 20 pixels are read by comparing each with the alphabet (`tests.letters`), not by an OCR."""
    rates = rates_of(draw, words, gain, noise)
    assert rates[0] > (0.95 if noise == 1 else 0.8)
    assert (rates >= rates[0] - 0.04).all()  # 7 letters of 175


def test_the_reading_rate_can_fall(draw, words):
    assert reading_rate(page(words)[None], words) == 1
    rates = rates_of(draw, words, 1 / 100, 6)
    assert (rates < 0.8).all()


def rates_of(draw, words, gain, noise):
    """Reading rates at texture 0, 0.5 and 1 in this light, with this many times the sensor's usual noise."""
    paper = page(words)
    low = Darkening(gain, 0.0008 * noise, 0.003 * noise, GREY)(paper, sensor())[None]
    mean, drawn = draw(Dark("", "", low, paper[None]))
    return reading_rate(torch.cat([torch.lerp(mean, drawn, texture) for texture in (0.0, 0.5, 1.0)]), words)


@pytest.mark.parametrize("level", [0.0, 0.05, 0.5])
def test_nothing_is_drawn_on_an_even_picture(nets, segmenter, level):
    """Also not on a black one, where all detail would be invented."""
    even = torch.full((1, 3, 96, 128), level)
    mean, drawn = (flat(pipeline.enhance)(even, nets, segmenter, texture=texture) for texture in (0.0, 1.0))
    assert levels(drawn - mean) < 1.5
    assert (255 * (drawn.std((2, 3)) - mean.std((2, 3)))).max() < 1


def test_a_clean_well_lit_picture_keeps_its_even_areas(nets, segmenter):
    lit = to_tensor(coffee()[100:260, 200:400])[None]
    mean, drawn = (flat(pipeline.enhance)(lit, nets, segmenter, texture=texture) for texture in (0.0, 1.0))
    rough, added = (
        F.avg_pool2d(x.square().mean(1, keepdim=True), 8).sqrt() * 255 for x in (fine_detail(lit), drawn - mean)
    )
    even = rough < rough.median()
    assert added[even].mean() < 1.5
    assert levels(drawn - lit) < levels(mean - lit) + 1


def test_the_frames_of_a_clip_share_their_noise(nets, face):
    still = face.dark.low[..., :64, :96]
    options = {"texture": 1.0, "steps": 2, "seed": 5}
    first, second = flat(enhance_frames)([still, still.clone()], nets, None, smooth=False, **options)
    assert torch.equal(first, second)


def test_a_clip_flickers_no_more_for_its_texture(nets):
    clip = make_clips((96, 128), 5, 0)["static"]
    flicker = {}
    for texture in (0.0, TEXTURE):
        frames = torch.cat(list(flat(enhance_frames)(clip.dark.split(1), nets, None, texture=texture, seed=5)))
        flicker[texture] = levels(frames.diff(dim=0))
    assert flicker[TEXTURE] < 1.1 * flicker[0.0]


@pytest.fixture(scope="module")
def graph(jores_pack_nodes, comfy_inprocess):
    """The shipped model in a graph, up to the sampler, for the astronaut's eyes."""
    load = lambda name: importlib.import_module(f"jores_pack.{name}")  # noqa: E731

    def run(node_id, **inputs):
        with torch.inference_mode():
            return jores_pack_nodes[node_id].execute(**inputs).result

    model, nets, _vae = run("JoReSLoadModel", model_name=load("nodes.host.folders").SHIPPED_BUNDLE_NAME)
    retinex = run("JoReSDecompose", nets=nets, image=a_face().low[..., 40:104, 56:152].movedim(1, -1))[0]
    condition = run("JoReSAdjust", nets=nets, retinex=retinex, exposure=0.0, denoise=1.0)[0]
    library = load("jores.checkpoint").load_bundle(load("jores.checkpoint").SHIPPED_WEIGHTS)

    def refined(texture):
        settings = {"start_percent": 0.0, "end_percent": 1.0, "texture": texture}
        return run("JoReSApplyRefinement", model=model, nets=nets, condition=condition, **settings)[0]

    return SimpleNamespace(
        refined=refined, condition=condition, inputs=run("JoReSCondition", condition=condition), library=library,
        ksampler=comfy_inprocess.nodes.KSampler, sample=load("jores.pipeline").sample,
        options=load("jores.options").SampleOptions,
    )  # fmt: skip


@pytest.mark.parametrize("texture", [0.5, 1.0])
@pytest.mark.parametrize("name", ["euler", "ddim"])
def test_stock_samplers_draw_what_the_library_draws(graph, name, texture):
    """At eight steps, with RNet, to a level (root mean square): stock samplers take eps from the x0 that RNet returns,
    the method from the UNet's own, so a few pixels differ by some levels."""
    options = graph.options(8, 5, texture=texture)
    expected = graph.sample(graph.library, graph.condition.condition, None, options, low=graph.condition.low)
    with torch.inference_mode():
        positive, negative, latent = graph.inputs
        given = graph.ksampler().sample(
            graph.refined(texture), 5, 8, 1.0, name, "simple", positive, negative, latent, 1.0
        )[0]["samples"]  # fmt: skip
    picture = graph.condition.condition.picture * 2 - 1
    drawn = levels((expected - picture) / 2)
    assert levels((given - expected) / 2) < min(1, drawn / 4)
    assert drawn > texture  # more than a level where all of it is used


def test_another_seed_costs_nothing_where_no_texture_is_used(nets):
    low, memory = torch.rand(1, 3, 48, 64) * 0.1, Memory()
    first = flat(pipeline.enhance)(low, nets, texture=0.0, seed=1, keeper=memory)
    made = list(memory.made)
    assert torch.equal(flat(pipeline.enhance)(low, nets, texture=0.0, seed=2, steps=8, keeper=memory), first)
    assert memory.made == made
    flat(pipeline.enhance)(low, nets, texture=0.5, seed=2, keeper=memory)
    assert memory.made == [*made, "x0"]
