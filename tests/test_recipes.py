"""The recipes: complete, what a base and its overrides come to, and the preset "paper" trains with its own."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys

import pytest
import torch
import yaml
from torch import nn

from jores.checkpoint import build, load_bundle, read_header, save_bundle
from jores.config import PRESETS, AdjustmentConfig, DecompositionConfig, JoReSConfig, RefinementConfig
from jores.training import RECIPES, STAGES
from jores.training.recipe import load_recipe, merged, read_recipe
from jores.training.settings import check_recipe
from tests.benchmarks import training_cost
from tests.training_runs import ROOT

pytestmark = pytest.mark.slow

PAPER = PRESETS["paper"]
FEATURES = (8, 16, 16)
SMALL_PAPER = dataclasses.replace(
    PAPER,
    decomposition=DecompositionConfig(8, 1),
    adjustment=AdjustmentConfig((8, *FEATURES), (1, 1, 1, 1), (1, 1, 1), 4, 8, light_bins=4),
    denoiser=dataclasses.replace(
        PAPER.denoiser, widths=(8, 8, 8, 16, 16), blocks=(1,) * 5, embedding=16, semantic_width=8,
        feature_widths=FEATURES,
    ),
    refinement=RefinementConfig(PAPER.refinement.fold, (8, 8), 1, 16, FEATURES),
)  # fmt: skip
FLOW = PRESETS["texture"]
SMALL_FLOW = dataclasses.replace(
    SMALL_PAPER,
    name="texture",
    denoiser=dataclasses.replace(
        FLOW.denoiser, widths=(8, 8, 16), blocks=(1,) * 3, embedding=16, semantic_width=8, feature_widths=FEATURES
    ),
    schedule=FLOW.schedule,
)

LAUNCH = """
import json, sys
from jores import config
preset = config.JoReSConfig.from_dict(json.loads(sys.argv.pop(1)))
config.PRESETS[preset.name] = preset
from jores.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_the_recipe_of_the_paper_preset_has_all_that_the_released_one_has():
    paper, compact = (load_recipe(RECIPES / f"{name}.yaml") for name in ("paper", "compact"))
    assert paper.keys() == compact.keys() and set(STAGES) <= paper.keys() and paper["preset"] == "paper"
    for stage in STAGES:
        for part in ("data", "options", "student"):
            released = compact[stage].get(part, {}).keys() - {"joint", "set_shares", "experts"}  # the user's own sets
            assert paper[stage].get(part, {}).keys() == released, (stage, part)


@pytest.mark.parametrize("stage", STAGES)
def test_two_cores_train_what_is_released_on_smaller_batches_and_for_less_long(stage):
    released, ours = (read_recipe(RECIPES / name, stage) for name in ("texture.yaml", "two_cores.yaml"))
    for recipe in released, ours:
        recipe["data"] = {k: v for k, v in recipe["data"].items() if k != "batch"}
        loop = recipe["loop"].items()
        recipe["loop"] = {k: v for k, v in loop if k not in ("steps", "warmup", "minutes", "validate_minutes", "ema")}
    assert ours == released


def test_a_file_is_laid_over_its_base(tmp_path):
    (tmp_path / "base.yaml").write_text("preset: compact\nadjust: {loop: {steps: 9, seed: 1}, data: {batch: 64}}\n")
    (tmp_path / "folder").mkdir()
    mine = tmp_path / "folder/mine.yaml"
    mine.write_text("base: ../base.yaml\nadjust: {loop: {seed: 2}}\n")
    expected = {"preset": "compact", "header": {}, "loop": {"steps": 9, "seed": 2}, "data": {"batch": 64}}
    assert read_recipe(mine, "adjust") == expected
    assert "base" not in load_recipe(mine)


def test_null_takes_an_entry_out_and_the_base_stays_as_it_was():
    base = {"a": {"b": 1, "c": 2}, "d": 3}
    assert merged(base, {"a": {"b": None}, "d": None, "e": {"f": 4}}) == {"a": {"c": 2}, "e": {"f": 4}}
    assert base == {"a": {"b": 1, "c": 2}, "d": 3}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("base: missing.yaml\n", r"missing\.yaml: not a recipe"),
        ("base: mine.yaml\n", r"mine\.yaml: this recipe is its own base"),
        ("[adjust]\n", r"mine\.yaml: not a recipe: expected a mapping"),
        ("adjust: {\n", r"mine\.yaml: not a recipe"),
        ("preset: compact\n", r"mine\.yaml: not a recipe with a part 'adjust'"),
        ("preset: compact\nadjust: 3\n", r"mine\.yaml: not a recipe with a part 'adjust'"),
    ],
)
def test_what_is_no_recipe_is_refused_by_name(text, said, tmp_path):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ValueError, match=said):
        read_recipe(tmp_path / "mine.yaml", "adjust")


@pytest.mark.parametrize(("name", "more"), [("texture", set()), ("finish", {"own", "own_error", "adversary"})])
def test_the_recipe_of_a_flow_has_no_part_of_the_regressors_loss(name, more):
    recipe = read_recipe(RECIPES / f"{name}.yaml", "diffuse")
    settings = {key for key, value in recipe["options"].items() if value is not None}
    assert (
        settings == {"refine", "prior_dropout", "perceptual"} | more and PRESETS[recipe["preset"]].denoiser.detail_std
    )


