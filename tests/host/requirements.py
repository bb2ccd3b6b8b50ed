"""Print the requirements of the development environment, one a line: what pip installs into `.venv`.

    python requirements.py <ComfyUI's folder>

Every list has one home (the host's and the pack's requirements.txt, pyproject.toml's extras); this only joins them.
Run by dev.py with the environment's own python, whose pip brings a TOML parser to Python 3.10.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

try:
    import tomllib
except ModuleNotFoundError:
    from pip._vendor import tomli as tomllib

PACK = Path(__file__).resolve().parents[2]

TORCH = ["torch==2.13.0", "torchvision==0.28.0"]
"""Pinned: a pair that fits. Which build of it (CPU, CUDA, ...) is for pip's own settings to say."""

HOST_LACKS = ["requests"]
"""Imported by ComfyUI 0.3.75 but missing in its list."""

NOT_NEEDED = {
    "torch", "torchvision", "torchaudio", "soundfile", "pyopengl", "comfy-angle", "comfyui-workflow-templates",
    "comfyui-embedded-docs",
}  # fmt: skip
"""Of the host's list: pinned above, or only for the host's audio and shader nodes, templates and help (200 MB)."""


def read_requirements(path: Path) -> list[str]:
    lines = (line.split("#")[0].strip() for line in path.read_text("utf-8").splitlines())
    return [line for line in lines if line]


def package_name(requirement: str) -> str:
    return re.split(r"[\s<>=!~;\[@]", requirement, maxsplit=1)[0].lower().replace("_", "-")


def development_requirements(host_tree: Path, pack: Path = PACK) -> list[str]:
    extras = tomllib.loads((pack / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    host = [line for line in read_requirements(host_tree / "requirements.txt") if package_name(line) not in NOT_NEEDED]
    return TORCH + host + HOST_LACKS + read_requirements(pack / "requirements.txt") + extras["train"] + extras["test"]


if __name__ == "__main__":
    sys.stdout.write("\n".join(development_requirements(Path(sys.argv[1]))) + "\n")
