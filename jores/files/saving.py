"""Atomic writing: a file or folder appears under its name only when it is complete; temporary files are removed."""

from __future__ import annotations

import os
import shutil
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

PAUSES = (0.1, 0.2, 0.4, 0.8)
"""Seconds between attempts: on Windows a virus scanner, an indexer or OneDrive holds a new file for moments."""


def write_atomically(path: Path, data: bytes, *, replace: bool = True) -> None:
    """Writes `data` to a temporary file beside `path`, then renames it as `rename_atomically` does. Raises OSError."""
    temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        temporary.write_bytes(data)
        rename_atomically(temporary, path, replace=replace)
    finally:
        temporary.unlink(missing_ok=True)


def rename_atomically(temporary: Path, path: Path, *, replace: bool = True) -> None:
    """Flushes a file to the disk and renames it to `path`, replacing an existing file or, without `replace`, never.

    A file that cannot get this name, because another program has the older one open, is kept under a name beside it.

    Raises:
        FileExistsError: `path` exists, and must not be replaced.
        OSError: another fault. If the file is kept, the message names it.
    """
    _patiently(_flush, temporary)
    try:
        _patiently(os.replace if replace else _rename_to_free_name, temporary, path)
    except FileExistsError:
        raise
    except OSError as error:
        if (kept := _keep(temporary, path)) is None:
            raise
        reason = f"{path.name} cannot be replaced: locked, or open in another program ({error.strerror})"
        raise OSError(f"{reason}. The finished file is kept as {kept}") from error
    if sys.platform == "win32":  # folders cannot be opened on Windows
        return
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    except OSError:
        pass  # not supported by some network file systems: the rename is done, but may not be on the disk yet
    finally:
        os.close(folder)


def swap_folder(new: Path, folder: Path) -> None:
    """Renames a complete folder to `folder`; an older one of this name is deleted afterwards.

    A kill at any point leaves a complete folder under this name or that of `former`. Raises OSError.
    """
    old = former(folder)
    if folder.exists():  # otherwise a kill between the two renames has left the old one alone
        shutil.rmtree(old, ignore_errors=True)
        _patiently(os.replace, folder, old)
    _patiently(os.replace, new, folder)
    shutil.rmtree(old, ignore_errors=True)


def former(folder: Path) -> Path:
    """Where `swap_folder` keeps an older folder until the new one has its name."""
    return folder.with_name(f"{folder.name}.old")


def _patiently(action: Callable[..., object], *paths: Path) -> None:
    """Does it, again after a while where the system refuses. Raises the last refusal, or another OSError at once."""
    for pause in PAUSES:
        try:
            action(*paths)
        except PermissionError:
            time.sleep(pause)
        else:
            return
    action(*paths)


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _keep(temporary: Path, path: Path) -> Path | None:
    """Renames a finished file to a free name beside `path`, and returns that; None if it gets none."""
    names = [f"{path.stem}.new{number}{path.suffix}" for number in ("", *range(2, 100))]
    for name in (*names, f"{uuid.uuid4().hex}{path.suffix}"):  # the last one for names that become too long
        try:
            _rename_to_free_name(temporary, path.with_name(name))
        except OSError:
            continue
        return path.with_name(name)
    return None


def _rename_to_free_name(temporary: Path, path: Path) -> None:
    if sys.platform == "win32":  # renames to no name that is taken
        os.rename(temporary, path)
        return
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links: an empty file takes the name first
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        try:
            os.replace(temporary, path)
        except OSError:
            path.unlink(missing_ok=True)
            raise
    else:
        temporary.unlink()
