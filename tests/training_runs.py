"""Training at a toy size, in a process of its own or in this one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState

from jores.cli import main
from jores.config import PRESETS
from tests.tiny import TINY

ROOT = Path(__file__).parents[1]

LAUNCH = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell makes its background jobs ignore
from jores import config
from tests.tiny import TINY
config.PRESETS["tiny"] = TINY
from jores.cli import main
sys.exit(main(sys.argv[1:]))
"""


def start(data, recipe, out, stage, *extra, launcher=()):
    script = out.parent / "launch.py"
    script.write_text(LAUNCH, encoding="utf-8")
    command = [sys.executable, *launcher, str(script), "train", "--stage", stage, "--data", str(data)]
    command += ["--config", str(recipe), "--out", str(out), "--cpu", *map(str, extra)]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, env=env, text=True, start_new_session=True, **pipes)


def run(data, recipe, out, stage, *extra, launcher=(), check=True):
    process = start(data, recipe, out, stage, *extra, launcher=launcher)
    stdout, stderr = process.communicate(timeout=300)
    done = subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)
    if check and done.returncode:
        pytest.fail(done.stderr[-3000:])
    return done


def run_here(data, recipe, out, stage, *extra):
    """`run`, which must succeed, in this process: where one of its own would cost its start and show no more."""
    command = ["train", "--stage", stage, "--data", data, "--config", recipe, "--out", out, "--cpu", *extra]
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng():
        patch.setitem(PRESETS, "tiny", TINY)
        try:
            assert main([str(word) for word in command]) == 0
        finally:
            AcceleratorState._reset_state(True)
