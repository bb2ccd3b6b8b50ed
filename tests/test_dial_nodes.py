"""The dials on the nodes: what Enhance keeps and when it lets go, what it shows, and the nodes that templates begin and
end with."""

from __future__ import annotations

import importlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.color import rgb2lab

from host.client import EXAMPLES
from jores.files.codecs import encode_png_16

SHIPPED = "jores-compact.safetensors (shipped)"


@pytest.fixture(scope="module")
def pack(jores_pack_nodes, comfy_inprocess):
    load = lambda name: importlib.import_module(f"jores_pack.{name}")  # noqa: E731
    return SimpleNamespace(nodes=jores_pack_nodes, base=comfy_inprocess.base, load=load)


def run(pack, node_id, **inputs):
    with torch.inference_mode():
        return pack.nodes[node_id].execute(**inputs)


def enhance(pack, image, **changes):
    rest = {"exposure": 0.0, "strength": 1.0, "steps": 1, "seed": 0, "semantic": True, "model_name": SHIPPED}
    return run(pack, "JoReSEnhance", image=image, **(rest | changes))


def dark(seed=0, size=(40, 56)):
    return torch.rand(1, *size, 3, generator=torch.Generator().manual_seed(seed)) * 0.15


@pytest.fixture
def counted(pack, monkeypatch):
    """How often each stage really ran."""
    pipeline, retinex = pack.load("jores.pipeline"), pack.load("jores.retinex")
    calls = {"decompose": 0, "segment": 0, "sample": 0}

    def counting(name, work):
        def call(*args, **options):
            calls[name] += 1
            return work(*args, **options)

        return call

    for name, function in {"decompose": "decomposed", "segment": "_segmented", "sample": "sample"}.items():
        counted = counting(name, getattr(pipeline, function))
        monkeypatch.setattr(pipeline, function, counted)
        if name == "decompose":  # which the segmenter's light needs, too
            monkeypatch.setattr(retinex, function, counted)
    return calls


def test_dials_cost_what_depends_on_them_and_change_no_pixel(pack, counted):
    image, mask = dark(1), torch.zeros(1, 40, 56)
    mask[:, 10:30, 10:40] = 1
    enhance(pack, image)
    assert counted == {"decompose": 1, "segment": 1, "sample": 1}
    changes = ({"strength": 0.3}, {"mask": mask, "feather": 5}, {"shadows": 0.5}, {"colour_fidelity": 1.0})
    quick = [enhance(pack, image, **change)[0] for change in changes]
    assert counted == {"decompose": 1, "segment": 1, "sample": 1}
    brighter = enhance(pack, image, brightness=1.0)[0]
    assert counted == {"decompose": 1, "segment": 1, "sample": 2}
    path = pack.load("nodes.host.folders").bundle_path(SHIPPED)
    pack.load("nodes.host.kept").kept_nets(path, "auto").results.make_room(1 << 60)
    for change, made in zip((*changes, {"brightness": 1.0}), (*quick, brighter), strict=True):
        assert torch.equal(enhance(pack, image, **change)[0], made), change


@pytest.mark.parametrize(
    ("change", "steps"),
    [({}, 2), ({"quality": "draft"}, 1), ({"texture": 0.0}, 2)],
    ids=["standard", "draft", "smooth"],
)
@pytest.mark.parametrize("smooth_frames", [True, False], ids=["film", "photographs"])
def test_the_bar_moves_with_every_picture(pack, smooth_frames, change, steps):
    """Of a film, and of photographs, which come from the cache in the second run."""
    utils, seen = importlib.import_module("comfy.utils"), []
    images = torch.cat([dark(30), dark(30) * 1.02, dark(30) * 1.04])
    utils.set_progress_bar_global_hook(lambda value, total, *_rest, **_more: seen.append((value, total)))
    try:
        for _run in range(2):
            seen.clear()
            enhance(pack, images, steps=2, semantic=False, smooth_frames=smooth_frames, **change)
            ends = [(steps * (i + 1), steps * 3) for i in range(3)]
            assert [at for at in seen if at in ends] == ends and seen == sorted(seen)
    finally:
        utils.set_progress_bar_global_hook(None)


