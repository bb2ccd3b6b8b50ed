"""Training experiments: each candidate is trained with its own settings, once, and its figures land in one table."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from jores.checkpoint import build, held_parts, read_header, save_bundle
from jores.config import PRESETS
from jores.training.recipe import read_recipe
from jores.training.stages import TRAINS, build_stage
from tests.benchmarks import candidates
from tests.benchmarks.candidates import Experiment, main, merged, starting_bundle
from tests.tiny import TINY

pytestmark = pytest.mark.slow

FOLDER = Path(candidates.__file__).parent
ROOT = FOLDER.parents[1]


@pytest.fixture
def experiment(data, tmp_path):
    """Two candidates of three steps each for ANet, from a tiny bundle with a DNet."""
    save_bundle(tmp_path / "init.safetensors", build(TINY, ("decomposition", "adjustment")))
    content = {
        "stage": "adjust", "minutes": 5, "data": str(data), "init": str(tmp_path / "init.safetensors"),
        "keep": ["decomposition"], "arguments": ["--cpu", "--mixed-precision", "no"],
        "common": {"loop": {"steps": 3, "warmup": 1}, "data": {"crop": 32, "batch": 2, "set_shares": None},
                   "validate_every": 1},
        "candidates": {
            "baseline": None,
            "edges, one more block": {
                "options": {"edges": 0.3}, "data": {"retouch": 0.0},
                "config": {"adjustment": {"encoder": [2, 1, 1, 1]}},
            },
        },
    }  # fmt: skip
    path = tmp_path / "experiment.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def test_candidates_are_trained_once_and_compared(experiment, tmp_path, capsys):
    out, lines = tmp_path / "runs", []
    assert main([str(experiment), "--out", str(out)], lines.append) == 0, capsys.readouterr().err
    head, rule, baseline, edges = lines[0].splitlines()
    assert head.startswith("| candidate | step | minutes | psnr_raw |") and rule.count("|") == head.count("|")
    assert baseline.startswith("| baseline | 3 | ") and edges.startswith("| edges, one more block | 3 | ")
    assert baseline.split("|")[4:] != edges.split("|")[4:]

    recipe = yaml.safe_load((out / "edges-one-more-block/recipe.yaml").read_text(encoding="utf-8"))
    assert recipe["adjust"]["options"]["edges"] == 0.3 and recipe["adjust"]["data"]["crop"] == 32
    trained = out / "edges-one-more-block/adjust.safetensors"
    assert read_header(trained)[0].adjustment.encoder == (2, 1, 1, 1)
    assert held_parts(out / "edges-one-more-block/start.safetensors") == ("decomposition",)

    stamp, again = trained.stat().st_mtime_ns, []
    assert main([str(experiment), "--out", str(out)], again.append) == 0
    assert again == lines and trained.stat().st_mtime_ns == stamp
    assert main([str(experiment), "--out", str(out), "--minutes", "6"]) == 1
    assert "holds other settings of this name" in capsys.readouterr().err


def refused(experiment: Path, out: Path, capsys, **changes) -> str:
    """What is told of an experiment with `changes`, of which no candidate can be trained."""
    content = yaml.safe_load(experiment.read_text(encoding="utf-8"))
    experiment.write_text(yaml.safe_dump({**content, **changes}), encoding="utf-8")
    assert main([str(experiment), "--out", str(out)]) == 1
    return capsys.readouterr().err


def test_a_candidate_that_cannot_be_trained_names_its_log(experiment, tmp_path, capsys):
    told = refused(experiment, tmp_path / "runs", capsys, candidates={"no data": {}}, data=str(tmp_path / "nowhere"))
    log = tmp_path / "runs/no-data/train.log"
    assert told.startswith("no data: training failed: ") and "nowhere" in told and f"see {log}" in told
    assert "nowhere" in log.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        ({"loop": {"stepps": 3}}, "did you mean 'steps'"),
        ({"loop": 3}, "must hold settings by name"),
        (3, "must hold settings by name"),
        ({"config": {"schedule": {"prediction": "eps"}}}, "needs prediction 'v'"),
        ({"config": {"denoser": {"fold": 2}}}, "denoser"),
        ({"config": {"denoiser": {"folds": 2}}}, "folds"),
        ({"config": 3}, "3 is no part of a config"),
    ],
)
def test_settings_that_cannot_be_name_their_candidate(experiment, tmp_path, capsys, overrides, reason):
    """Before: the config's went without the name, and the others only into a log."""
    told = refused(experiment, tmp_path / "runs", capsys, candidates={"the odd one": overrides})
    assert told.startswith("the odd one: ") and reason in told and not (tmp_path / "runs").exists()


@pytest.mark.parametrize("file", sorted(FOLDER.glob("candidates_*.yaml")), ids=lambda file: file.stem)
def test_the_shipped_candidates_can_be_trained_from_the_shipped_bundle(file, data, tmp_path):
    """Every one is accepted as `train` does it, reaches the nets it names, and gives a loss of its own settings."""
    experiment, starts = Experiment.read(file), set()
    for candidate in experiment.candidates:
        settings = experiment.settings(candidate)
        recipe, init = tmp_path / "recipe.yaml", tmp_path / "start.safetensors"
        recipe.write_text(yaml.safe_dump(settings["recipe"]), encoding="utf-8")
        starting_bundle({**settings, "init": str(ROOT / settings["init"])}, init)
        part = read_recipe(recipe, experiment.stage)
        part["data"] |= {"crop": 32, "batch": 2}
        args = argparse.Namespace(stage=experiment.stage, init=init, data=[data], photos=None, split="train")
        stage = build_stage(args, part)
        loss = stage.objective(stage.batch(np.random.default_rng(0)))["loss"]
        assert torch.isfinite(loss), candidate
        trained = [getattr(stage.nets, name).state_dict() for name in TRAINS[experiment.stage]]
        sizes = tuple(tuple(value.shape) for state in trained for value in state.values())
        starts.add((json.dumps(settings["recipe"], sort_keys=True), sizes))
        assert bool(settings["config"]) == (stage.nets.config != PRESETS[part["preset"]]), candidate
    assert len(starts) == len(experiment.candidates)  # none is another one by another name


def test_overrides_go_deep_and_null_takes_out():
    base = {"a": {"b": 1, "c": {"d": 2}}, "e": 3}
    assert merged(base, {"a": {"c": {"d": 4}, "b": None}}) == {"a": {"c": {"d": 4}}, "e": 3}
    assert json.dumps(base) == '{"a": {"b": 1, "c": {"d": 2}}, "e": 3}'
