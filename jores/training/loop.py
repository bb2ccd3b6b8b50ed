"""The training loop of all stages: accelerate for devices and precision, EMA, warm-up and cosine, exact resume.

Batches are a pure function of (seed, step, process), and the checkpoint holds the states of the random generators. So a
resumed run gives the same result as one that was never interrupted.
"""

from __future__ import annotations

import json
import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import DistributedDataParallelKwargs, broadcast, set_seed
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from ..files.records import without_nan
from ..nets.layout import in_layout
from ..precision import mixed_precision_for
from . import checkpoints
from .batches import batches
from .muon import Muon
from .records import append_row, contact_sheet
from .shutdown import stop_signal

log = logging.getLogger(__name__)
Tensors = tuple[Tensor, ...] | list[Tensor]
SHEET = "contact_sheet.png"
MOST_SKIPPED = 50  # steps in a row without a gradient; a scaler of "fp16" skips a dozen until it has found its scale
OPTIMIZERS = {"adamw": torch.optim.AdamW, "muon": Muon}


@dataclass(frozen=True)
class LoopConfig:
    """Settings of a run: the part `loop` of a recipe's stage.

    Attributes:
        optimizer: a key of OPTIMIZERS.
        steps: length of the run in steps.
        warmup: steps over which the learning rate rises linearly.
        learning_rate: after the warm-up.
        final_rate: learning rate at the end of the cosine, as a share of `learning_rate`.
        clip: largest norm of the gradients.
        ema: decay of the averaged weights per step.
        minutes: ends the run after this time, and the cosine with it; 0 for no limit.
        validate_minutes: time between two validations.
    """

    optimizer: str = "adamw"
    steps: int = 10000
    warmup: int = 200
    learning_rate: float = 4e-4
    final_rate: float = 0.02
    weight_decay: float = 1e-3
    clip: float = 1.0
    ema: float = 0.999
    seed: int = 0
    minutes: float = 0.0
    validate_minutes: float = 10.0

    def __post_init__(self) -> None:
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(f"optimizer {self.optimizer!r} is not one of {', '.join(OPTIMIZERS)}")


class Stage(Protocol):
    """One trainable part of the pipeline."""

    name: str
    best_score: str  # key in the scores of `validate` that selects the weights to export; higher is better

    @property
    def objective(self) -> nn.Module: ...  # forward(batch) -> {"loss": scalar, and other scalars for the log}
    def batch(self, rng: np.random.Generator, /) -> dict[str, Tensor]: ...

    # Both get a copy of the stage's objective, with averaged weights.
    def validate(self, objective: Any) -> tuple[dict[str, float], list[Tensor]]: ...
    def export(self, objective: Any, path: Path, record: dict[str, Any]) -> None: ...


def train(
    stage: Stage,
    config: LoopConfig,
    out: Path,
    *,
    stop_after: int,
    mixed_precision: str = "auto",
    cpu: bool = False,
    workers: int = 0,
) -> Path:
    """Trains until the steps or minutes of `config` are reached, or SIGTERM or Ctrl-C arrives.

    Args:
        out: folder of the run. An existing run there is resumed at its last checkpoint.
        stop_after: ends this call at that step, with a checkpoint; the next call resumes the run.
        mixed_precision: "auto" (see `mixed_precision_for`), "no", "bf16" or "fp16".
        cpu: True ignores accelerators.
        workers: number of processes that draw the batches; 0 draws them in this process. The batches do not depend on
            this number.

    Returns:
        The path of the best exported weights.

    Raises:
        ValueError: a validation gives NaN, or MOST_SKIPPED steps do, one after the other. The former checkpoint stays.
    """
    with torch.backends.cudnn.flags(enabled=True, benchmark=True):  # all batches have the same size
        return _Run(stage, config, Path(out), mixed_precision, cpu, workers).run(stop_after)


