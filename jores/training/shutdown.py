"""How a run of training ends: early on SIGTERM, and in several processes."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading

from accelerate import PartialState


def leave() -> None:
    """Ends a program that trained in several processes.

    By os._exit: threads of DDP outlive `destroy_process_group` and can abort the interpreter's shutdown.
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
    """An event that SIGTERM sets, so that a run can save its last steps before it ends.

    With several processes, the event of the main process decides.
    """
    asked = threading.Event()
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda *_: asked.set())
    return asked
