"""A Python that looks in no folder of yours, as the one of ComfyUI's portable build: the command line works with it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from jores.files.pictures import Picture, read_image, write_image

ROOT = Path(__file__).resolve().parents[1]
WAYS = {
    "as a module": (["-m", "jores"], ROOT), "as a folder": (["jores"], ROOT),
    "as a file": (["-I", os.path.join("jores", "__main__.py")], ROOT), "in it": (["."], ROOT / "jores"),
    "isolated": (["-I", "jores"], ROOT), "isolated, by a path": (["-I", os.path.join("..", "jores")], ROOT / "tests"),
    "isolated, by a whole path": (["-I", str(ROOT / "jores")], Path(sys.executable).parent),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_start_it(way):
    arguments, folder = WAYS[way]
    command = [sys.executable, "-W", "error", *arguments, "--help"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "") and "evaluate" in done.stdout


def test_a_picture_without_the_folder_on_the_path(tmp_path):
    write_image(tmp_path / "x.png", Picture(torch.full((3, 24, 32), 0.1)))
    options = ["--segmenter", "none", "--steps", "1", "--device", "cpu"]
    command = [sys.executable, "-I", str(ROOT / "jores"), "enhance", "x.png", "--output", "out", *options]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert read_image(tmp_path / "out" / "x.png").pixels.mean() > 0.2


@pytest.mark.skipif(sys.platform == "win32", reason="a copy of python.exe needs the files beside it")
def test_a_python_with_its_own_list_of_folders(tmp_path):
    """`python._pth` beside it, as in the portable build, makes it look nowhere else."""
    binary = tmp_path / "python"
    binary.write_bytes(Path(sys.executable).resolve().read_bytes())
    binary.chmod(0o755)
    folders = [path for path in sys.path if Path(path).is_dir() and not Path(path).is_relative_to(ROOT / "tests")]
    (tmp_path / "python._pth").write_text("\n".join(path for path in folders if Path(path) != ROOT) + "\nimport site\n")
    tried = subprocess.run([binary, "-c", "import sys, jores"], cwd=ROOT, capture_output=True, text=True, check=False)
    if "No module named 'jores'" not in tried.stderr:
        pytest.skip("this Python does not read such a list")
    done = subprocess.run([binary, "jores", "--help"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "enhance" in done.stdout, done.stderr
