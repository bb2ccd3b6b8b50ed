"""Training where there is more than one device or process: what is on the processor, and what is agreed on."""

from __future__ import annotations

import copy
import csv
import os
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import nn
from torch.optim.swa_utils import AveragedModel

from jores.checkpoint import load_bundle
from jores.training import RECIPES, loop, stages
from jores.training.adjust import Adjust
from jores.training.data import CropSampler
from jores.training.decompose import Decompose
from jores.training.diffuse import Diffuse
from jores.training.expose import Expose
from jores.training.pairs import Pair
from jores.training.recipe import load_recipe
from jores.training.records import append_row
from tests.other_device import DEVICE, Elsewhere, other_device
from tests.tiny import TINY, shaken
from tests.two_processes import TWO_PROCESSES

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]


@pytest.fixture
def pairs():
    rng = np.random.default_rng(0)
    bright = [np.kron(rng.integers(40, 250, (8, 9, 3)), np.ones((8, 8, 1))).astype(np.uint8) for _ in range(3)]
    return [Pair(str(i), high, high // 10) for i, high in enumerate(bright)]


@pytest.fixture(scope="module")
def recipe():
    return load_recipe(RECIPES / "compact.yaml")


def stage_of(name, pairs, recipe):
    nets, options = shaken(TINY), recipe[name].get("options")
    if name == "expose":
        return Expose(nets, pairs, None, pairs[:1], {"views": 2, "batch": 4, "lit": 0.25, "photos": 0.0})
    sampler = CropSampler(pairs, crop=32, batch=2)
    if name == "diffuse":
        return Diffuse(nets, sampler, pairs[:1], options, None)
    return {"decompose": Decompose, "adjust": Adjust}[name](nets, sampler, pairs[:1], options)


@pytest.mark.parametrize("fast", [True, False])
def test_bfloat16_is_chosen_where_the_processor_computes_it_faster(monkeypatch, pairs, recipe, tmp_path, fast):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "avx512_bf16": fast})
    stage = stage_of("decompose", pairs, recipe)
    AcceleratorState._reset_state()
    run = loop._Run(stage, loop.LoopConfig(steps=1), tmp_path, "auto", True, 0)
    assert run.accelerator.mixed_precision == ("bf16" if fast else "no")
    AcceleratorState._reset_state()


@pytest.mark.parametrize("name", ["decompose", "expose", "adjust", "diffuse"])
def test_every_stage_learns_and_validates_on_a_device_of_its_own(name, pairs, recipe, monkeypatch):
    monkeypatch.setattr(torch, "autocast", lambda *_args, **_options: nullcontext())  # knows no such device
    here, stage = stage_of(name, pairs, recipe), stage_of(name, pairs, recipe)
    with torch.inference_mode():
        wanted, _rows = here.validate(here.objective.eval())
    batch = stage.batch(np.random.default_rng(0))
    averaged = AveragedModel(stage.objective)
    with other_device():
        stage.objective.to(DEVICE)  # as accelerate does
        averaged.to(DEVICE)
        terms = stage.objective.train()({key: value.to(DEVICE) for key, value in batch.items()})
        assert isinstance(terms["loss"], Elsewhere)
        terms["loss"].backward()
        gradients = [p.grad for p in stage.objective.parameters() if p.grad is not None]
        assert gradients and all(isinstance(gradient, Elsewhere) for gradient in gradients)
        with torch.inference_mode():
            scores, _rows = stage.validate(averaged.module.eval())
    assert scores == pytest.approx(wanted, abs=2e-2, nan_ok=True)  # no NIQE of so small pictures


@pytest.mark.parametrize("name", ["adjust", "diffuse"])
def test_frozen_nets_keep_their_layout_and_with_it_the_numbers_of_a_seed(name, pairs, recipe):
    objective = stage_of(name, pairs, recipe).objective
    before = [[p.stride() for p in net.parameters()] for net in objective.frozen]
    objective.to(memory_format=torch.channels_last)  # as the loop does with what is trained
    assert [[p.stride() for p in net.parameters()] for net in objective.frozen] == before


def test_the_exposure_head_goes_on_learning_from_its_own_weights(pairs, recipe, tmp_path):
    stage = stage_of("expose", pairs, recipe)
    before = {key: value.clone() for key, value in stage.objective.state_dict().items()}
    averaged = stage_of("expose", pairs, recipe).objective
    with torch.no_grad():
        averaged.net.out.bias.add_(1)
    stage.export(averaged, tmp_path / "a.safetensors", {"stage": "expose"})
    assert all(torch.equal(value, before[key]) for key, value in stage.objective.state_dict().items())
    saved = load_bundle(tmp_path / "a.safetensors").adjustment.exposure_head.out.bias
    assert (saved - before["net.out.bias"]).min() > 0.9


