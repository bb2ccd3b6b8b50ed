"""Atomic writing: a file appears under its name only when it is complete, and temporary files are removed."""

from __future__ import annotations

import os
import sys
import uuid
from pathlib import Path


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

    Raises:
        FileExistsError: `path` exists, and must not be replaced.
        OSError: another fault.
    """
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    if replace:
        os.replace(temporary, path)
    else:
        _rename_to_free_name(temporary, path)
    if sys.platform == "win32":  # folders cannot be opened on Windows
        return
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    except OSError:
        pass  # not supported by some network file systems: the rename is done, but may not be on the disk yet
    finally:
        os.close(folder)


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
