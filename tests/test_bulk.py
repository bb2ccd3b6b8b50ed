"""Folders in bulk: shared out over processes, taken up again, and honest about what failed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from jores.checkpoint import SHIPPED_WEIGHTS, load_bundle
from jores.cli import main
from jores.commands.enhancer import Enhancer
from jores.files.pictures import Picture, read_image, write_image
from jores.pipeline import enhance
from tests.flat import flat
from tests.two_processes import TWO_PROCESSES

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
OPTIONS = ["--segmenter", "none", "--steps", "1", "--device", "cpu", "--precision", "float32"]


@pytest.fixture
def night(tmp_path):
    """Three pictures and a broken one between them."""
    folder = tmp_path / "night"
    folder.mkdir()
    for name, seed in (("a.png", 0), ("c.png", 1), ("d.png", 2)):
        pixels = torch.rand(3, 24, 32, generator=torch.Generator().manual_seed(seed)) * 0.15
        write_image(folder / name, Picture(pixels))
    (folder / "b.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    (folder / ".half-written.png").write_bytes(b"")
    return folder


def records(text: str) -> dict[str, dict]:
    return {Path(r["input"]).name: r for r in map(json.loads, text.splitlines())}


def test_two_processes_share_a_folder(night, tmp_path):
    pytest.importorskip("accelerate")
    out = tmp_path / "out"
    command = [sys.executable, *TWO_PROCESSES, "-m", "jores", "enhance", str(night), "--output", str(out), *OPTIONS]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 1, done.stderr
    found = records(done.stdout)
    assert sorted(found) == ["a.png", "b.png", "c.png", "d.png"]
    assert [name for name, record in found.items() if "error" in record] == ["b.png"]
    assert done.stderr.count("jores: 1 of 4 files failed") == 1 and "b.png: " in done.stderr
    assert sorted(p.name for p in out.iterdir()) == ["a.png", "c.png", "d.png"]
    nets = load_bundle(SHIPPED_WEIGHTS)
    for name in ("a.png", "c.png", "d.png"):
        expected = flat(enhance)(read_image(night / name).pixels[None], nets, steps=1)[0]
        assert (read_image(out / name).pixels - expected).abs().max() <= 0.51 / 255
    assert {record["process"] for record in found.values()} == {0, 1}


def test_a_stopped_run_goes_on(night, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / "c.png").write_bytes(b"from the first run")
    command = ["enhance", str(night), "--output", str(out), *OPTIONS]
    assert main([*command, "--resume"]) == 1
    captured = capsys.readouterr()
    found = records(captured.out)
    assert found["c.png"] == {"input": str(night / "c.png"), "output": str(out / "c.png"), "skipped": True}
    assert (out / "c.png").read_bytes() == b"from the first run"
    assert "error" in found["b.png"] and {"a.png", "d.png"} < {p.name for p in out.iterdir()}
    assert "1 of 4 files failed" in captured.err

    (night / "b.png").unlink()
    before = {p.name: p.stat().st_mtime_ns for p in out.iterdir()}
    assert main([*command, "--resume"]) == 0
    assert all(r["skipped"] for r in records(capsys.readouterr().out).values())
    assert {p.name: p.stat().st_mtime_ns for p in out.iterdir()} == before
    assert main(command) == 1
    assert "add --overwrite, or --resume" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main([*command, "--resume", "--overwrite"])


def test_a_name_that_the_output_cannot_show_stops_nothing(night, tmp_path):
    (night / "b.png").rename(night / "\u591c.png")
    command = [sys.executable, "-m", "jores", "enhance", str(night), "--output", str(tmp_path / "out"), *OPTIONS]
    env = {**os.environ, "PYTHONIOENCODING": "cp1252"}  # as on Windows, where the output goes into a file
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and sorted(records(done.stdout)) == ["a.png", "c.png", "d.png", "\u591c.png"]
    assert "1 of 4 files failed" in done.stderr


@pytest.mark.parametrize("command", ["evaluate", "info", "a failure"])
def test_every_command_writes_names_that_the_output_cannot_show(night, tmp_path, command):
    """Before: `evaluate` ended after the work, without its report."""
    folder, report = tmp_path / "\u591c", tmp_path / "scores.json"
    folder.mkdir()
    (night / "a.png").rename(folder / "\u591c.png")
    weights = Path(shutil.copy(SHIPPED_WEIGHTS, folder / "\u591c.safetensors"))
    arguments = {
        "evaluate": ["evaluate", "--low", folder, "--output", report, *OPTIONS], "info": ["info", "--weights", weights],
        "a failure": ["enhance", folder / "none.png", "--output", folder, "--weights", folder / "none.safetensors"],
    }[command]  # fmt: skip
    env = {**os.environ, "PYTHONIOENCODING": "cp1252"}
    started = [sys.executable, "-m", "jores", *map(str, arguments)]
    done = subprocess.run(started, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == int(command == "a failure") and "Traceback" not in done.stderr, done.stderr
    assert "\\u591c" in done.stdout + done.stderr and report.is_file() == (command == "evaluate")


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_a_picture_too_big_for_the_memory_does_not_stop_the_others(night, tmp_path, capsys, monkeypatch, error):
    def enhancer(self, pixels):
        if pixels.shape[-1] == 40:
            raise error
        return pixels, 0.5

    (night / "b.png").unlink()
    write_image(night / "big.png", Picture(torch.zeros(3, 30, 40)))
    monkeypatch.setattr(Enhancer, "__call__", enhancer)
    assert main(["enhance", str(night), "--output", str(tmp_path / "out"), *OPTIONS]) == 1
    found = records(capsys.readouterr().out)
    assert [name for name, record in found.items() if "error" in record] == ["big.png"]
    assert "big.png: out of memory" in found["big.png"]["error"]


def test_pictures_in_one_process_need_neither_accelerate_nor_pyav(night, tmp_path):
    program = (
        "import sys; sys.modules['accelerate'] = sys.modules['av'] = None; from jores.cli import main; "
        f"sys.exit(main(['enhance', {str(night / 'a.png')!r}, '--output', {str(tmp_path / 'out')!r}, *{OPTIONS}]))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "a.png").is_file()