def test_experts_learn_from_their_own_sets_and_the_sorter_whose_a_picture_is(pairs):
    """The same dark pictures in two sets, whose light pictures are dim in the one and bright in the other."""
    rng = np.random.default_rng(1)
    noise = [np.kron(rng.integers(0, 60, (8, 9, 3)), np.ones((8, 8, 1))).astype(np.uint8) for _ in range(6)]
    sets = [
        Pair(f"{group}{i}", (high // 3 + 60 + 90 * group), high // 8 + 4 * group, group=group)
        for group in (0, 1) for i, high in enumerate(noise)
    ]  # fmt: skip
    nets = shaken(replace(TINY, adjustment=replace(TINY.adjustment, light_bins=2, light_experts=2)))
    data = {"views": 1, "batch": 16, "lit": 0.0, "experts": [0, 1]}
    stage = Expose(nets, sets, None, sets[:1], data)
    objective, rng = stage.objective, np.random.default_rng(0)
    optimizer = torch.optim.Adam(objective.parameters(), 1e-2)
    for _ in range(150):
        optimizer.zero_grad()
        objective(stage.batch(rng))["loss"].backward()
        optimizer.step()
    head, batch = objective.net.eval(), stage.batch(rng)
    with torch.no_grad():
        low, high = (expert.exposure(batch["known"]).mean() for expert in head.heads)
        error = (head.exposure(batch["known"]).log() - batch["exposure"].log()).abs().mean()
        sorted_right = (head.sorter.outputs(batch["known"]).argmax(1) == batch["expert"]).float().mean()
    assert low < 0.4 < high and error < 0.15 and sorted_right > 0.9


def test_experts_of_no_set_of_their_own_learn_from_all_alike(pairs):
    nets = shaken(replace(TINY, adjustment=replace(TINY.adjustment, light_bins=2, light_experts=2)))
    stage = Expose(nets, pairs, None, pairs[:1], {"views": 1, "batch": 4, "lit": 0.2, "experts": None})
    loss = stage.objective(stage.batch(np.random.default_rng(0)))["loss"]
    loss.backward()
    assert loss.isfinite() and all(head.out.weight.grad.abs().sum() > 0 for head in stage.objective.net.heads)


@pytest.mark.parametrize("experts, told", [([0], "experts for 1 sets"), ([0, 2], "experts: 2 is not one of the 2")])
def test_experts_that_do_not_fit_the_sets_are_named_before_the_work(pairs, experts, told):
    nets = shaken(replace(TINY, adjustment=replace(TINY.adjustment, light_bins=2, light_experts=2)))
    pairs[1].group = 1
    with pytest.raises(ValueError, match=told):
        Expose(nets, pairs, None, pairs[:1], {"views": 1, "batch": 4, "lit": 0.2, "experts": experts})


def test_an_expert_without_a_picture_is_named_and_one_with_a_single_picture_learns(pairs):
    """Both made every loss NaN: the run ended well and had nothing to export."""
    nets = shaken(replace(TINY, adjustment=replace(TINY.adjustment, light_bins=2, light_experts=2)))
    pairs, data = copy.deepcopy(pairs), {"views": 1, "batch": 16, "lit": 0.0}
    for pair in pairs:
        pair.group = 0
    with pytest.raises(ValueError, match="no set of --data is for expert 1"):
        Expose(nets, pairs, None, pairs[:1], {**data, "experts": [0]})
    pairs[1].group = 1
    stage = Expose(nets, pairs[:2], None, pairs[:1], {**data, "experts": [0, 1]})
    assert stage.objective(stage.batch(np.random.default_rng(0)))["loss"].isfinite()


def test_a_validation_that_gives_no_number_ends_the_run_with_a_word(tmp_path, pairs, recipe):
    stage = stage_of("decompose", pairs, recipe)
    stage.best_score, stage.validate = "score", lambda objective: ({"score": float("nan")}, [])
    AcceleratorState._reset_state()
    with pytest.raises(ValueError, match="step 1: the validation gives no number"):
        loop.train(stage, loop.LoopConfig(steps=1), tmp_path, stop_after=1, mixed_precision="no", cpu=True)
    assert not (tmp_path / "checkpoint").exists() and not (tmp_path / "decompose.safetensors").exists()
    AcceleratorState._reset_state()


def test_rows_with_other_columns_than_the_file_keep_their_names(tmp_path):
    path = tmp_path / "validation.csv"
    for row in ({"step": 1, "score": 2.5}, {"step": 2, "error": 0.1, "score": 3.0}, {"step": 3, "score": 3.5}):
        append_row(path, row)
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert [row["score"] for row in rows] == ["2.5", "3.0", "3.5"] and [r["error"] for r in rows] == ["", "0.1", ""]


@pytest.mark.parametrize("change", [{"light_experts": 2}, {"scene": 3}, {"light_experts": 2, "scene": 3}])
def test_a_bundle_with_one_head_goes_on_as_another_that_proposes_the_same(change):
    one = shaken(replace(TINY, adjustment=replace(TINY.adjustment, light_bins=2)))
    other = replace(one.config, adjustment=replace(one.config.adjustment, **change))
    grown, pictures = stages._grown(one, other), torch.rand(2, 3, 48, 64) * 0.3
    proposed = grown.exposure_head.eval()(pictures, torch.randn(2, 3))
    torch.testing.assert_close(proposed, one.anet.exposure_head.eval()(pictures))


class Scaling(Accelerator):
    """Scales gradients on a processor, too, where accelerate takes "fp16" and does without."""

    def __init__(self, **options):
        super().__init__(**options)
        self.scaler, self.native_amp = torch.amp.GradScaler("cpu", init_scale=4.0), True


class Overflow(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, batch):
        return {"loss": self.weight * batch["x"]}


def test_a_gradient_that_overflows_costs_one_step_and_halves_the_scale(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "Accelerator", Scaling)
    weights, scales, stage = [], [], SimpleNamespace(objective=Overflow())
    data = ({"x": torch.tensor(size)} for size in (1.0, torch.inf, 1.0))
    run = loop._Run(stage, loop.LoopConfig(warmup=0), tmp_path, "fp16", cpu=True, workers=0)
    try:
        for _ in range(3):
            run._step(data)
            weights.append(float(stage.objective.weight.detach()))
            scales.append(run.accelerator.scaler.get_scale())
    finally:
        run.writer.close()
        AcceleratorState._reset_state(True)
    assert scales == [4, 2, 2] and 1 > weights[0] == weights[1] > weights[2]


TOY = """
import os, signal, sys, time
import torch
import accelerate.accelerator
from accelerate import PartialState
from accelerate.utils import gather
from pathlib import Path
from jores.training.shutdown import leave
from jores.training.loop import LoopConfig, train

class Toy:
    name, best_score = "toy", "score"
    objective, batches = torch.nn.Linear(2, 1), 0

    def __init__(self):
        self.objective.forward = lambda batch: {"loss": torch.nn.functional.linear(
            batch["x"], self.objective.weight, self.objective.bias).square().mean()}

    def batch(self, rng):
        self.batches += 1
        if ends == "signal" and self.batches == 60 and PartialState().is_main_process:
            os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.001 + 0.02 * rng.random() * (PartialState().process_index + 1))
        return {"x": torch.from_numpy(rng.normal(size=(4, 2))).float()}

    def validate(self, objective):
        return {"score": 0.0}, []

    def export(self, objective, path, record):
        path.write_text("exported")

def slowly(*args, save=accelerate.accelerator.save_accelerator_state, **options):
    time.sleep(0.1 * PartialState().process_index)
    return save(*args, **options)

accelerate.accelerator.save_accelerator_state = slowly
ends, stage, out = sys.argv[1], Toy(), Path(sys.argv[2])
minutes = 0.1 if ends == "time" else 0
config = LoopConfig(steps=10**6, minutes=minutes, validate_minutes=0.01, warmup=2, learning_rate=0.01)
train(stage, config, out, stop_after=10**6, mixed_precision="no", cpu=True)
weights = gather(stage.objective.weight.detach())
if PartialState().is_main_process:
    rows = (out / "validation.csv").read_text().splitlines()
    step = torch.load(out / "checkpoint/custom_checkpoint_1.pkl", weights_only=False)["step"]
    print("equal", torch.equal(weights[0], weights[1]), "step", step, "validated", len(rows) - 1)
leave()
"""


@pytest.mark.parametrize("ends", ["time", "signal"])
def test_processes_agree_on_the_time_and_on_the_end(ends, tmp_path):
    """When to validate, to end, and at which rate to learn: each process has a clock of its own, and only the main one
    is sent a signal here."""
    script = tmp_path / "toy.py"
    script.write_text(TOY, encoding="utf-8")
    command = [sys.executable, *TWO_PROCESSES, str(script), ends, str(tmp_path / "run")]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    words = done.stdout.split()
    assert words[1] == "True"
    assert int(words[-1]) >= 3 if ends == "time" else int(words[3]) == 60