@pytest.mark.parametrize(("name", "small"), [("paper", SMALL_PAPER), ("texture", SMALL_FLOW), ("finish", SMALL_FLOW)])
def test_a_preset_for_gpus_trains_with_its_recipe(data, tmp_path, name, small):
    recipe = load_recipe(RECIPES / f"{name}.yaml")
    recipe["diffuse"]["loop"] |= {"steps": 4, "warmup": 1}
    recipe["diffuse"]["data"] = {"crop": 32, "batch": 2}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    torch.manual_seed(0)
    save_bundle(tmp_path / "init.safetensors", build(small, ("decomposition", "adjustment")))
    config = json.dumps(small.to_dict())
    command = [sys.executable, "-c", LAUNCH, config, "train", "--stage", "diffuse", "--data", data, "--cpu"]
    command += ["--config", tmp_path / "recipe.yaml", "--init", tmp_path / "init.safetensors", "--out", tmp_path / "f"]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*map(str, command)], env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    trained = tmp_path / "f/diffuse.safetensors"
    assert read_header(trained)[0] == small
    assert any(bool(p.any()) for p in load_bundle(trained).refinement.ircm.head.parameters())  # it started at zero


def test_the_estimate_of_memory_counts_each_activation_once_and_no_weight(monkeypatch):
    class Parts:
        decomposition = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 1)).to("meta")

        def parts(self):
            return {"decomposition": self.decomposition}

    parts, picture = Parts(), torch.empty(1, 3, 10, 10, device="meta")
    forwards = {"decomposition": lambda: parts.decomposition(picture)}
    monkeypatch.setattr(training_cost, "build", lambda *_, **__: parts)
    monkeypatch.setattr(training_cost, "_forwards", lambda *_: forwards)
    kept = training_cost.kept_bytes(JoReSConfig(), ("decomposition",), 10)
    assert kept == 2 * (3 * 100 + 4 * 100)  # the picture, and what the ReLU gives, which two layers need


def test_costs_grow_as_they_must():
    flops, kept, parameters = training_cost.step_cost(PRESETS["compact"], "diffuse", 128)
    more_flops, more_kept, _ = training_cost.step_cost(PRESETS["compact"], "diffuse", 256)
    assert more_flops == pytest.approx(4 * flops, rel=0.05) and more_kept == pytest.approx(4 * kept, rel=0.05)
    joint = training_cost.step_cost(PRESETS["compact"], "diffuse", 128, joint=True)
    assert joint[0] > flops and joint[2] > parameters


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("decompos: {}\n", r"mine\.yaml: has no setting 'decompos'; did you mean 'decompose'"),
        ("adjust: {lop: {}}\n", r"adjust has no setting 'lop'; did you mean 'loop'"),
        ("adjust: {loop: {learning_rat: 1.0}}\n", r"adjust: loop has no setting 'learning_rat'; did you mean"),
        ("adjust: {data: {cropp: 32}}\n", r"adjust: data has no setting 'cropp'; did you mean 'crop'"),
        ("adjust: {options: {smoth: 9}}\n", r"adjust: options has no setting 'smoth'; did you mean 'smooth'"),
        ("expose: {data: {phots: 0.1}}\n", r"expose: data has no setting 'phots'; did you mean 'photos'"),
        ("diffuse: {options: {joint: {produkt: 1}}}\n", r"options: joint has no setting 'produkt'"),
        ("segmenter: {data: {colour: 1}}\n", r"segmenter: data has no setting 'colour'; it has"),
        ("adjust: {loop: {learning_rate: 1e-3}}\n", r"learning_rate is '1e-3', not a number"),
        ("adjust: {options: {psnr: {a: 1}}}\n", r"psnr is \{'a': 1\}, not a number"),
        ("adjust: {loop: 5}\n", r"adjust: loop must hold settings by name, not 5"),
        ("diffuse: {options: {psnr: 0.04}}\n", r"options: psnr does nothing with the preset 'texture', .* is a flow"),
        ("diffuse: {options: {joint: {edges: 0.1}}}\n", r"joint does nothing"),
        (
            "diffuse: {options: {start_share: 0.3, psnr: 0.0}}\n",
            r"start_share does nothing .*write `start_share: null`",
        ),
        ("preset: compact\ndiffuse: {options: {perceptual: null, adversary: 1}}\n", r"adversary does .* is no flow"),
        ("preset: compact\n", r"perceptual does nothing with the preset 'compact'"),
    ],
)
def test_settings_that_no_stage_has_are_named(text, said, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(f"base: {RECIPES / 'texture.yaml'}\n{text}", encoding="utf-8")
    with pytest.raises(ValueError, match=said):
        check_recipe(path, load_recipe(path))


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_our_own_recipes_have_no_setting_that_is_unknown_or_does_nothing(path):
    check_recipe(path, load_recipe(path))
