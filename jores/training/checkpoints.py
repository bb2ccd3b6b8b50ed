"""The checkpoint of a run: no kill at any point loses both, and the same command, given again, goes on from it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from accelerate import Accelerator

from ..files.saving import former, swap_folder
from ..out_of_memory import is_out_of_memory

NEWEST = "checkpoint"


def save(accelerator: Accelerator, out: Path) -> None:
    """Writes the new checkpoint beside the last one, then swaps them. Every process calls it."""
    new = out / f"{NEWEST}.new"
    accelerator.save_state(str(new), safe_serialization=True)
    accelerator.wait_for_everyone()  # every process writes the states of its random generators
    if accelerator.is_main_process:
        swap_folder(new, out / NEWEST)


def find(out: Path) -> Path | None:
    """The checkpoint that a run in this folder goes on from; None where none has begun."""
    return next((path for path in (out / NEWEST, former(out / NEWEST)) if path.exists()), None)


def load(accelerator: Accelerator, path: Path) -> None:
    """Takes over the states of a checkpoint. Raises ValueError for one of other nets."""
    try:
        accelerator.load_state(str(path))
    except RuntimeError as error:  # names or shapes of the weights differ
        if is_out_of_memory(error):
            raise
        raise ValueError(
            f"{path} holds a run of other nets (another preset, or another version of this program): give another "
            f"--out, or go on with the version that began it. {error}"
        ) from error


def refuse_foreign(out: Path, results: Iterable[str]) -> None:
    """Raises ValueError if a file of a result's name is there, and no checkpoint of a run that wrote it."""
    if find(out) is not None:
        return
    for name in results:
        if os.path.lexists(out / name):
            raise ValueError(
                f"--out {out}: would replace {out / name}, and there is no checkpoint of a run to go on with; choose "
                "another --out, or move it away"
            )
