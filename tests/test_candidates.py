"""Training experiments: each candidate is trained with its own settings, once, and its figures land in one table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from jores.checkpoint import build, held_parts, read_header, save_bundle
from jores.config import PRESETS
from jores.training.recipe import read_recipe
from tests.benchmarks import candidates
from tests.benchmarks.candidates import Experiment, main, merged, starting_bundle
from tests.tiny import TINY

pytestmark = pytest.mark.slow

FOLDER = Path(candidates.__file__).parent


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
    assert "holds 'baseline' with other settings" in capsys.readouterr().err


def test_a_candidate_that_cannot_be_trained_names_its_log(experiment, tmp_path, capsys):
    content = yaml.safe_load(experiment.read_text(encoding="utf-8"))
    content["candidates"] = {"no such option": {"loop": {"stepps": 3}}}
    experiment.write_text(yaml.safe_dump(content), encoding="utf-8")
    assert main([str(experiment), "--out", str(tmp_path / "runs")]) == 1
    assert "train.log" in capsys.readouterr().err
    assert "stepps" in (tmp_path / "runs/no-such-option/train.log").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["candidates_adjust.yaml", "candidates_diffuse.yaml"])
def test_the_examples_describe_nets_that_exist(name, tmp_path):
    experiment = Experiment.read(FOLDER / name)
    for candidate in experiment.candidates:
        settings = {**experiment.settings(candidate), "init": None}
        recipe = settings["recipe"][experiment.stage]
        original = read_recipe(Path(experiment.recipe), experiment.stage)
        for part in ("loop", "data", "options"):  # a misspelt override would be a new entry
            assert recipe[part].keys() - {"minutes"} <= original[part].keys() | {"warmup", "validate_minutes"}
        starting_bundle(settings, tmp_path / "start.safetensors")
        config = read_header(tmp_path / "start.safetensors")[0]
        assert (config != PRESETS["compact"]) == bool(settings["config"])


def test_overrides_go_deep_and_null_takes_out():
    base = {"a": {"b": 1, "c": {"d": 2}}, "e": 3}
    assert merged(base, {"a": {"c": {"d": 4}, "b": None}}) == {"a": {"c": {"d": 4}}, "e": 3}
    assert json.dumps(base) == '{"a": {"b": 1, "c": {"d": 2}}, "e": 3}'
