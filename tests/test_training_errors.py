"""What training refuses by name: options, settings of a recipe, cells of a table, and weights that burst."""

from __future__ import annotations

import re
import shutil
import signal

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file, save_file

from jores.cli import main
from jores.training import RECIPES, STAGES, loop
from jores.training.pairs import load_sets
from jores.training.recipe import read_recipe
from jores.training.settings import check_complete


@pytest.mark.parametrize(
    ("option", "value"),
    [("--steps", "0"), ("--steps", "-3"), ("--minutes", "-1"), ("--minutes", "nan"), ("--minutes", "inf"),
     ("--stop-after", "0"), ("--stop-after", "-1"), ("--workers", "-1")],
)  # fmt: skip
def test_an_option_that_would_train_nothing_is_a_wrong_command_line(option, value, tmp_path, capsys):
    command = ["train", "--stage", "decompose", "--data", str(tmp_path), "--out", str(tmp_path / "out"), option, value]
    with pytest.raises(SystemExit) as ended:
        main(command)
    assert ended.value.code == 2 and f"argument {option}: {value} is not a" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


class Toy:
    """A stage of two weights. Its gradients never end, so that a large rate bursts them; those of a `square` loss do
    before the weights. `at_step` is called with each batch."""

    name, best_score = "toy", "score"

    def __init__(self, at_step=lambda _: None, square=False):
        self.objective, self.at_step, self.drawn = torch.nn.Linear(1, 1), at_step, 0
        forward = self.objective.forward
        self.objective.forward = lambda batch: {"loss": forward(batch["x"]).pow(2 if square else 1).sum()}

    def batch(self, rng: np.random.Generator, /):
        self.drawn += 1
        self.at_step(self.drawn)
        return {"x": torch.ones(2, 1)}

    def validate(self, objective):
        return {"score": -float(sum(p.square().sum() for p in objective.parameters()))}, []

    def export(self, objective, path, record):
        path.write_text("exported", encoding="utf-8")


def train(out, steps, rate, stage=None, **settings):
    AcceleratorState._reset_state(True)
    config = loop.LoopConfig(steps=steps, warmup=0, learning_rate=rate, clip=1e30, **settings)
    try:
        return loop.train(stage or Toy(), config, out, stop_after=steps, mixed_precision="no", cpu=True)
    finally:
        AcceleratorState._reset_state(True)


def kept(out):
    state = torch.load(out / "checkpoint/custom_checkpoint_1.pkl", weights_only=False)
    return state["step"], {p.name: p.read_bytes() for p in (out / "checkpoint").iterdir()}


def test_burst_weights_leave_the_checkpoint_and_a_smaller_rate_goes_on_from_it(tmp_path):
    train(tmp_path, 3, 0.01)
    before = kept(tmp_path)
    with pytest.raises(ValueError, match=r"step 9: the validation gives no number\. .*checkpoint stays as it was"):
        train(tmp_path, 9, 1e37)
    assert kept(tmp_path) == before
    train(tmp_path, 9, 0.01)
    assert kept(tmp_path)[0] == 9


def test_without_a_checkpoint_the_error_promises_none(tmp_path):
    with pytest.raises(ValueError, match="gives no number, and no checkpoint was written: begin again with a smaller"):
        train(tmp_path, 9, 1e37)
    assert not (tmp_path / "checkpoint").exists()


def test_a_run_whose_steps_give_no_number_ends_soon(tmp_path):
    stage = Toy(square=True)
    with pytest.raises(ValueError, match=f"the last {loop.MOST_SKIPPED} steps gave no number"):
        train(tmp_path, 1000, 1e37, stage)
    assert stage.drawn < 2 * loop.MOST_SKIPPED


def test_a_run_that_is_stopped_does_not_keep_burst_weights(tmp_path):
    train(tmp_path, 3, 0.01)
    before, stage = kept(tmp_path), Toy(lambda drawn: signal.raise_signal(signal.SIGTERM) if drawn == 9 else None)
    with pytest.raises(ValueError, match="the weights are no numbers.* stays as it was"):
        train(tmp_path, 30, 1e37, stage)
    assert kept(tmp_path) == before


def test_a_checkpoint_of_burst_weights_is_named_when_it_is_resumed(tmp_path):
    train(tmp_path, 3, 0.01)
    weights = load_file(tmp_path / "checkpoint/model.safetensors")
    save_file(
        {name: weight * float("nan") for name, weight in weights.items()}, tmp_path / "checkpoint/model.safetensors"
    )
    with pytest.raises(ValueError, match="checkpoint holds weights that are no numbers"):
        train(tmp_path, 12, 0.01)


@pytest.mark.parametrize(("first", "then"), [("muon", "adamw"), ("adamw", "muon")])
def test_another_optimizer_than_the_checkpoints_is_named(first, then, tmp_path):
    train(tmp_path, 2, 0.01, optimizer=first)
    before = kept(tmp_path)
    with pytest.raises(ValueError, match=rf"checkpoint holds .*loop: optimizer.*it is '{first}', not '{then}'"):
        train(tmp_path, 4, 0.01, optimizer=then)
    assert kept(tmp_path) == before


