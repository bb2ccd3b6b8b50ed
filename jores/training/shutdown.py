"""How a run ends early, and how a program that trained in several processes ends at all."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading

from accelerate import PartialState


def leave() -> None:
    """Ends a program that trained in several processes, without the interpreter's own end: PyTorch keeps the threads of
    DDP's process group beyond `destroy_process_group`, and one of them that lets go of a tensor meanwhile aborts it."""
    state = PartialState()
    if state.num_processes > 1:
        state.wait_for_everyone()
        state.destroy_process_group()
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def stop_signal() -> threading.Event:
    """Set by SIGTERM, so that a run asked to end keeps the steps since its last validation.
    Of several processes the main one's counts."""
    asked = threading.Event()
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda *_: asked.set())
    return asked
