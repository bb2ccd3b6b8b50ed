"""The archive that the Registry keeps of a release: what git tracks, less what .comfyignore names.

Write one with: python -m tests.host.archive node.zip
"""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

PACK = Path(__file__).resolve().parents[2]


def archive_files(pack: Path = PACK) -> list[str]:
    """The archive's files, relative to `pack`, sorted. git reads .comfyignore, whose rules are those of .gitignore."""
    left_out = git_files(pack, "--ignored", "--exclude-from=.comfyignore")
    return sorted(name for name in git_files(pack) - left_out if (pack / name).is_file())


def git_files(pack: Path, *options: str) -> set[str]:
    command = ["git", "-C", str(pack), "-c", "core.quotePath=false", "ls-files", "--cached", "-z", *options]
    return {name for name in subprocess.check_output(command, text=True).split("\0") if name}


def write_archive(pack: Path, path: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in archive_files(pack):
            archive.write(pack / name, name)
    return path


if __name__ == "__main__":
    write_archive(PACK, Path(sys.argv[1]))
