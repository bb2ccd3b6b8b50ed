"""Transparent pixels decide nothing: cut-outs that differ only in what is hidden give one result."""

from __future__ import annotations

from itertools import cycle, repeat
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from jores import pipeline
from jores.checkpoint import save_bundle
from jores.cli import main
from jores.conditions import Keeper
from jores.files.pictures import Picture, read_image, write_image
from jores.imaging.alpha import filled, seen_average
from jores.imaging.exposure import mean_colour, mean_luma
from jores.video import enhance_frames
from tests.films import write_film
from tests.flat import flat
from tests.tiny import TINY, shaken

HIDDEN = (0.0, 0.5, 1.0, "noise")


@pytest.fixture(scope="module")
def nets():
    return shaken(TINY)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_bundle(path, shaken(TINY))
    return path


def shapes() -> dict[str, torch.Tensor]:
    """Alphas (1, 1, 70, 90) of cut-outs."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, 70), torch.linspace(-1, 1, 90), indexing="ij")
    disc = ((x**2 + y**2) < 0.2).float()
    soft = (1.2 - 2 * (x**2 + y**2)).clamp(0, 1)
    corner = torch.zeros(70, 90)
    corner[60:, 80:] = 1
    return {name: a[None, None] for name, a in (("disc", disc), ("soft", soft), ("corner", corner))}


def cut_out(name: str, hidden: float | str) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    colours, alpha = torch.rand(1, 3, 70, 90, generator=generator) * 0.2, shapes()[name]
    below = torch.rand(1, 3, 70, 90, generator=generator) if hidden == "noise" else torch.full((1, 3, 70, 90), hidden)
    return torch.cat([torch.where(alpha > 0, colours, below), alpha], 1)


WAYS = {
    "plain": {}, "tiles": {"tile": 64}, "reduced": {"working_size": 48}, "exposed": {"exposure": 0.4},
    "dials": {"shadows": 1.0, "colour_fidelity": 1.0},
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["disc", "soft", "corner"])
def test_what_is_hidden_changes_nothing_that_is_seen(nets, name, way):
    results = []
    for hidden in HIDDEN:
        images = cut_out(name, hidden)
        result = flat(pipeline.enhance)(images, nets, steps=1, **WAYS[way])
        assert torch.equal(result[:, 3:], images[:, 3:])
        unseen = (images[:, 3:] == 0).expand(-1, 3, -1, -1)
        assert torch.equal(result[:, :3][unseen], images[:, :3][unseen])  # kept, as everything that is not enhanced
        results.append(result[:, :3][~unseen])
    assert all(torch.equal(results[0], other) for other in results[1:])


@pytest.mark.parametrize("name", ["disc", "soft", "corner"])
def test_the_five_stages_give_what_enhance_gives(nets, name):
    images = cut_out(name, "noise")
    maps = pipeline.decompose(nets, images)
    condition = pipeline.adjust(nets, maps)
    low = filled(images)[0]
    x0 = flat(pipeline.sample)(nets, condition, low=low, steps=1)
    whole = flat(pipeline.enhance)(images, nets, steps=1)
    assert (flat(pipeline.finish)(x0, images) - whole).abs().max() < 1e-5


def test_opaque_alpha_is_as_good_as_none(nets):
    images = cut_out("disc", "noise")
    images[:, 3] = 1
    plain = flat(pipeline.enhance)(images[:, :3], nets, steps=1)
    assert torch.equal(flat(pipeline.enhance)(images, nets, steps=1)[:, :3], plain)
    assert torch.equal(mean_colour(images), mean_colour(images[:, :3]))


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 0.9])
def test_means_count_each_pixel_by_its_alpha(share):
    images = torch.zeros(1, 4, 20, 30)
    images[:, :3, :10], images[:, 3, :10] = 0.8, share
    images[:, :3, 10:], images[:, 3, 10:] = 0.2, 1
    wanted = (0.8 * share + 0.2) / (share + 1)
    assert mean_luma(images).item() == pytest.approx(wanted, abs=1e-5)
    assert seen_average(images, (1, 1)).flatten().tolist() == pytest.approx([wanted] * 3, abs=1e-5)


@pytest.mark.parametrize("alpha", [1.0, 0.6, 0.1])
def test_one_alpha_everywhere_is_no_alpha(nets, alpha):
    images = cut_out("disc", "noise")
    images[:, 3] = alpha
    plain = flat(pipeline.enhance)(images[:, :3], nets, steps=1)
    assert (flat(pipeline.enhance)(images, nets, steps=1)[:, :3] - plain).abs().max() < 1e-3


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (33, 20)])
def test_a_picture_of_which_nothing_is_seen(nets, size):
    images = torch.rand(1, 4, *size)
    images[:, 3] = 0
    assert torch.equal(flat(pipeline.enhance)(images, nets, steps=1), images)


def test_the_filling_is_of_the_colours_around():
    images = torch.full((1, 4, 40, 40), 0.3)
    images[:, 3] = 0
    images[:, 3, 10:20, 10:20] = 1
    images[:, :3, :5] = 0.9
    assert (filled(images)[0] - 0.3).abs().max() < 1e-5


def test_the_frames_of_a_clip(nets):
    clips = []
    for hidden in (0.0, 1.0):
        frames = [cut_out("disc", hidden)[..., :32, 20:60] for _ in range(2)]
        made = torch.cat(list(flat(enhance_frames)(frames, nets, steps=1)))
        clips.append(made[:, :3][(made[:, 3:] > 0).expand(-1, 3, -1, -1)])
    assert clips[0].numel() and torch.equal(*clips)


@pytest.mark.parametrize("count", [1, 5])
def test_a_single_mask_serves_a_clip(nets, count):
    frames = [torch.rand(1, 3, 16, 16) * 0.1 for _ in range(5)]
    masks = [torch.zeros(1, 1, 16, 16)] * count
    made = list(flat(enhance_frames)(frames, nets, steps=1, masks=masks, smooth=False))
    assert len(made) == 5 and all(torch.equal(a, b) for a, b in zip(made, frames, strict=True))


@pytest.mark.parametrize("count", [0, 2, 4])
def test_masks_that_do_not_suffice_are_refused(nets, count):
    frames, masks = [torch.rand(1, 3, 16, 16)] * 5, [torch.zeros(1, 1, 16, 16)] * count
    with pytest.raises(ValueError, match=f"masks: {count} for more"):
        list(flat(enhance_frames)(frames, nets, steps=1, masks=masks, smooth=False))


@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize(
    "given, fault",
    [
        (lambda mask: {"keepers": [Keeper()] * 2}, "keepers: 2 for more frames than that: give one per frame"),
        (lambda mask: {"keepers": [Keeper()] * 2, "masks": [mask]}, "keepers: 2 for more frames than that"),
        (lambda mask: {"masks": (mask for _ in range(4))}, "masks: more than frames"),
        (lambda mask: {"masks": [mask] * 4}, "masks: more than frames"),
        (lambda mask: {"masks": (mask for _ in range(2))}, "masks: 2 for more frames than that"),
    ],
)
def test_what_comes_with_each_frame_comes_once_for_each(nets, smooth, given, fault):
    frames, options = [torch.rand(1, 3, 16, 24) * 0.1] * 3, {"steps": 0, "smooth": smooth}
    with pytest.raises(ValueError, match=fault):
        list(flat(enhance_frames)(frames, nets, **options, **given(torch.ones(1, 1, 16, 24))))


@pytest.mark.parametrize("masks", [lambda mask: cycle([mask]), repeat, lambda mask: iter([mask])])
def test_one_mask_and_endless_ones_serve_any_number_of_frames(nets, masks):
    frames, mask = [torch.rand(1, 3, 16, 24) * 0.1] * 3, torch.ones(1, 1, 16, 24)
    assert len(list(flat(enhance_frames)(frames, nets, steps=0, masks=masks(mask), keepers=[Keeper()] * 3))) == 3


def masks() -> dict[str, Image.Image]:
    """Masks of one place, painted in different ways."""
    place = np.zeros((24, 32), np.uint8)
    place[8:16, 10:20] = 255
    white, black = np.full_like(place, 255), np.zeros_like(place)
    return {
        "white on clear": Image.fromarray(np.dstack([white] * 3 + [place])),
        "white on clear black": Image.fromarray(np.dstack([place] * 3 + [place])),
        "white on black": Image.fromarray(np.dstack([place] * 3 + [white])),
        "grey and alpha": Image.fromarray(np.dstack([white, place]), "LA"),
        "grey": Image.fromarray(place),
        "clear": Image.fromarray(np.dstack([black] * 3 + [place])),
        "black": Image.fromarray(black),
        "black with alpha": Image.fromarray(np.dstack([black] * 3 + [white])),
    }


@pytest.mark.parametrize("name", ["white on clear", "white on clear black", "white on black", "grey and alpha", "grey"])
def test_masks_with_alpha(tmp_path, tiny, name):
    masks()[name].save(tmp_path / "mask.png")
    write_image(tmp_path / "a.png", Picture(torch.rand(3, 24, 32) * 0.2))
    assert enhance_file(tmp_path, tiny) == 0
    before, after = (read_image(tmp_path / p).pixels for p in ("a.png", "out/a.png"))
    changed = (before != after).any(0)
    assert changed[8:16, 10:20].any()
    changed[8:16, 10:20] = False
    assert not changed.any()


@pytest.mark.parametrize("name", ["clear", "black", "black with alpha"])
def test_a_mask_that_is_nowhere_white_is_named(tmp_path, tiny, capsys, name):
    masks()[name].save(tmp_path / "mask.png")
    write_image(tmp_path / "a.png", Picture(torch.rand(3, 24, 32) * 0.2))
    assert enhance_file(tmp_path, tiny) == 1
    assert "mask.png: nowhere white" in capsys.readouterr().err


@pytest.mark.parametrize("field_order", [None, "tff"])
@pytest.mark.parametrize("more", [[], ["--independent-frames"]])
def test_a_mask_holds_for_all_frames_of_a_film(tmp_path, tiny, field_order, more):
    Image.fromarray(np.repeat([[0, 255]], 48, 1).repeat(64, 0).astype(np.uint8)).save(tmp_path / "mask.png")
    write_film(tmp_path / "a.mkv", "ffv1", "yuv420p", count=5, field_order=field_order)
    assert enhance_file(tmp_path, tiny, "a.mkv", *more) == 0
    before, after = (decoded(tmp_path / name) for name in ("a.mkv", "out/a.mkv"))
    assert len(after) == 5
    change = np.abs(after.astype(int) - before).max((0, 1, 3))
    assert change[:40].max() <= 2 < change[56:].min()  # limited range, rounded twice


def decoded(path: Path) -> np.ndarray:
    with av.open(str(path)) as reader:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in reader.decode(video=0)])


def enhance_file(folder: Path, weights: Path, name: str = "a.png", *more: str) -> int:
    command = ["enhance", str(folder / name), "--output", str(folder / "out"), "--mask", str(folder / "mask.png")]
    return main([*command, *more, "--weights", str(weights), "--segmenter", "none", "--device", "cpu", "--steps", "1"])


def test_pictures_that_are_transparent_in_places_are_not_scored(tmp_path, tiny, capsys):
    for folder in ("low", "high"):
        (tmp_path / folder).mkdir()
        write_image(tmp_path / folder / "1.png", Picture(cut_out("disc", 0.0)[0]))
    folders = ["--low", str(tmp_path / "low"), "--high", str(tmp_path / "high")]
    assert main(["evaluate", *folders, "--weights", str(tiny), "--segmenter", "none", "--device", "cpu"]) == 1
    assert "1.png: transparent in places" in capsys.readouterr().err


def test_the_nodes_hide_it_too(jores_pack, jores_pack_nodes):
    """The one block, and every stage by itself: decomposition, adjustment, segmenter and finish."""
    run = jores_pack_nodes
    enhanced, staged, maps = [], [], []
    with torch.inference_mode():
        model, nets, _ = run["JoReSLoadModel"].execute(run["JoReSLoadModel"].define_schema().inputs[0].default).args
        segmenter = run["JoReSLoadSegmenter"].execute(
            run["JoReSLoadSegmenter"].define_schema().inputs[0].default
        ).args[0]  # fmt: skip
        for hidden in (0.0, 1.0):
            image = cut_out("disc", hidden).movedim(1, -1)
            seen = image[..., 3] > 0
            shipped = run["JoReSLoadModel"].define_schema().inputs[0].default
            whole = run["JoReSEnhance"].execute(image, 0.0, 1.0, 1, 0, False, shipped).args[0]
            retinex = run["JoReSDecompose"].execute(nets, image).args[0]
            condition = run["JoReSAdjust"].execute(nets, retinex, 0.0, 1.0).args[0]
            semantic = run["JoReSSegment"].execute(segmenter, image, "person").args[0]
            positive, _, latent = run["JoReSCondition"].execute(condition, semantic).args
            sampled = run["JoReSSample"].execute(model, positive, latent, 1, 0, 0.0).args[0]
            finished = run["JoReSFinish"].execute(sampled, image, 1.0).args[0]
            enhanced.append(whole[seen]), staged.append(finished[seen]), maps.append(semantic.probabilities)
    assert torch.equal(*enhanced) and torch.equal(*staged) and torch.equal(*maps)
