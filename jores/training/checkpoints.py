"""The checkpoint of a run: no kill at any point loses both, and the same command, given again, goes on from it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import nn

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
    """Takes over the states of a checkpoint. Raises ValueError for one of other nets, or of another optimizer."""
    try:
        accelerator.load_state(str(path))
    except RuntimeError as error:  # names or shapes of the weights differ
        if is_out_of_memory(error):
            raise
        raise ValueError(
            f"{path} holds a run of other nets (another preset, or another version of this program): give another "
            f"--out, or go on with the version that began it. {error}"
        ) from error
    except ValueError as error:  # of the loop's progress, or groups of parameters that differ
        raise ValueError(
            f"{path} holds a run with another optimizer than the recipe names (loop: optimizer): write the one that "
            f"began the run, or give another --out ({error})"
        ) from error


def refuse_lost(objective: nn.Module, path: Path) -> None:
    """Raises ValueError if weights that were loaded from this checkpoint are no numbers."""
    if not _finite(objective):
        raise ValueError(
            f"{path} holds weights that are no numbers, and no learning_rate brings them back: give another --out, and "
            "as --init the last weights that are good"
        )


def refuse_ruined(objective: nn.Module, when: str, out: Path) -> None:
    """Raises `ruined` if a weight is no number, so that the checkpoint in `out` is not replaced by it."""
    if not _finite(objective):
        raise ruined(f"{when}: the weights are no numbers", out)


def ruined(what: str, out: Path) -> ValueError:
    """The error for a run whose weights have burst. It says what there is to go on with."""
    if (path := find(out)) is None:
        return ValueError(f"{what}, and no checkpoint was written: begin again with a smaller learning_rate")
    return ValueError(
        f"{what}. {path} stays as it was before: the same command goes on from there; give the recipe a smaller "
        "learning_rate first"
    )


def _finite(objective: nn.Module) -> bool:
    return all(bool(torch.isfinite(weight).all()) for weight in objective.parameters())


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