def test_another_class_costs_no_second_look(pack, counted):
    """The prior belongs to the picture and the segmenter; classes, threshold and the dials of ANet change a mask."""
    nets = run(pack, "JoReSLoadModel", model_name=SHIPPED)[1]
    names = ("deeplab-ade20k (shipped)", "segformer-dark (shipped)")
    segmenter, former = (run(pack, "JoReSLoadSegmenter", segmenter_name=name)[0] for name in names)

    def segment(image, exposure=0.0, **changes):
        retinex = run(pack, "JoReSDecompose", nets=nets, image=image)[0]
        condition = run(pack, "JoReSAdjust", nets=nets, retinex=retinex, exposure=exposure, denoise=1.0)[0]
        seen = {"segmenter": segmenter, "image": image, "condition": condition, "class_name": "wall"}
        return run(pack, "JoReSSegment", **(seen | changes))

    first, _colours, wall = segment(dark(1))
    assert counted["segment"] == 1
    again, _colours, other = segment(dark(1), 0.3, class_name="floor", threshold=0.01, invert=True)
    assert counted["segment"] == 1
    assert torch.equal(first.probabilities, again.probabilities) and not torch.equal(wall, other)
    prior = segment(dark(1), segmenter=former)[0]
    assert counted["segment"] == 2 and not torch.equal(first.probabilities.argmax(1), prior.probabilities.argmax(1))
    segment(dark(2))
    assert counted["segment"] == 3


def test_another_picture_has_results_of_its_own(pack, counted):
    first, second = enhance(pack, dark(2))[0], enhance(pack, dark(3))[0]
    assert counted["sample"] == 2 and not torch.equal(first, second)
    assert torch.equal(enhance(pack, dark(2))[0], first) and counted["sample"] == 2


def test_a_cut_out_has_results_of_its_own(pack, counted):
    """Alpha decides what the nets see."""
    colours, alpha = dark(4), torch.ones(1, 40, 56, 1)
    alpha[:, :, :28] = 0
    whole, half = (torch.cat([colours, a], -1) for a in (torch.ones_like(alpha), alpha))
    enhance(pack, whole)
    first = enhance(pack, half)[0]
    assert counted["sample"] == 2
    assert torch.equal(enhance(pack, half)[0], first) and torch.equal(first[..., 3:], alpha)
    assert counted["sample"] == 2


def maps(pack, size):
    kind = pack.load("jores.conditions").RetinexMaps
    return kind(torch.ones(1, 3, *size), torch.ones(1, 1, *size))


def test_what_is_kept_stays_within_its_limit_and_the_oldest_goes_first(pack):
    results = pack.load("nodes.host.results").Results(limit=2 * 4 * 4 * 40 * 60)  # two entries of 40 x 60 pixels
    made = []

    def ask(picture, size=(40, 60)):
        def make():
            made.append(picture)
            return maps(pack, size)

        results.of(dark(picture))(("maps",), make)

    for picture in (0, 1, 0, 2, 0, 1):  # 2 drives 1 out, which was asked for before 0 was
        ask(picture)
        assert results.size <= results.limit
    assert made == [0, 1, 2, 1]
    ask(7, size=(100, 100))
    ask(7, size=(100, 100))
    assert made[-2:] == [7, 7], "more than the limit is not kept at all"
    assert not results.of(dark(0, size=(100, 100))).keeps, "such a picture is not even looked at"


def test_nothing_is_kept_when_memory_is_short(pack, monkeypatch):
    module = pack.load("nodes.host.results")
    results = module.Results()
    results.of(dark(0))(("maps",), lambda: maps(pack, (10, 10)))
    assert results.size
    results.make_room(0)
    assert results.size, "there is room"
    monkeypatch.setattr(module.mm, "get_free_memory", lambda *_args: module.SPARE - 1)
    results.make_room(0)
    assert not results.size
    results.of(dark(0))(("maps",), lambda: maps(pack, (10, 10)))
    assert not results.size


