"""The end of a training run: SIGTERM, Ctrl-C, and several processes."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from accelerate import PartialState


def leave() -> None:
    """Ends a program that trained in several processes; does nothing in a single process.

    It uses os._exit, because threads of DDP outlive `destroy_process_group` and can crash the interpreter's shutdown.
    """
    state = PartialState()
    if state.num_processes > 1:
        state.wait_for_everyone()
        state.destroy_process_group()
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


@contextmanager
def stop_signal() -> Iterator[threading.Event]:
    """An event that SIGTERM and Ctrl-C set while the context lasts, so that a run can write a checkpoint and end.

    A second Ctrl-C ends the run at once. With several processes, only the event of the main process counts (see
    `_Run._agreed`).

    Raises (at the end of the context):
        KeyboardInterrupt: after Ctrl-C, so that a script does not begin its next stage. Several processes leave as if
            they were done, because they have to leave together.
    """
    asked, by_hand = threading.Event(), threading.Event()

    def interrupted(*_: object) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        by_hand.set()
        asked.set()

    handlers = {signal.SIGTERM: lambda *_: asked.set(), signal.SIGINT: interrupted}
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in the background of a script
        del handlers[signal.SIGINT]
    here = threading.current_thread() is threading.main_thread()  # elsewhere signals cannot be handled
    before = {kind: signal.signal(kind, handler) for kind, handler in handlers.items()} if here else {}
    try:
        yield asked
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler if handler is not None else signal.SIG_DFL)
    if by_hand.is_set() and PartialState().num_processes == 1:
        raise KeyboardInterrupt


def ignore_interrupts(_worker: int) -> None:
    """For processes that draw batches: a terminal sends Ctrl-C to them, too, but the run says when they end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
