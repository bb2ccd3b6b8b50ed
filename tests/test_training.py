"""Training: a run that is killed goes on exactly, two processes share one run, the data cost little."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import time

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file
from torch.nn import functional as F

from jores.checkpoint import held_parts, load_bundle, read_header
from jores.cli import main
from jores.metrics import psnr
from jores.training import RECIPES
from jores.training.data import CropSampler
from jores.training.losses import picture_loss
from jores.training.pairs import Pair, load_pairs, load_photos, validation_pairs
from jores.training.recipe import load_recipe
from tests.tiny import TINY
from tests.training_runs import ROOT, run, run_here, start
from tests.two_processes import TWO_PROCESSES

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """The released recipe at a toy size; the preset is registered in the child process by `run`."""
    path = tmp_path_factory.mktemp("recipe") / "tiny.yaml"
    recipe = load_recipe(RECIPES / "compact.yaml")
    recipe["preset"] = "tiny"
    for stage in ("decompose", "adjust", "diffuse"):
        recipe[stage]["loop"] = {"steps": 6, "warmup": 2, "learning_rate": 1e-3, "ema": 0.9}
        recipe[stage]["data"] = {"crop": 32, "batch": 2}
    recipe["adjust"]["loop"]["optimizer"] = "muon"
    recipe["expose"]["loop"]["steps"] = 6
    recipe["expose"]["data"].update(views=2, batch=8, set_shares=None, experts=None)
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return path


def test_a_run_cut_in_two_equals_one_that_was_not(data, recipe, tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    run(data, recipe, whole, "decompose", "--mixed-precision", "no")
    run(data, recipe, cut, "decompose", "--mixed-precision", "no", "--steps", 6, "--stop-after", 3)
    assert _state(cut, "step") == 3
    run(data, recipe, cut, "decompose", "--mixed-precision", "no")
    a, b = (load_bundle(p / "decompose.safetensors", parts=("decomposition",)).decomposition for p in (whole, cut))
    for x, y in zip(a.parameters(), b.parameters(), strict=True):
        assert torch.equal(x, y)


def test_a_run_that_goes_on_follows_a_recipe_that_changed(data, recipe, tmp_path):
    other = tmp_path / "other.yaml"
    changed = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    changed["decompose"]["loop"] |= {"learning_rate": 0.0, "weight_decay": 0.0}
    other.write_text(yaml.safe_dump(changed), encoding="utf-8")
    run_here(data, recipe, tmp_path / "run", "decompose", "--stop-after", 3)
    run_here(data, other, tmp_path / "run", "decompose", "--stop-after", 4)  # the step after has the new rate
    weights = _weights(tmp_path / "run")
    run_here(data, other, tmp_path / "run", "decompose")
    assert all(torch.equal(weights[name], weight) for name, weight in _weights(tmp_path / "run").items())


def _weights(out):
    return load_file(out / "checkpoint/model.safetensors")


def test_pictures_of_several_widths_are_validated_and_shown(data, recipe, tmp_path):
    other = tmp_path / "set"
    shutil.copytree(data, other)
    for folder in ("low", "high"):
        path = other / folder / "7.png"
        Image.open(path).crop((0, 0, 56, 56)).save(path)
    (other / "pairs.tsv").write_text(  # the sheet shows every eighth picture
        "\n".join([(data / "pairs.tsv").read_text(encoding="utf-8").strip(), *(
            f"{i}{j}\tval\tlow/{i}.png\thigh/{i}.png" for i in (6, 7) for j in range(9)
        )]) + "\n", encoding="utf-8"
    )  # fmt: skip
    run_here(other, recipe, tmp_path / "run", "decompose")
    assert (tmp_path / "run/contact_sheet.png").exists()


def test_a_validation_that_fails_costs_no_step(data, recipe, tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("in the validation")

    monkeypatch.setattr("jores.training.decompose.Decompose.validate", fail)
    with pytest.raises(RuntimeError, match="in the validation"):
        run_here(data, recipe, tmp_path / "run", "decompose")
    assert _state(tmp_path / "run", "step") == 6


def test_other_processes_draw_the_same_batches(data, recipe, tmp_path):
    alone, helped = tmp_path / "alone", tmp_path / "helped"
    run(data, recipe, alone, "decompose", "--mixed-precision", "no")
    run(data, recipe, helped, "decompose", "--mixed-precision", "no", "--workers", 2)
    a, b = (load_bundle(p / "decompose.safetensors", parts=("decomposition",)).decomposition for p in (alone, helped))
    for x, y in zip(a.parameters(), b.parameters(), strict=True):
        assert torch.equal(x, y)


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_asked_to_end_keeps_its_last_step(workers, kind, data, recipe, tmp_path):
    out = tmp_path / "run"
    process = start(data, recipe, out, "decompose", "--steps", 10**6, "--workers", workers)
    try:
        deadline = time.monotonic() + 120
        while not (out / "train.csv").exists() and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.1)
        (os.killpg if kind == signal.SIGINT else os.kill)(process.pid, kind)  # a terminal tells the whole group
        ended = 130 if kind == signal.SIGINT else 0
        assert process.wait(60) == ended, process.communicate()[1][-3000:]
    finally:
        process.kill()
    assert _state(out, "step") >= 50


def _state(out, key):
    return torch.load(out / "checkpoint/custom_checkpoint_1.pkl", weights_only=False)[key]


def test_every_stage_trains_on_two_processes_and_hands_on_what_the_next_one_needs(data, recipe, tmp_path):
    run(data, recipe, tmp_path / "d", "decompose", launcher=TWO_PROCESSES)
    bundle = tmp_path / "d/decompose.safetensors"
    assert held_parts(bundle) == ("decomposition",)
    run_here(data, recipe, tmp_path / "a", "adjust", "--init", bundle)
    assert held_parts(tmp_path / "a/adjust.safetensors") == ("decomposition", "adjustment")
    run_here(data, recipe, tmp_path / "e", "expose", "--init", tmp_path / "a/adjust.safetensors")
    run_here(data, recipe, tmp_path / "f", "diffuse", "--init", tmp_path / "e/expose.safetensors")
    final = tmp_path / "f/diffuse.safetensors"
    config, metadata = read_header(final)
    history = json.loads(metadata["training"])
    assert config == TINY and [r["stage"] for r in history] == ["decompose", "adjust", "expose", "diffuse"]
    assert [r["processes"] for r in history] == [2, 1, 1, 1]
    load_bundle(final)
    for name in ("validation.csv", "contact_sheet.png", "tensorboard"):
        assert (tmp_path / "f" / name).exists()


def test_a_stage_without_what_it_needs_says_so(data, recipe, tmp_path):
    done = run(data, recipe, tmp_path / "a", "adjust", check=False)
    assert done.returncode != 0 and "--stage adjust needs --init" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_run_does_not_replace_the_bundle_that_it_begins_from(data, recipe, tmp_path):
    run_here(data, recipe, tmp_path, "decompose")
    first = tmp_path / "decompose.safetensors"
    before = first.read_bytes()
    done = run(data, recipe, tmp_path, "decompose", "--init", first, check=False)
    assert done.returncode == 1 and "would replace" in done.stderr and first.read_bytes() == before


@pytest.mark.parametrize("stage, name", [("decompose", "decompose.safetensors"), ("decompose", "contact_sheet.png"),
                                         ("segmenter", "segmenter")])  # fmt: skip
def test_a_file_that_no_run_has_made_is_not_replaced(stage, name, data, recipe, tmp_path, capsys):
    (tmp_path / name).write_bytes(b"somebody's own")
    command = ["train", "--stage", stage, "--data", data, "--config", recipe, "--out", tmp_path, "--cpu"]
    assert main([str(word) for word in command]) == 1
    assert f"would replace {tmp_path / name}" in capsys.readouterr().err
    assert (tmp_path / name).read_bytes() == b"somebody's own" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("last", ["checkpoint", "checkpoint.old"])
def test_a_run_goes_on_over_the_files_that_it_has_made(last, data, recipe, tmp_path):
    run_here(data, recipe, tmp_path, "decompose", "--steps", 2)
    if last != "checkpoint":  # killed between the two names
        (tmp_path / "checkpoint").rename(tmp_path / last)
    run_here(data, recipe, tmp_path, "decompose", "--steps", 3)
    assert _state(tmp_path, "step") == 3


def test_a_recipe_for_another_preset_than_the_bundle_is_refused(data, tmp_path):
    bundle, paper = ROOT / "jores/weights/jores-compact.safetensors", ROOT / "jores/training/recipes/paper.yaml"
    done = run(data, paper, tmp_path / "a", "diffuse", "--init", bundle, check=False)
    assert done.returncode != 0 and "is of the preset 'texture', the recipe is for 'paper'" in done.stderr


def test_a_table_may_say_by_how_much_its_pairs_are_off(data, tmp_path):
    first, *rows = (data / "pairs.tsv").read_text(encoding="utf-8").splitlines()
    shifts = ["3", "-1.5", "", "-2.5", "0", "0", "9", "0"]
    table = [f"{first}\tshift_dx\tshift_dy", *(f"{row}\t{shift}\t" for row, shift in zip(rows, shifts, strict=True))]
    for folder in ("low", "high"):
        shutil.copytree(data / folder, tmp_path / folder)
    (tmp_path / "pairs.tsv").write_text("\n".join(table) + "\n", encoding="utf-8")
    assert [pair.name for pair in load_pairs(tmp_path, "train")] == ["1", "2", "4", "5"]
    assert len(load_pairs(tmp_path, "val")) == 2 and len(load_pairs(data, "train")) == 6


def test_pairs_of_different_sizes_are_named(data, tmp_path):
    shutil.copytree(data, tmp_path, dirs_exist_ok=True)
    Image.open(tmp_path / "low/2.png").crop((0, 0, 64, 56)).save(tmp_path / "low/2.png")
    with pytest.raises(ValueError, match=r"low/2.png and high/2.png differ in size: 64x56 and 72x56"):
        load_pairs(tmp_path, "train")


def test_pairs_are_read_as_the_product_reads_pictures(data, tmp_path):
    """16 bits of grey, and a picture that lies on its side."""
    shutil.copytree(data, tmp_path, dirs_exist_ok=True)
    for folder, top in (("low", 6000), ("high", 40000)):
        grey = np.linspace(0, top, 72 * 56).reshape(56, 72).astype(np.uint16)
        Image.fromarray(grey).save(tmp_path / folder / "0.png")
        turned = Image.open(tmp_path / folder / "1.png").rotate(90, expand=True)
        exif = turned.getexif()
        exif[0x0112] = 6
        turned.save(tmp_path / folder / "1.png", exif=exif)
    deep, turned = load_pairs(tmp_path, "train")[:2]
    assert deep.high.max() == pytest.approx(40000 / 257, abs=1) and deep.dark.max() == pytest.approx(6000 / 257, abs=1)
    assert np.array_equal(turned.high, load_pairs(data, "train")[1].high)


def test_a_set_may_have_no_pairs_to_validate_on_if_another_has(data, tmp_path):
    for folder in ("low", "high"):
        shutil.copytree(data / folder, tmp_path / folder)
    text = (data / "pairs.tsv").read_text(encoding="utf-8")
    (tmp_path / "pairs.tsv").write_text(text.replace("\tval\t", "\ttrain\t"), encoding="utf-8")
    assert [pair.name for pair in validation_pairs([data, tmp_path])] == [p.name for p in load_pairs(data, "val")]
    with pytest.raises(ValueError, match="no set of --data has pairs with split=val"):
        validation_pairs([tmp_path])


def test_photographs_smaller_than_the_crop_fit_into_a_batch(data):
    photos = [Pair("small", np.full((30, 50, 3), 90, np.uint8)), Pair("large", np.full((90, 80, 3), 90, np.uint8))]
    sampler = CropSampler(load_pairs(data, "train"), photos, crop=48, batch=8, photo_share=0.7)
    assert sampler(np.random.default_rng(0))["high"].shape == (8, 3, 48, 48)


def test_batches_depend_on_nothing_but_their_generator(data):
    sampler = CropSampler(load_pairs(data, "train"), crop=32, batch=3)
    first, again, other = (sampler(np.random.default_rng(seed)) for seed in ((0, 5), (0, 5), (0, 6)))
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert not torch.equal(first["low"], other["low"])
    assert first["high"].shape == (3, 3, 32, 32)


def test_place_tells_where_the_crop_lies_in_the_thumbnail():
    rows, columns = np.mgrid[0:200, 0:300] / 300
    picture = np.stack([rows, columns, rows * columns], -1) * 255
    pair = Pair("slopes", picture.astype(np.uint8), picture.astype(np.uint8))
    sampler = CropSampler([pair], crop=96, batch=1)
    for seed in range(12):  # all flips, and views of all sizes
        batch = sampler(np.random.default_rng(seed))
        where = F.affine_grid(batch["place"], [1, 3, 12, 12], align_corners=False)
        seen = F.grid_sample(batch["thumbnail"], where, padding_mode="border", align_corners=False)
        assert (seen - F.avg_pool2d(batch["low"], 8)).abs().max() < 0.03, seed


def test_the_psnr_loss_is_the_metric_in_nepers():
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand(2, 3, 24, 24, generator=generator)
    close, far = truth[:1] + 0.05, truth[1:] - 0.2
    loss = picture_loss(torch.cat([close, far]), truth, structure=0.0, edges=0.0, psnr=0.5)
    mean = (psnr(close, truth[:1]) + psnr(far, truth[1:])).item() / 2
    assert loss.item() == pytest.approx(-0.5 * mean * math.log(10) / 10, abs=0.02)  # of each picture, not of the batch
    assert picture_loss(truth, truth, structure=0.0, edges=0.0, psnr=0.5).isfinite()


@pytest.mark.parametrize("inside", [(), ("notes.txt",), ("film.gif", "raw.dng")])
def test_a_folder_without_photographs_is_refused(tmp_path, inside):
    for name in inside:
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match="--photos.*no photograph"):
        load_photos(tmp_path)
