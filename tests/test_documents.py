"""What the documents say of the code, the weights and the figures is so."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors import safe_open

from jores.checkpoint import FORMER_SEGMENTER, SHIPPED_SEGMENTER, SHIPPED_WEIGHTS
from tests.benchmarks import training_cost
from tests.names import ROOT, defined_in

NAME = r"`[A-Za-z_][\w.]*`"
FOLDERS = ("jores", "nodes", "tests")
README, CARD, GUIDE = (
    (ROOT / name).read_text("utf-8") for name in ("README.md", "jores/weights/MODEL_CARD.md", "CONTRIBUTING.md")
)


def pointers() -> set[tuple[str, str]]:
    """(path, name) in CONTRIBUTING.md: "`path`, `name`", "`name` (`path`" and "`NAME` of `path`"."""
    found = set()
    for path, names in re.findall(rf"`([\w/]+\.py)`((?:(?:,| and)\s+{NAME})+)", GUIDE):
        found |= {(path, name) for name in re.findall(r"`([\w.]+)`", names)}
    for names, path in re.findall(rf"({NAME}(?:,\s+{NAME})*)\s+(?:\(|of |in )`([\w/]+\.py)`", GUIDE):
        found |= {(path, name) for name in re.findall(r"`([\w.]+)`", names)}
    return {(path, name) for path, name in found if not name.endswith(".py") and not name.startswith("os.")}


def files_of(path: str) -> list[Path]:
    """The file, or those of that name where a path was given before and is left out."""
    return [ROOT / path] if (ROOT / path).is_file() else [f for d in FOLDERS for f in (ROOT / d).rglob(path)]


def test_the_guide_points_at_what_is_there() -> None:
    found = pointers()
    assert {("jores/imaging/resize.py", "reduced"), ("jores/pipeline.py", "segment"), ("compositing.py", "finish"),
            ("jores/checkpoint.py", "FORMAT_VERSION"), ("jores/conditions.py", "Keeper")} <= found  # fmt: skip
    wrong = [f"{path}: {name}" for path, name in sorted(found)
             if not any(name in defined_in(file) for file in files_of(path))]  # fmt: skip
    assert not wrong
    paths = re.findall(r"`((?:jores|nodes|tests)/[\w/]+(?:\.\w+|/))`", GUIDE)
    assert len(paths) > 30 and not [path for path in paths if not (ROOT / path).exists()]


def test_the_door_names_every_script_of_the_browser() -> None:
    scripts = [path.name for path in (ROOT / "nodes" / "web").rglob("*.js")]
    assert scripts and all(name in (ROOT / "__init__.py").read_text("utf-8") for name in scripts)


def training_rows() -> list[tuple[str, str, int]]:
    """Stage, text and minutes of the rows of the card's table of training."""
    table = CARD[CARD.index("## Training") :].split("\n## ")[0]
    rows = re.findall(r"^\| (expose|adjust|diffuse)\b(.+) \| (\d+) \|$", table, re.MULTILINE)
    return [(stage, text, int(minutes)) for stage, text, minutes in rows]


@pytest.mark.parametrize("stage", ["expose", "adjust", "diffuse"])
def test_the_card_tells_the_training_that_the_weights_record(stage: str) -> None:
    with safe_open(SHIPPED_WEIGHTS, "pt") as file:
        record = json.loads(file.metadata()["training"])
    last = [entry for entry in record if entry["stage"] == stage][-1]
    steps = f"{last['step']:,}" if isinstance(last["step"], int) else last["step"]  # of an average that is one run
    assert any(stage == row and f"{steps} " in text for row, text, _ in training_rows()), steps


def test_the_readme_adds_up_the_cards_minutes() -> None:
    (before,) = re.findall(r"Release 0\.1: two cores for (\d+) minutes", CARD)
    minutes = int(before) + sum(minutes for *_, minutes in training_rows())
    (hours,) = re.findall(r"trained for (\d+)\s+hours on\s+two processor cores", README)
    assert int(hours) == round(minutes / 60)


