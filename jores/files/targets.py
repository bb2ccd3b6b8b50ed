"""Paths of results: never a file that the run reads, and never the same path for two results."""

from __future__ import annotations

import errno
import os
import stat
import sys
import unicodedata
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

SHOWN = 5  # conflicts that an error message lists

Identity = tuple[int, int] | str


class TargetError(ValueError):
    """A result would replace a file that must be kept. The message names the files and says what to do."""


@dataclass(frozen=True)
class Job:
    """One input file and the path of its result."""

    path: Path
    target: Path

    def is_done(self) -> bool:
        """Whether there is a file of the result's name. Raises ValueError if there can be none: a name too long."""
        try:
            self.target.lstat()  # also finds a link to a file on a disk that is not mounted now
        except FileNotFoundError:
            return False
        except OSError as error:
            raise ValueError(f"{self.path}: {self.target} cannot be written: {error.strerror}") from error
        return True


def plan(
    inputs: list[Path],
    output: Path,
    name: Callable[[Path], str],
    *,
    also: Iterable[Path] = (),
    case_insensitive: bool | None = None,
) -> list[Job]:
    """One job for each input. An input that is listed twice, also under different paths, gives one job.

    Args:
        output: folder of the results, which must exist.
        name: gives the file name of an input's result.
        also: further files that the run reads, such as the mask.
        case_insensitive: whether x.png and X.png are the same file in `output`; None tests it there.

    Raises:
        TargetError: a result would replace a file that the run reads (also by another path), a folder, or another
            result of the run.
        OSError: `output` is not writable.
    """
    ignoring = ignores_case(output) if case_insensitive is None else case_insensitive
    read = {found: path for path in (*also, *inputs) if (found := identity(path))}
    taken: dict[str, Job] = {}
    faults: list[str] = []
    for path in inputs:
        job = Job(path, output / name(path))
        key = normalised(job.target.name) if ignoring else job.target.name
        first = taken.setdefault(key, job)
        if first is not job:
            if not _same(first.path, path):
                faults.append(f"{path}: {job.target} is the result of another input of this name, {first.path}")
        elif os.path.isdir(job.target):  # a name that is too long is none; it is told of when its turn comes
            faults.append(f"{path}: {job.target} is a folder")
        elif (there := identity(job.target)) is not None and (victim := read.get(there)) is not None:
            own = "its own input" if _same(victim, path) else f"{victim}, which this run reads"
            faults.append(f"{path}: the result would replace {own}")
    if faults:
        rest = f"\n... and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
        raise TargetError("\n".join(faults[:SHOWN]) + rest + "\nchoose another --output; nothing was done")
    return list(taken.values())


def identity(path: Path) -> Identity | None:
    """Device and inode of a file, the same for all paths and links to it; None if it does not exist.

    Some drives (SFTP, WebDAV) give every file the inode 0, which says nothing: there it is the path without links.
    """
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return (status.st_dev, status.st_ino) if status.st_ino else os.path.normcase(os.path.realpath(path))


def make_folder(folder: Path, option: str) -> None:
    """Makes the folder that a command-line option names for results. Raises TargetError if it cannot be written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        ignores_case(folder)  # makes a file there
    except OSError as error:
        reason = error.strerror or error
        raise TargetError(f"{option} {folder}: cannot be written to: {reason}; nothing was done") from error


def refuse_inputs(target: Path, inputs: Iterable[Path], option: str) -> None:
    """Raises TargetError if `target`, the value of a command-line option, is one of the files that are read."""
    if (found := identity(target)) is None:
        return
    for path in inputs:
        if identity(path) == found:
            raise TargetError(f"{option} {target}: would replace {path}, which this run reads; choose another name")


def refuse_existing(target: Path, overwrite: bool, option: str) -> None:
    """Raises TargetError if `target`, the value of a command-line option, exists and must or can not be replaced."""
    if target.exists() and not overwrite:
        raise TargetError(f"{option} {target}: exists already; add --overwrite, or choose another name")
    if reason := held(target):
        raise TargetError(f"{option} {target}: cannot be replaced: locked, or open in another program ({reason})")


def held(target: Path) -> str:
    """Why a file can certainly not be replaced; "" if it can, it does not exist, or nobody knows before it is tried.

    Windows refuses to write to a file that is read-only, or that another program has open for itself. Other systems
    replace such files; only those that are locked against all changes are refused there.
    """
    try:
        if stat.S_ISREG(target.lstat().st_mode):  # of a link, the link itself is replaced
            target.open("ab").close()  # changes nothing
    except OSError as error:
        if error.errno == errno.EPERM or (sys.platform == "win32" and isinstance(error, PermissionError)):
            return error.strerror or str(error)
    return ""


def ignores_case(folder: Path) -> bool:
    """Whether a folder's file system ignores case or Unicode normalisation in names.

    It creates and removes a file there; raises OSError if the folder is not writable.
    """
    name = f".\N{LATIN SMALL LETTER E WITH ACUTE}{uuid.uuid4().hex}.tmp"
    probe = folder / name
    probe.touch(exist_ok=False)
    try:
        return (folder / name.upper()).exists() or (folder / unicodedata.normalize("NFD", name)).exists()
    finally:
        probe.unlink()


def normalised(name: str) -> str:
    """A name without differences of case and Unicode normalisation, for comparisons."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _same(a: Path, b: Path) -> bool:
    found = identity(a)
    return found == identity(b) if found else len({os.path.normcase(os.path.abspath(path)) for path in (a, b)}) == 1
