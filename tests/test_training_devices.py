"""Training where there is more than one device or process: what is on the processor, and what is agreed on."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from jores.checkpoint import load_bundle
from jores.training.adjust import Adjust
from jores.training.data import Pair, Sampler
from jores.training.decompose import Decompose
from jores.training.diffuse import Diffuse
from jores.training.expose import Expose
from tests.other_device import DEVICE, Elsewhere, other_device
from tests.test_nets import TINY, shaken

ROOT = Path(__file__).parents[1]


@pytest.fixture
def pairs():
    rng = np.random.default_rng(0)
    bright = [np.kron(rng.integers(40, 250, (8, 9, 3)), np.ones((8, 8, 1))).astype(np.uint8) for _ in range(3)]
    return [Pair(str(i), high, high // 10) for i, high in enumerate(bright)]


@pytest.fixture(scope="module")
def recipe():
    return yaml.safe_load((ROOT / "jores/training/recipes/compact.yaml").read_text(encoding="utf-8"))


def stage_of(name, pairs, recipe):
    nets, options = shaken(TINY), recipe[name].get("options")
    if name == "expose":
        return Expose(nets, pairs, None, pairs[:1], {"views": 2, "batch": 4, "lit": 0.25, "photos": 0.0})
    sampler = Sampler(pairs, crop=32, batch=2)
    if name == "diffuse":
        return Diffuse(nets, sampler, pairs[:1], options, None)
    return {"decompose": Decompose, "adjust": Adjust}[name](nets, sampler, pairs[:1], options)


@pytest.mark.parametrize("name", ["decompose", "expose", "adjust", "diffuse"])
def test_every_stage_learns_and_validates_on_a_device_of_its_own(name, pairs, recipe, monkeypatch):
    monkeypatch.setattr(torch, "autocast", lambda *_args, **_options: nullcontext())  # knows no such device
    here, stage = stage_of(name, pairs, recipe), stage_of(name, pairs, recipe)
    with torch.inference_mode():
        wanted, _rows = here.validate(here.objective.eval())
    batch = stage.batch(np.random.default_rng(0))
    with other_device():
        with torch.no_grad():
            stage.objective.to(DEVICE)  # as accelerate does
            terms = stage.objective.train()({key: value.to(DEVICE) for key, value in batch.items()})
        assert isinstance(terms["loss"], Elsewhere)
        with torch.inference_mode():
            scores, _rows = stage.validate(stage.objective.eval())
    assert scores == pytest.approx(wanted, abs=2e-2)


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


TWO_PROCESSES = """
import sys, time
import torch
from accelerate import PartialState
from accelerate.utils import gather
from pathlib import Path
from jores.training.loop import LoopConfig, train

class Toy:
    name, best_score = "toy", "score"
    objective = torch.nn.Linear(2, 1)

    def __init__(self):
        self.objective.forward = lambda batch: {"loss": torch.nn.functional.linear(
            batch["x"], self.objective.weight, self.objective.bias).square().mean()}

    def batch(self, rng):
        time.sleep(0.001 + 0.02 * rng.random() * (PartialState().process_index + 1))
        return {"x": torch.from_numpy(rng.normal(size=(4, 2))).float()}

    def validate(self, objective):
        return {"score": 0.0}, []

    def export(self, objective, path, record):
        path.write_text("exported")

stage, out = Toy(), Path(sys.argv[1])
config = LoopConfig(steps=10**6, minutes=0.1, validate_minutes=0.01, warmup=2, learning_rate=0.01)
train(stage, config, out, stop_after=10**6, mixed_precision="no", cpu=True)
weights = gather(stage.objective.weight.detach())
if PartialState().is_main_process:
    rows = (out / "validation.csv").read_text().splitlines()
    print("equal", torch.equal(weights[0], weights[1]), "validated", len(rows) - 1)
PartialState().destroy_process_group()
"""


def test_processes_agree_on_the_time(tmp_path):
    """When to validate, to end, and at which rate to learn: each process has a clock of its own."""
    script = tmp_path / "toy.py"
    script.write_text(TWO_PROCESSES, encoding="utf-8")
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    command += ["--mixed_precision", "no", "--num_machines", "1", "--dynamo_backend", "no", "--main_process_port", "0"]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command += [str(script), str(tmp_path / "run")]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    words = done.stdout.split()
    assert words[words.index("equal") + 1] == "True" and int(words[-1]) >= 3