def test_an_older_checkpoint_does_not_say_its_optimizer_but_its_groups_do(tmp_path, monkeypatch):
    def hidden():
        stage, net = Toy(), torch.nn.Sequential(*(torch.nn.Conv2d(48, 48, 3, padding=1) for _ in range(3)))
        stage.objective, forward = net, net.forward
        net.forward = lambda batch: {"loss": forward(torch.ones(1, 48, 4, 4)).square().mean()}
        return stage

    with monkeypatch.context() as patch:
        patch.setattr(loop._Progress, "state_dict", lambda self: {"step": self.step, "seconds": 0.0, "best": self.best})
        train(tmp_path, 2, 0.01, hidden(), optimizer="muon")
    with pytest.raises(ValueError, match="checkpoint holds a run with another optimizer"):
        train(tmp_path, 4, 0.01, hidden(), optimizer="adamw")


@pytest.mark.parametrize(
    ("stage", "text", "said"),
    [
        ("decompose", "data: {crop: 0}", "data: crop is 0; it must be a whole number from 16 on"),
        ("decompose", "data: {crop: [64, 64]}", r"data: crop is \[64, 64\]; it must be a whole number from 16 on"),
        ("decompose", "data: {batch: 0}", "data: batch is 0; it must be a whole number from 1 on"),
        ("decompose", "data: {batch: 2.5}", "data: batch is 2.5; it must be a whole number from 1 on"),
        ("decompose", "data: {photo_share: 2}", "data: photo_share is 2; it must be a number from 0 to 1"),
        ("adjust", "data: {cloth: -0.1}", "data: cloth is -0.1; it must be a number from 0 to 1"),
        (
            "adjust",
            "data: {set_shares: [0, 0, 0]}",
            "set_shares is .*must be a list with a number from 0 on for each set",
        ),
        ("adjust", "data: {set_shares: 0.5}", "set_shares is 0.5; it must be a list"),
        ("expose", "data: {experts: [0, -1, 1]}", "experts is .*must be a list with a whole number from 0 on"),
        ("expose", "data: {lit: 0.9}", "expose: data: lit, photos, own, paper are shares of a batch; .* 1.28, above 1"),
        ("decompose", "loop: {ema: 2}", "loop: ema is 2; it must be a number from 0 to 1"),
        ("decompose", "loop: {steps: 0}", "loop: steps is 0; it must be a whole number from 1 on"),
        ("decompose", "loop: {steps: true}", "loop: steps is True; it must be a whole number"),
        ("decompose", "loop: {learning_rate: .nan}", "loop: learning_rate is nan; it must be a number from 0 on"),
        ("decompose", "loop: {clip: 0}", "loop: clip is 0; it must be a number above 0"),
        ("decompose", "validate_every: 0", "decompose: validate_every is 0; it must be a whole number from 1 on"),
        (
            "decompose",
            "options: {reflectance: null}",
            "decompose: needs a value for options: reflectance, which is missing or null",
        ),
        ("decompose", "options: null", "decompose: needs a value for options: reflectance"),
        ("decompose", "loop: null", "decompose: needs a value for loop"),
        ("adjust", "data: {crop: null}", "adjust: needs a value for data: crop"),
        ("diffuse", "options: {own: 0.5}", "diffuse: needs a value for options: own_error"),
    ],
)
def test_a_setting_out_of_its_range_is_named_before_anything_is_loaded(stage, text, said, tmp_path, capsys):
    path = tmp_path / "mine.yaml"
    path.write_text(f"base: {RECIPES / 'texture.yaml'}\n{stage}: {{{text}}}\n", encoding="utf-8")
    command = ["train", "--stage", stage, "--data", tmp_path, "--config", path, "--out", tmp_path / "out"]
    assert main([str(word) for word in command]) == 1
    told = capsys.readouterr().err
    assert re.search(said, told) and told.startswith(f"jores: {path}: ") and not (tmp_path / "out").exists()


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_our_own_recipes_lack_nothing(path, stage):
    check_complete(path, stage, read_recipe(path, stage))


def test_null_leaves_a_setting_out_without_a_base_too(tmp_path):
    text = (
        "preset: compact\nexpose: {loop: {steps: 3, ema: null}, data: {views: 1, batch: 2, lit: 0.1, experts: null}}\n"
    )
    (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
    recipe = read_recipe(tmp_path / "mine.yaml", "expose")
    assert recipe["loop"] == {"steps": 3} and "experts" not in recipe["data"]


def table_with(column, cells, data, tmp_path):
    """A table of the set `data` with a further column, beside its pictures."""
    head, *rows = (data / "pairs.tsv").read_text(encoding="utf-8").splitlines()
    for folder in ("low", "high"):
        shutil.copytree(data / folder, tmp_path / folder)
    lines = [f"{head}\t{column}", *(f"{row}\t{cell}" for row, cell in zip(rows, cells, strict=True))]
    (tmp_path / "pairs.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("column", ["shift_dx", "shift_dy", "lit_share"])
@pytest.mark.parametrize("cell", ["n/a", "nan"])
def test_a_cell_that_is_no_number_is_named_with_its_row_and_column(column, cell, data, tmp_path):
    table_with(column, ["0", cell, *["0"] * 6], data, tmp_path)
    with pytest.raises(ValueError, match=rf"pairs.tsv: the row of '1' has '{cell}' in {column}, which is no number"):
        load_sets([tmp_path], "train")


def test_a_set_that_is_left_out_as_a_whole_is_named_also_beside_another(data, tmp_path):
    table_with("shift_dx", ["0.5"] * 8, data, tmp_path)
    assert len(load_sets([data, tmp_path], "train", max_shift=0.5)) == 12
    with pytest.raises(ValueError, match=r"pairs.tsv: all 6 of 6 pairs are off by more than max_shift, 0.3 pixels"):
        load_sets([data, tmp_path], "train", [0.3, 0.7], 0.3)