def test_the_readme_says_which_anet_its_figures_are_by() -> None:
    """Where the card says that the blind look is by an earlier ANet, so does the README."""
    good = README[README.index("## How good it is") :].split("\n## ")[0]
    assert ("by ANet as it was before" in " ".join(CARD.split())) == ("with an earlier ANet" in " ".join(good.split()))


def test_the_former_segmenter_is_of_release_0_1() -> None:
    """0.2.0 shows what DeepLab sees unless a graph says otherwise."""
    texts = [README, CARD, *((ROOT / f"jores/{name}").read_text("utf-8") for name in
             ("checkpoint.py", "weights/WEIGHTS_LICENSE"))]  # fmt: skip
    assert (SHIPPED_SEGMENTER.name, FORMER_SEGMENTER.name) == ("deeplab-ade20k", "segformer-dark")
    assert not [hit for text in texts for hit in re.findall(r"releases 0\.1 and 0\.2|of earlier releases", text)]


def test_the_readmes_lines_for_programs_run() -> None:
    """As a program outside of the clone, that names the clone's folder."""
    (lines,) = re.findall(r"## As a library\n\n```\n(.+?)```", README, re.DOTALL)
    (folder,) = re.findall(r'sys.path.insert\(0, ("[^"]+")\)', lines)
    program = (
        "import torch; dark = torch.rand(1, 3, 24, 32) * 0.1\n"
        + lines.replace(folder, repr(str(ROOT)))
        + "assert bright.shape == dark.shape and bright.mean() > 3 * dark.mean()"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_files_are_named_where_they_are() -> None:
    """In the code's words and in the documents."""
    names = subprocess.run(["git", "ls-files", "*.py", "*.md", "*.yaml"], cwd=ROOT, capture_output=True, text=True)
    made_up = ("tests/test_dev.py", "tests/test_publishing.py")  # which name files that they make
    path = r"(?<![\w/.])(?:jores|nodes|tests|workflows)/[\w./-]+\.(?:py|md|yaml|safetensors)\b"
    found = {(name, hit) for name in names.stdout.splitlines() if name not in made_up
             for hit in re.findall(path, (ROOT / name).read_text("utf-8"))}  # fmt: skip
    assert (len(found) > 100 or names.returncode) and not [pair for pair in found if not (ROOT / pair[1]).exists()]


@pytest.mark.slow
def test_the_guide_to_training_has_the_table_that_its_command_prints() -> None:
    lines: list[str] = []
    training_cost.main([], lines.append)
    printed = [[cell.strip() for cell in line.split("|")[1:-1]] for line in "".join(lines).splitlines()[2:5]]
    text = (ROOT / "jores/training/README.md").read_text("utf-8")
    for stage, parameters, crop, steps, flops, memory, hours in printed:
        ((*cells, told),) = re.findall(
            rf"^\| {stage} \| (.+) \| (.+) \| (.+) \| (.+) \| (.+) GiB \| (.+) \|$", text, re.M
        )
        assert cells == [parameters, crop, f"{int(steps):,}", flops, memory]
        assert abs(float(told) - float(hours)) <= 0.05


@pytest.mark.slow
def test_the_readme_says_what_a_clone_takes(tmp_path: Path) -> None:
    """Its files, and about as much again that git keeps of them."""
    command = ["git", "clone", "--quiet", "--depth", "1", ROOT.as_uri(), str(tmp_path / "clone")]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("this copy has no history")
    sizes = {path: path.stat().st_size for path in (tmp_path / "clone").rglob("*") if path.is_file()}
    kept = sum(size for path, size in sizes.items() if ".git" in path.parts)
    fetched, there = map(int, re.findall(r"\((\d+) MB are fetched, (\d+) MB are on\s+the disk then", README)[0])
    assert abs(kept / 1e6 - fetched) < 3 and abs(sum(sizes.values()) / 1e6 - there) < 5
