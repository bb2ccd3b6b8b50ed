"""A kill at any point of a save leaves a complete checkpoint or segmenter, and the next save puts all right again."""

from __future__ import annotations

import contextlib
import os
import shutil
from itertools import product
from pathlib import Path

import pytest
from accelerate import Accelerator
from safetensors.torch import load_file
from transformers import SegformerConfig, SegformerForSemanticSegmentation

from jores.files.saving import former, swap_folder
from jores.training import checkpoints
from jores.training.segmenter import DistillationObjective, DistillSegmenter

POINTS = range(1, 5)
"""Of a save: its renames and deletions in their order."""


class Kill(BaseException):
    """Ends the work at once, as a signal does."""


@pytest.fixture
def killed_at(monkeypatch):
    """A function that kills the n-th rename or deletion from now on: before it is done, a deletion in its midst."""
    rename, delete, left = os.replace, shutil.rmtree, [0]

    def counted(action, half):
        def act(*paths, **more):
            left[0] -= 1
            if left[0] == 0:
                half(paths[0])
                raise Kill
            return action(*paths, **more)

        return act

    def half_deleted(folder):
        for file in list(Path(folder).glob("*"))[:1]:
            file.unlink()

    monkeypatch.setattr(os, "replace", counted(rename, lambda path: None))
    monkeypatch.setattr(shutil, "rmtree", counted(delete, half_deleted))
    return lambda point: left.__setitem__(0, point)


def kills(save, killed_at, points):
    """Saves 2, 3, ..., each killed at its point, or done where it has fewer points."""
    for number, point in enumerate(points, 2):
        killed_at(point)
        with contextlib.suppress(Kill):
            save(number)
    killed_at(0)


@pytest.mark.parametrize("points", [*product(POINTS, repeat=3)])
def test_a_folder_is_swapped_for_another_one(tmp_path, killed_at, points):
    folder = tmp_path / "folder"

    def save(number):
        new = tmp_path / "folder.new"
        new.mkdir(exist_ok=True)
        for name in ("a", "b"):
            (new / name).write_text(str(number))
        swap_folder(new, folder)

    save(1)
    kills(save, killed_at, points)
    found = folder if folder.exists() else former(folder)
    first, second = ((found / name).read_text() for name in ("a", "b"))
    assert first == second
    save(9)
    assert (folder / "a").read_text() == "9" and [path.name for path in tmp_path.iterdir()] == ["folder"]


class Step:
    """What a run remembers."""

    def __init__(self):
        self.number = 0

    def state_dict(self):
        return {"number": self.number}

    def load_state_dict(self, state):
        self.number = state["number"]


@pytest.mark.parametrize("points", [*product(POINTS, repeat=2)])
def test_a_run_goes_on_from_a_complete_checkpoint(tmp_path, killed_at, points):
    accelerator, step = Accelerator(cpu=True), Step()
    accelerator.register_for_checkpointing(step)

    def save(number):
        step.number = number
        checkpoints.save(accelerator, tmp_path)

    save(1)
    kills(save, killed_at, points)
    step.number = 0
    checkpoints.load(accelerator, checkpoints.find(tmp_path))
    assert 1 <= step.number <= 3


@pytest.mark.parametrize("points", [*product(range(1, 6), repeat=2)])
def test_a_segmenter_that_is_trained_on_is_never_lost(tmp_path, killed_at, points):
    small = {"depths": [1], "hidden_sizes": [8], "num_attention_heads": [1], "num_encoder_blocks": 1, "sr_ratios": [1],
             "patch_sizes": [3], "strides": [4], "mlp_ratios": [1], "decoder_hidden_size": 8}  # fmt: skip
    objective = DistillationObjective(SegformerForSemanticSegmentation(SegformerConfig(**small)))

    def save(number):
        DistillSegmenter.export(None, objective, tmp_path / "student.safetensors", {"step": number})

    save(1)
    kills(save, killed_at, points)
    folder = tmp_path / "student"
    assert load_file((folder if folder.exists() else former(folder)) / "model.safetensors")
