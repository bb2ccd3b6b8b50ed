"""Where the results of a run go: never onto a file that the run reads, and never two of them under one name."""

from __future__ import annotations

import os
import unicodedata
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

SHOWN = 5  # of the files that are in each other's way

Identity = tuple[int, int]


class TargetError(ValueError):
    """Results would replace what they must not. The message names the files and says what to do."""


@dataclass(frozen=True)
class Job:
    path: Path
    target: Path


def plan(
    inputs: list[Path],
    output: Path,
    name: Callable[[Path], str],
    *,
    also: Iterable[Path] = (),
    folds_names: bool | None = None,
) -> list[Job]:
    """One job for each input; the same file under two spellings is one, where both have one target.

    Args:
        output: folder of the results, which exists.
        name: the result's file name for an input.
        also: further files that are read, such as the mask.
        folds_names: whether x.png and X.png are one file in `output`; None tries it there.

    Raises:
        TargetError: a result would replace one of the files that are read, whatever their spelling, or a folder, or
            another result of the run. OSError: nothing can be written to `output`.
    """
    folds = names_fold(output) if folds_names is None else folds_names
    read = {found: path for path in (*also, *inputs) if (found := identity(path))}
    taken: dict[str, Job] = {}
    faults: list[str] = []
    for path in inputs:
        job = Job(path, output / name(path))
        key = folded(job.target.name) if folds else job.target.name
        first = taken.setdefault(key, job)
        if first is not job:
            if not _same(first.path, path):
                faults.append(f"{path}: {job.target} is the result of another input of this name, {first.path}")
        elif job.target.is_dir():
            faults.append(f"{path}: {job.target} is a folder")
        elif (there := identity(job.target)) is not None and (victim := read.get(there)) is not None:
            own = "its own input" if _same(victim, path) else f"{victim}, which this run reads"
            faults.append(f"{path}: the result would replace {own}")
    if faults:
        rest = f"\n... and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
        raise TargetError("\n".join(faults[:SHOWN]) + rest + "\nchoose another --output; nothing was done")
    return list(taken.values())


def identity(path: Path) -> Identity | None:
    """What makes a file that file, however its path is spelled and linked; None where there is none."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def refuse_inputs(target: Path, inputs: Iterable[Path], option: str) -> None:
    """Raises TargetError where `target`, of a command line's `option`, is one of the files that are read."""
    if (found := identity(target)) is None:
        return
    for path in inputs:
        if identity(path) == found:
            raise TargetError(f"{option} {target}: would replace {path}, which this run reads; choose another name")


def names_fold(folder: Path) -> bool:
    """Whether names that differ in case or in their Unicode form are one in this folder. Raises OSError where nothing
    can be written to it."""
    name = f".\N{LATIN SMALL LETTER E WITH ACUTE}{uuid.uuid4().hex}.tmp"
    probe = folder / name
    probe.touch(exist_ok=False)
    try:
        return (folder / name.upper()).exists() or (folder / unicodedata.normalize("NFD", name)).exists()
    finally:
        probe.unlink()


def folded(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _same(a: Path, b: Path) -> bool:
    found = identity(a)
    return found == identity(b) if found else os.path.abspath(a) == os.path.abspath(b)
