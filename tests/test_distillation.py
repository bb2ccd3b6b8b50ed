"""Stage "segmenter": a student learns a teacher's map from the dark picture, and training goes on from its folder."""

from __future__ import annotations

import csv
import json
import shutil

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file

from jores.semantics import load_segmenter
from jores.training import RECIPES
from jores.training.recipe import load_recipe
from tests.tiny import NAMES
from tests.training_runs import run, run_here

pytestmark = pytest.mark.slow

# Every colour its own class: all that a real teacher's code has to offer, at a toy size.
TEACHER = """
import torch
from safetensors.torch import load_file

class Teacher(torch.nn.Module):
    def __init__(self, weight):
        super().__init__()
        self.features, self.cls = torch.nn.AvgPool2d(4, 4, ceil_mode=True), torch.nn.Conv2d(3, 151, 1)
        self.load_state_dict({"cls.weight": weight, "cls.bias": -weight.square().sum((1, 2, 3)) / 2})

def load_teacher(path):
    return Teacher(load_file(path)["weight"]).eval()
"""


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    folder = tmp_path_factory.mktemp("teacher")
    (folder / "ade20k_teacher.py").write_text(TEACHER, encoding="utf-8")
    weight = torch.rand(151, 3, 1, 1, generator=torch.Generator().manual_seed(0)) * 20
    weight[9:] = -20  # nine classes ever win
    save_file({"weight": weight}, folder / "ade20k_teacher_fp16.safetensors")
    labels = "\n".join(f"{i} {name}" for i, name in enumerate(("others", *NAMES)))
    (folder / "ade20k_labels.txt").write_text(labels, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """The released recipe with a toy student."""
    recipe = load_recipe(RECIPES / "compact.yaml")
    recipe["segmenter"]["loop"] |= {"steps": 60, "warmup": 5, "learning_rate": 5e-3, "ema": 0.9}
    recipe["segmenter"]["data"] |= {"height": 32, "width": 64, "batch": 4, "teacher_side": 72, "val_photos": 1}
    recipe["segmenter"]["student"] |= {"hidden_sizes": [8, 8, 16, 16], "depths": [1] * 4, "decoder_hidden_size": 16}
    recipe["segmenter"]["student"]["num_attention_heads"] = [1, 1, 2, 2]
    path = tmp_path_factory.mktemp("recipe") / "tiny.yaml"
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def photos(data, tmp_path_factory):
    """Two photographs to learn from; one to score and one more to learn from in the folder beside."""
    root = tmp_path_factory.mktemp("photos")
    for i, folder in enumerate(("train", "train", "val", "val")):
        (root / f"photos_{folder}").mkdir(exist_ok=True)
        Image.open(data / f"high/{i}.png").transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(
            root / f"photos_{folder}/{i}.png"
        )
    return root / "photos_train"


def agreement(out):
    with (out / "validation.csv").open(encoding="utf-8") as file:
        return float(list(csv.DictReader(file))[-1]["agreement"])


def test_a_student_learns_from_the_teacher_and_goes_on_from_its_folder(data, recipe, teacher, photos, tmp_path):
    extra = ("--teacher", teacher, "--photos", photos, "--mixed-precision", "no")
    fresh, trained, again = tmp_path / "fresh", tmp_path / "trained", tmp_path / "again"
    still = tmp_path / "still.yaml"  # a step without a rate: the weights stay as they are
    settings = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    settings["segmenter"]["loop"] |= {"steps": 1, "learning_rate": 0.0}
    still.write_text(yaml.safe_dump(settings), encoding="utf-8")
    run_here(data, still, fresh, "segmenter", *extra)
    run_here(data, recipe, trained, "segmenter", *extra)
    assert agreement(trained) > agreement(fresh) + 0.1
    assert set(load_file(trained / "teacher-more-photos-72.safetensors")) == {"3"}  # not the one that is scored
    run_here(data, still, again, "segmenter", *extra, "--init", trained / "segmenter")
    a, b = (load_file(p / "segmenter/model.safetensors") for p in (trained, again))
    assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a if "batch_norm" not in k)
    assert load_segmenter(trained / "segmenter")(torch.rand(1, 3, 40, 60)).labels == NAMES


def test_other_pictures_of_the_same_names_are_seen_anew(data, recipe, teacher, tmp_path):  # noqa: F811
    def cached(out):
        run_here(other, recipe, out, "segmenter", "--teacher", sees, "--steps", 1)
        scores = json.loads((out / "teacher-lol-72-dark.json").read_text(encoding="utf-8"))
        return scores, *(load_file(out / f"teacher-{key}-72.safetensors") for key in ("pairs", "val-lol"))

    sees, other = tmp_path / "teacher", tmp_path / "set"
    shutil.copytree(teacher, sees)
    weight = load_file(teacher / "ade20k_teacher_fp16.safetensors")["weight"]
    weight[:9] *= 0.1  # soft maps, which tell one picture from another
    save_file({"weight": weight}, sees / "ade20k_teacher_fp16.safetensors")
    shutil.copytree(data, other)
    former = cached(tmp_path / "out")
    for path in (*other.glob("low/*.png"), *other.glob("high/*.png")):
        Image.open(path).transpose(Image.Transpose.FLIP_TOP_BOTTOM).save(path)
    now, expected = cached(tmp_path / "out"), cached(tmp_path / "fresh")
    assert now[0] == expected[0] != former[0]
    for found, wanted, old in zip(now[1:], expected[1:], former[1:], strict=True):
        assert all(torch.equal(found[name], wanted[name]) for name in wanted)
        assert not all(torch.equal(found[name], old[name]) for name in old)


def test_what_is_no_student_is_refused_by_name(data, recipe, teacher, tmp_path):  # noqa: F811
    (tmp_path / "not a student").mkdir()
    shutil.copy(recipe, tmp_path / "not a student/config.json")
    done = run(
        data, recipe, tmp_path / "out", "segmenter", "--teacher", teacher, "--init", tmp_path / "not a student",
        check=False,
    )  # fmt: skip
    assert done.returncode and "not a student" in done.stderr and "Traceback" not in done.stderr
