"""What the Registry and ComfyUI's Manager ask of a pack: its metadata, its archive, and code that keeps to itself."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import dev
from host.archive import archive_files, write_archive
from host.requirements import package_name, read_requirements, tomllib
from host.server import PACK

PYPROJECT = tomllib.loads((PACK / "pyproject.toml").read_text("utf-8"))
EXTRAS = ("jores/training/", "jores/commands/", "jores/cli.py", "jores/__main__.py", "jores/files/")
IMPORT_NAMES = {"pillow": "PIL", "pyyaml": "yaml"}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__", "breakpoint", ".system", ".popen", ".putenv", ".unsetenv"}
FORBIDDEN_MODULES = {
    "subprocess", "socket", "ssl", "urllib", "http", "requests", "aiohttp", "ftplib", "smtplib", "pickle", "marshal",
    "ctypes", "pip", "huggingface_hub", "multiprocessing", "webbrowser", "runpy", "shelve",
}  # fmt: skip


def sources() -> list[str]:
    return [name for name in archive_files(PACK) if name.endswith(".py")]


def is_extra(name: str) -> bool:
    return name.startswith(EXTRAS)


def test_the_registrys_fields():
    project, comfy = PYPROJECT["project"], PYPROJECT["tool"]["comfy"]
    assert re.fullmatch(r"[a-z][a-z0-9-]{2,98}", project["name"]) and "comfyui" not in project["name"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", project["version"])
    assert 40 < len(project["description"]) < 200 and (PACK / project["license"]["file"]).is_file()
    assert project["urls"]["Repository"].startswith("https://")
    assert comfy["PublisherId"] and comfy["DisplayName"]
    assert comfy["requires-comfyui"] == f">={dev.OLDEST.version}"
    known = {
        "Operating System :: OS Independent",
        "Environment :: GPU :: NVIDIA CUDA",
        "Environment :: GPU :: AMD ROCm",
    }
    assert known <= set(project["classifiers"])


def test_a_release_has_one_number():
    """pyproject.toml says it; what repeats it for readers agrees, and the code does not."""
    version = PYPROJECT["project"]["version"]
    for name, written in (("CITATION.cff", r"(?m)^version: (\S+)$"), ("CHANGELOG.md", r"(?m)^## (\S+)$")):
        found = re.search(written, (PACK / name).read_text("utf-8"))
        assert found and found[1] == version, name
    assert not [name for name in sources() if "__version__ =" in (PACK / name).read_text("utf-8")]


def test_the_manager_installs_nothing_that_comfyui_does_not_bring(comfy_tree: Path):
    """The Manager runs pip on requirements.txt, pip itself on pyproject.toml: the two are one list."""
    assert PYPROJECT["tool"]["setuptools"]["dynamic"]["dependencies"] == {"file": ["requirements.txt"]}
    hosts = {package_name(line) for line in read_requirements(comfy_tree / "requirements.txt")}
    assert {package_name(line) for line in read_requirements(PACK / "requirements.txt")} <= hosts
    assert not [name for name in ("install.py", "prestartup_script.py", "uninstall.py") if (PACK / name).exists()]


def test_the_archive_holds_what_runs_and_nothing_else(tmp_path: Path):
    archive = write_archive(PACK, tmp_path / "node.zip")
    with zipfile.ZipFile(archive) as opened:
        names = set(opened.namelist())
    for wanted in ("__init__.py", "nodes/extension.py", "jores/pipeline.py", "requirements.txt", "pyproject.toml",
                   "LICENSE", "README.md", "jores/weights/jores-compact.safetensors", "jores/weights/MODEL_CARD.md",
                   "jores/METHOD.md",
                   "jores/weights/segformer-dark/model.safetensors", "jores/weights/deeplab-ade20k/model.safetensors",
                   "jores/weights/deeplab-ade20k/LICENSE", "jores/weights/deeplab-ade20k/NOTICE",
                   "workflows/1 Enhance a dark photograph.json",
                   "workflows/1 Enhance a dark photograph.jpg", "workflows/enhance_low_light.input.png"):  # fmt: skip
        assert wanted in names, wanted
    names.discard(".comfyignore")  # the Registry's tool keeps it, too
    assert not [name for name in names if name.startswith((".", "tests/", "runs/", "output/", "dev.py"))]
    assert not [name for name in names if "/preview/" in name]
    assert archive.stat().st_size < 40 * 2**20, "the README promises weights under 40 MB"
    assert not [name for name in names if name.endswith((".pt", ".pth", ".ckpt", ".bin", ".pkl", ".so", ".exe"))]


@pytest.mark.parametrize("name", sources())
def test_code_keeps_to_itself(name: str, comfy_tree: Path):
    text = (PACK / name).read_text("utf-8")
    text.encode("cp1252")  # Windows' Python and pip still read sources and lists with it here and there
    tree = ast.parse(text)
    shipped = {package_name(line) for line in read_requirements(comfy_tree / "requirements.txt")}
    shipped = {IMPORT_NAMES.get(package, package) for package in shipped}
    host = {path.stem for path in comfy_tree.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    allowed = set(sys.stdlib_module_names) | shipped | host | {"comfy", "comfy_api", "torchvision"}
    if name == "jores/__main__.py":  # run as a folder, it belongs to no package and imports its own by name
        allowed.add("jores")
    lazily = {node for f in ast.walk(tree) if isinstance(f, ast.FunctionDef) for node in ast.walk(f)}
    for node in ast.walk(tree):
        where = f"{name}:{getattr(node, 'lineno', 0)}"
        for module in imported(node):
            assert module not in FORBIDDEN_MODULES, f"{where} imports {module}"
            optional = is_extra(name) and (node in lazily or name.startswith("jores/training/"))
            assert module in allowed or optional, f"{where} imports {module}, which ComfyUI does not ship"
        if isinstance(node, ast.Call):
            called = getattr(node.func, "id", None) or f".{getattr(node.func, 'attr', '')}"
            assert called not in FORBIDDEN_CALLS, f"{where} calls {called}"
        written = [*getattr(node, "targets", ()), getattr(node, "target", None)]
        assert not [t for t in written if t is not None and "environ" in ast.dump(t)], f"{where} writes os.environ"


def imported(node: ast.AST) -> set[str]:
    if isinstance(node, ast.Import):
        return {alias.name.split(".")[0] for alias in node.names}
    if isinstance(node, ast.ImportFrom) and node.level == 0:
        return {node.module.split(".")[0]}
    return set()


def test_training_is_imported_only_by_who_trains():
    """What needs the extras must not be met on the way to a picture: neither by the nodes nor by `jores enhance`."""
    code = "import jores.pipeline, jores.cli, sys; sys.stdout.write(' '.join(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=PACK, check=True, capture_output=True, text=True).stdout
    assert not {"jores.training.loop", "accelerate", "tensorboard"} & set(loaded.split())


def test_the_archive_follows_the_ignore_file(tmp_path: Path):
    """Patterns as git reads them, which is how the Registry's tool reads .comfyignore."""
    repository = tmp_path / "pack"
    for name in ("a.py", "tests/b.py", "docs/tests/c.py", "keep/d.json", "untracked.py", "api/e.json", "x/api/f.json"):
        (repository / name).parent.mkdir(parents=True, exist_ok=True)
        (repository / name).write_text("")
    (repository / ".comfyignore").write_text("# no tests\ntests/\n/api/\n")
    git = ["git", "-C", str(repository)]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "add", "a.py", "tests", "docs", "keep", "api", "x", ".comfyignore"], check=True)
    assert archive_files(repository) == [".comfyignore", "a.py", "keep/d.json", "x/api/f.json"]
