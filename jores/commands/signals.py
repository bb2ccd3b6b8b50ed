"""A command that is asked to end: its `finally` blocks run, so that no temporary files stay."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

ENDINGS = ("SIGTERM", "SIGHUP", "SIGBREAK")  # SIGBREAK exists only on Windows, SIGHUP only on other systems


@contextlib.contextmanager
def exit_on_signal() -> Iterator[None]:
    """Makes a request to end (SIGTERM, closed terminal) raise SystemExit, so that every `finally` block runs.

    The exit code is 128 + the signal's number. It has no effect outside the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    kinds = [getattr(signal, name) for name in ENDINGS if hasattr(signal, name)]
    kinds = [
        kind for kind in kinds if signal.getsignal(kind) is not signal.SIG_IGN
    ]  # ignored signals, as under nohup, stay ignored
    before = {kind: signal.signal(kind, end) for kind in kinds}
    try:
        yield
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler if handler is not None else signal.SIG_DFL)
