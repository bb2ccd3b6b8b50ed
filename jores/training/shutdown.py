"""The end of a training run: SIGTERM, and several processes."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading

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


def stop_signal() -> threading.Event:
    """An event that SIGTERM sets, so that a run can write a checkpoint before it ends.

    With several processes, only the event of the main process counts (see `_Run._agreed`).
    """
    asked = threading.Event()
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda *_: asked.set())
    return asked