class _Run:
    def __init__(
        self, stage: Stage, config: LoopConfig, out: Path, mixed_precision: str, cpu: bool, workers: int
    ) -> None:
        self.stage, self.config, self.out, self.workers = stage, config, out, workers
        unused = DistributedDataParallelKwargs(
            find_unused_parameters=True
        )  # a step without the semantic prior skips some layers
        if mixed_precision == "auto":
            mixed_precision = mixed_precision_for(PartialState(cpu=cpu).device or torch.device("cpu"))
        self.accelerator = Accelerator(mixed_precision=mixed_precision, cpu=cpu, kwargs_handlers=[unused])
        set_seed(config.seed, device_specific=True)
        out.mkdir(parents=True, exist_ok=True)
        objective = in_layout(stage.objective, torch.channels_last)
        parameters = [p for p in objective.parameters() if p.requires_grad]
        optimizer = OPTIMIZERS[config.optimizer](parameters, lr=config.learning_rate, weight_decay=config.weight_decay)
        self.progress, self.skipped = _Progress(config.optimizer), 0
        self.schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self._rate)
        self.ema = AveragedModel(objective, multi_avg_fn=_warming_ema(config.ema))
        self.objective, self.optimizer = self.accelerator.prepare(objective, optimizer)
        self.ema.to(self.accelerator.device)
        self.accelerator.register_for_checkpointing(self.ema, self.progress, self.schedule)
        self.writer = SummaryWriter(str(out / "tensorboard")) if self.accelerator.is_main_process else None

    def _rate(self, step: int) -> float:
        c = self.config
        if step < c.warmup:
            return (step + 1) / c.warmup
        done = (step - c.warmup) / max(1, c.steps - c.warmup)
        if c.minutes:
            done = max(done, self.progress.seconds / (60 * c.minutes))
        return c.final_rate + (1 - c.final_rate) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

    def run(self, stop_after: int) -> Path:
        with stop_signal() as asked:
            return self._run(stop_after, asked)

    def _run(self, stop_after: int, asked: threading.Event) -> Path:
        self._resume()
        c, p = self.config, self.progress
        steps, cuda = range(p.step, min(c.steps, stop_after)), self.accelerator.device.type == "cuda"
        process = self.accelerator.process_index
        data = iter(batches(self.stage.batch, c.seed, process, steps, workers=self.workers, pin=cuda))
        bar = tqdm(total=c.steps, initial=p.step, disable=not self.accelerator.is_main_process, mininterval=10)
        last_validation = time.monotonic()
        while p.step < min(c.steps, stop_after) and not (c.minutes and p.seconds >= 60 * c.minutes):
            logs = self._step(data)
            due = time.monotonic() - last_validation > 60 * c.validate_minutes
            p.seconds, ending, due = self._agreed(p.seconds, asked.is_set(), due)
            self.schedule.step()
            bar.update()
            if p.step % 50 == 0 and self.accelerator.is_main_process:
                append_row(self.out / "train.csv", {"step": p.step, "minutes": round(p.seconds / 60, 2), **logs})
                bar.set_postfix({k: f"{v:.4g}" for k, v in logs.items()})
            if ending:
                bar.close()
                checkpoints.refuse_ruined(self.objective, f"step {p.step}", self.out)
                checkpoints.save(self.accelerator, self.out)
                log.info("stopped at step %d; run the same command again to continue", p.step)
                return self.out / f"{self.stage.name}.safetensors"
            if due:
                self._validate_and_save()
                last_validation = time.monotonic()
        bar.close()
        self._validate_and_save()
        return self.out / f"{self.stage.name}.safetensors"

    def _agreed(self, *numbers: float) -> list[float]:
        """The numbers of the main process, in every process.

        With clocks of their own, processes would end at different steps and wait for each other forever, and their
        learning rates would differ.
        """
        if self.accelerator.num_processes == 1:
            return list(numbers)
        return broadcast(torch.tensor(numbers, dtype=torch.float64, device=self.accelerator.device)).tolist()

    def _step(self, data: Iterator[dict[str, Tensor]]) -> dict[str, float]:
        start, p = time.monotonic(), self.progress
        batch = {k: v.to(self.accelerator.device, non_blocking=True) for k, v in next(data).items()}
        data_seconds = time.monotonic() - start
        self.objective.train()
        terms = self.objective(batch)
        self.accelerator.backward(terms["loss"])
        norm = torch.as_tensor(self.accelerator.clip_grad_norm_(self.objective.parameters(), self.config.clip))
        finite = bool(torch.isfinite(norm))
        if finite or self.accelerator.scaler is not None:  # a scaler must see the steps that it skips
            self.optimizer.step()
        self.skipped = 0 if finite else self.skipped + 1
        if self.skipped >= MOST_SKIPPED:
            raise checkpoints.ruined(f"step {p.step}: the last {self.skipped} steps gave no number", self.out)
        self.optimizer.zero_grad(set_to_none=True)
        self.ema.update_parameters(self.accelerator.unwrap_model(self.objective))
        seconds = time.monotonic() - start
        p.step, p.seconds = p.step + 1, p.seconds + seconds
        if p.step % 50:
            return {}
        rate = float(self.schedule.get_last_lr()[0])
        logs = {k: float(v.detach()) for k, v in terms.items()}
        share = data_seconds / seconds
        return {**logs, "grad_norm": float(norm), "rate": rate, "seconds": seconds, "data_share": share}

    def _validate_and_save(self) -> None:
        """A validation that fails costs no step; one without a number leaves the former checkpoint as it is."""
        self.accelerator.wait_for_everyone()
        number = True
        try:
            if self.accelerator.is_main_process:
                number = self._validate()
        finally:
            (number,) = self._agreed(number)
            if number:
                checkpoints.save(self.accelerator, self.out)
        if not number:
            raise checkpoints.ruined(f"step {self.progress.step}: the validation gives no number", self.out)

    def _validate(self) -> bool:
        """Exports the weights if they are the best so far. False if their score is NaN, or endlessly bad."""
        p, averaged = self.progress, self.ema.module.eval()
        with torch.inference_mode():
            scores, pictures = self.stage.validate(averaged)
        append_row(self.out / "validation.csv", {"step": p.step, "minutes": round(p.seconds / 60, 2), **scores})
        if self.writer is not None:
            for key, value in scores.items():
                self.writer.add_scalar(f"val/{key}", value, p.step)
            self.writer.flush()
        if pictures:
            contact_sheet(pictures, self.out / SHEET)
        record = {
            "stage": self.stage.name, "step": p.step, "minutes": round(p.seconds / 60, 1),
            "processes": self.accelerator.num_processes, "val": scores,
        }  # fmt: skip
        reached = scores[self.stage.best_score]
        if reached > p.best:
            p.best = reached
            self.stage.export(averaged, self.out / f"{self.stage.name}.safetensors", record)
        log.info("validation %s", json.dumps(without_nan(record)))
        return reached > -math.inf

    def _resume(self) -> None:
        if (path := checkpoints.find(self.out)) is not None:
            checkpoints.load(self.accelerator, path)
            checkpoints.refuse_lost(self.objective, path)
            self._follow_recipe()
            log.info("resumed %s at step %d", self.out, self.progress.step)

    def _follow_recipe(self) -> None:
        """Rate and decay are those of the recipe, which may have changed since the checkpoint."""
        c = self.config
        self.schedule.base_lrs = [c.learning_rate] * len(self.schedule.base_lrs)
        for group in self.optimizer.param_groups:
            group["weight_decay"], group["lr"] = c.weight_decay, c.learning_rate * self._rate(self.progress.step)


class _Progress:
    """Steps, seconds, best score so far and optimizer, with the interface that accelerate needs to save them."""

    def __init__(self, optimizer: str) -> None:
        self.step, self.seconds, self.best, self.optimizer = 0, 0.0, -math.inf, optimizer

    def state_dict(self) -> dict[str, Any]:
        return dict(vars(self))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if (began := state.get("optimizer", self.optimizer)) != self.optimizer:  # older checkpoints do not say it
            raise ValueError(f"it is {began!r}, not {self.optimizer!r}")
        vars(self).update(state)


def _warming_ema(decay: float) -> Callable[[Tensors, Tensors, Tensor | int], None]:
    """Update of an EMA whose decay grows from 0.1 to `decay`, so that the initial weights are soon forgotten."""

    def update(averaged: Tensors, current: Tensors, count: Tensor | int) -> None:
        torch._foreach_lerp_(averaged, current, 1 - min(decay, (1 + int(count)) / (10 + int(count))))

    return update
