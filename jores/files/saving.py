"""A file gets its name once all of it is on the disk, and what is only half written never outlives its process."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ENDINGS = ("SIGTERM", "SIGHUP", "SIGBREAK")  # the last one only on Windows, the one before only elsewhere


def write_whole(path: Path, data: bytes) -> None:
    """Write a file of any kind under a temporary name next to `path`, then give it its name. Raises OSError."""
    temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        temporary.write_bytes(data)
        name_whole(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def name_whole(temporary: Path, path: Path) -> None:
    """Give a written file its name, in place of what has it, once its bytes are on the disk. Raises OSError."""
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)
    if sys.platform == "win32":  # folders cannot be opened there
        return
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    except OSError:
        pass  # some network disks know no such thing; the name is there, only perhaps not yet on the disk
    finally:
        os.close(folder)


@contextlib.contextmanager
def tidy_ending() -> Iterator[None]:
    """Within, a request to end (SIGTERM, a closed terminal) raises SystemExit, so that every `finally` still runs.

    The exit code is 128 + the signal's number. Only the main thread can do that; in others nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, _frame: Any) -> None:
        raise SystemExit(128 + number)

    kinds = [getattr(signal, name) for name in ENDINGS if hasattr(signal, name)]
    kinds = [kind for kind in kinds if signal.getsignal(kind) is not signal.SIG_IGN]  # as nohup wants it
    before = {kind: signal.signal(kind, end) for kind in kinds}
    try:
        yield
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler if handler is not None else signal.SIG_DFL)