def test_it_goes_with_the_nets_when_the_host_unloads_them(pack, counted):
    import comfy.model_management as mm

    image = dark(5)
    enhance(pack, image)
    mm.unload_all_models()
    enhance(pack, image, strength=0.5)
    assert counted["sample"] == 2


def test_the_chosen_exposure_is_shown_and_given_out(pack):
    image = dark(6)
    done = enhance(pack, image)
    again = enhance(pack, image, exposure=done[1])
    assert 0.05 < done[1] < 0.9 and again[1] == pytest.approx(done[1], abs=1e-6)
    assert done.ui["text"] == (f"exposure {done[1]:.2f} (proposed)",)
    brighter = enhance(pack, image, exposure=0.3, brightness=0.5)
    assert brighter[1] > 0.3 and brighter.ui["text"][0].endswith("(as set, +0.5 EV)")
    (file,) = done.ui["images"]
    with Image.open(pack.base / "temp" / file["filename"]) as card:
        assert card.size == pack.load("nodes.host.cards").SIZE and len(card.getcolors(1 << 16)) > 3
    film = enhance(pack, dark(7).expand(3, -1, -1, -1))
    assert film.ui["text"][0].endswith("; 3 frames as one film")
    assert "film" not in enhance(pack, dark(7).expand(3, -1, -1, -1), smooth_frames=False).ui["text"][0]


def test_graphs_without_the_new_inputs_keep_their_pictures(pack):
    image = dark(8)
    assert torch.equal(enhance(pack, image)[0], enhance(pack, image, brightness=0.0, quality="standard")[0])
    assert not torch.equal(enhance(pack, image)[0], enhance(pack, image, quality="draft")[0])
    with pytest.raises(ValueError, match="quality must be draft, standard or fine"):
        enhance(pack, image, quality="best")


def test_brightness_on_the_stage_is_that_of_the_block(pack):
    image = dark(9)
    (_model, nets, _vae) = run(pack, "JoReSLoadModel", model_name=SHIPPED).result
    retinex = run(pack, "JoReSDecompose", nets=nets, image=image)[0]
    low, high = (
        run(pack, "JoReSAdjust", nets=nets, retinex=retinex, exposure=0.3, denoise=1.0, brightness=b)[0]
        for b in (0, 1.0)
    )
    assert high.condition.exposure > low.condition.exposure == pytest.approx(0.3)


def test_every_example_comes_as_picture_mask_and_film(pack):
    slot = pack.nodes["JoReSLoadExample"].define_schema().inputs[0]
    assert pack.load("nodes.host.folders").EXAMPLES == EXAMPLES, "the tests' own list"
    for name in slot.options:
        image, mask, video = run(pack, "JoReSLoadExample", picture=name).result
        assert image.shape[-1] == 3 and mask.shape == image.shape[:3] and image.mean() < 0.25
        assert (0.1 < mask.mean() < 0.9) == (name == "region")
        torch.testing.assert_close(video.get_components().images, image)
        assert (len(image) > 1) == (name == "clip")
    with pytest.raises(ValueError, match="there is no example 'x'"):
        run(pack, "JoReSLoadExample", picture="x")


def test_a_folder_comes_as_its_photographs_by_name(pack):
    """Sizes differ, 16 bits and alpha stay, and what is no picture is left out."""
    folder = pack.base / "input" / "holiday"
    (folder / "inside").mkdir(parents=True)
    deep = np.full((9, 7, 3), 257, np.uint16)
    (folder / "b.png").write_bytes(encode_png_16(deep))
    Image.new("RGBA", (30, 20), (10, 20, 30, 128)).save(folder / "a.png")
    Image.new("L", (8, 8), 40).save(folder / "c.jpg")
    (folder / "notes.txt").write_text("no picture")
    assert "holiday" in pack.nodes["JoReSLoadFolder"].define_schema().inputs[0].options
    images, names = run(pack, "JoReSLoadFolder", folder="holiday", first=1, count=16).result
    assert names == ["JoReS/holiday/a", "JoReS/holiday/b", "JoReS/holiday/c"]
    assert [tuple(image.shape) for image in images] == [(1, 20, 30, 4), (1, 9, 7, 3), (1, 8, 8, 3)]
    torch.testing.assert_close(images[1], torch.full((1, 9, 7, 3), 257 / 65535))
    images, names = run(pack, "JoReSLoadFolder", folder="holiday", first=2, count=1).result
    assert names == ["JoReS/holiday/b"] and len(images) == 1
    shipped, names = run(pack, "JoReSLoadFolder", folder="examples (shipped)", first=1, count=16).result
    assert names == ["JoReS/examples/coffee", "JoReS/examples/portrait"] and len(shipped) == 2
    for wanted, message in (
        ({"folder": "holiday", "first": 4}, "first is 4, but 'holiday' holds 3"),
        ({"folder": "../output", "first": 1}, "there is no folder '../output'"),
        ({"folder": "holiday/inside", "first": 1}, "there is no folder"),
    ):
        with pytest.raises(ValueError, match=message):
            run(pack, "JoReSLoadFolder", count=16, **wanted)
    node = pack.nodes["JoReSLoadFolder"]
    before = node.fingerprint_inputs(folder="holiday", first=1, count=16)
    Image.new("L", (8, 8), 40).save(folder / "d.jpg")
    assert node.fingerprint_inputs(folder="holiday", first=1, count=16) != before


def test_a_folder_says_what_it_left_out(pack):
    folder = pack.base / "input" / "mixed"
    folder.mkdir(parents=True)
    for name in "acde":
        Image.new("L", (8, 8), 40).save(folder / f"{name}.png")
    for name in ("b.jpg", "b2.jpg"):
        (folder / name).write_bytes(b"no picture at all")
    done = pack.nodes["JoReSLoadFolder"].execute(folder="mixed", first=1, count=4)
    assert done.result[1] == ["JoReS/mixed/a", "JoReS/mixed/c"]
    rest, damaged = done.ui["text"][0].split("\n")
    assert rest == "these are 1 to 4 of 6 photographs: to go on, set first to 5"
    assert damaged.startswith("2 photograph(s) left out, which cannot be read: b.jpg, b2.jpg: ")
    assert str(folder) not in damaged
    node, stamp = pack.nodes["JoReSLoadFolder"], {"folder": "mixed", "first": 1, "count": 4}
    before = node.fingerprint_inputs(**stamp)
    Image.new("L", (8, 8), 40).save(folder / "f.png")
    assert node.fingerprint_inputs(**stamp) != before  # what it says of the rest is no longer true
    assert not node.define_schema().is_output_node  # it must not run where nothing is connected to it
    assert pack.nodes["JoReSLoadFolder"].execute(folder="mixed", first=5, count=9).ui is None
    with pytest.raises(ValueError, match="Load Folder of Photographs: none of 1 photograph.s. can be read: .*b.jpg"):
        run(pack, "JoReSLoadFolder", folder="mixed", first=2, count=1)


@pytest.mark.parametrize("frames", [1, 16, 12345])
def test_the_text_on_the_chart_is_never_cut(pack, frames):
    """The last letter is drawn, and right of it there is room."""
    cards, text = pack.load("nodes.host.cards"), pack.load("nodes.enhance").exposure_text
    bins = torch.ones(cards.BINS) / cards.BINS
    card = np.asarray(cards.drawn(bins, bins, text(0.61, 0.0, 1.0, frames)))[:33]
    assert (card == cards.GROUND).all(-1)[:, -11:].all() and not (card == cards.GROUND).all()


def test_a_comparison_shows_both_untouched(pack):
    before, after = torch.rand(1, 20, 31, 3), torch.rand(2, 20, 31, 3)
    both = run(pack, "JoReSCompare", before=before, after=after, mode="side by side", position=0.5)[0]
    assert both.shape == (2, 20, 70, 3)
    assert (
        torch.equal(both[:1, :, :31], before) and torch.equal(both[:, :, 39:], after) and (both[:, :, 31:39] == 1).all()
    )
    for position, cut in ((0.0, 0), (0.4, 12), (1.0, 31)):
        one = run(pack, "JoReSCompare", before=before, after=after, mode="split", position=position)[0]
        left, right = max(0, cut - 1), min(31, cut + 1)
        if 0 < cut < 31:
            assert (one[:, :, left:right] == 1).all()
        else:
            left = right = cut
        assert torch.equal(one[:, :, :left], before.expand(2, -1, -1, -1)[:, :, :left])
        assert torch.equal(one[:, :, right:], after[:, :, right:])
    small = run(pack, "JoReSCompare", before=torch.rand(1, 10, 10, 3), after=after, mode="split", position=1.0)[0]
    assert small.shape == after.shape
    with pytest.raises(ValueError, match="give one, or as many of each"):
        run(pack, "JoReSCompare", before=torch.rand(3, 4, 4, 3), after=after, mode="split", position=0.5)


def test_a_comparison_averages_the_side_that_gets_shorter(pack):
    """Stripes of one pixel, wider than the picture beside them, and lower: they get grey, without a pattern."""
    stripes = (torch.arange(100) % 2).float().view(1, 1, 100, 1).expand(1, 10, 100, 3)
    shown = run(pack, "JoReSCompare", before=stripes, after=torch.zeros(1, 20, 30, 3), mode="split", position=1.0)[0]
    assert shown.shape == (1, 20, 30, 3) and float((shown[:, :, 2:-2] - 0.5).abs().max()) < 0.1


MACHADO = {
    "protanopia": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "deuteranopia": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
    "tritanopia": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900)),
}
"""How linear light looks to such eyes: Machado, Oliveira and Fernandes (2009), at full severity."""


def nearest(colours: np.ndarray, kind: str) -> float:
    """Distance in CIE Lab of the two colours that these eyes tell apart worst; about 2 is the least one sees."""
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.array(MACHADO[kind]).T, 0, 1)
    seen = np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055)
    lab = rgb2lab(seen[None])[0]
    apart = np.linalg.norm(lab[:, None] - lab[None], axis=-1)
    return apart[~np.eye(len(lab), dtype=bool)].min()


@pytest.mark.parametrize("kind", MACHADO)
def test_colour_blind_eyes_tell_classes_and_curves_apart(pack, kind):
    cards, colours = pack.load("nodes.host.cards"), np.array(pack.load("nodes.semantics").class_colours())
    assert len(colours) == 151 and len(np.unique((colours * 255).round(), axis=0)) == 151 and not colours[150].any()
    assert 0 <= colours.min() <= colours.max() <= 1
    assert nearest(colours[[*range(7), 150]], kind) > 10
    assert nearest(np.array([cards.BEFORE, cards.AFTER, cards.GROUND]) / 255, kind) > 30


def test_nothing_rounds_to_eight_bits(pack):
    """A dark ramp in steps of 1/65535: newer hosts read and save 16 bits, and what lies between must keep them."""
    ramp = (torch.arange(64 * 96).view(1, 64, 96, 1) / 65535).expand(-1, -1, -1, 3).contiguous()
    assert torch.equal(enhance(pack, ramp, strength=0.0)[0], ramp)
    for quality in ("draft", "standard"):
        made = enhance(pack, ramp, quality=quality)[0]
        assert len((made[..., 1] * 65535).round().unique()) > 1000, quality
        whole = run(pack, "JoReSCompare", before=ramp, after=made, mode="side by side", position=0.5)[0]
        assert torch.equal(whole[:, :, :96], ramp) and torch.equal(whole[:, :, -96:], made)
