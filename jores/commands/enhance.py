"""Files in bulk: pictures, clips and folders of them, on one device or shared out over several processes.

`accelerate launch -m jores enhance ...` starts one process for each device, on one machine or many; each takes every
n-th file. They meet only once, at the end, to count what failed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from datetime import timedelta
from itertools import chain, cycle
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..checkpoint import SHIPPED_SEGMENTER, SHIPPED_WEIGHTS, JoReSNets, load_bundle
from ..files.pictures import FORMATS, VIDEO_FORMATS, find_images, read_image, write_image
from ..files.saving import tidy_ending
from ..nets.segmentation import Segmenter
from ..options import ClipOptions, FinishOptions, SampleOptions, at_quality
from ..pipeline import enhance, wanted_exposure
from ..semantics import load_segmenter
from ..tiling.memory import is_out_of_memory
from ..video import enhance_frames

Options = TypeVar("Options", SampleOptions, FinishOptions)


@dataclass(frozen=True)
class Enhancer:
    """The pipeline with the settings of one command line."""

    nets: JoReSNets
    segmenter: Segmenter | None
    options: SampleOptions
    finishing: FinishOptions
    clip: ClipOptions
    mask_file: Path | None = None

    @classmethod
    def from_args(cls, args: argparse.Namespace, device: torch.device | None = None) -> Enhancer:
        device = device or choose_device(args.device)
        nets = load_bundle(args.weights or SHIPPED_WEIGHTS, device=device)
        segmenter = None
        if args.segmenter != "none":
            segmenter = load_segmenter(Path(args.segmenter or SHIPPED_SEGMENTER), device=device)
        options, finishing = at_quality(options_of(SampleOptions, args), args.quality), options_of(FinishOptions, args)
        return cls(nets, segmenter, options, finishing, ClipOptions(not args.independent_frames, device), args.mask)

    def __call__(self, pixels: Tensor) -> tuple[Tensor, float]:
        """(3 or 4, H, W) in [0, 1] on the processor -> the same, and the exposure it was made for."""
        images = pixels[None]  # stays on the processor: the pipeline takes what it works on to the nets
        mask = self.mask((pixels.shape[1], pixels.shape[2]))
        exposure = wanted_exposure(self.nets, images[:, :3], self.options.exposure, self.options.brightness)
        options = replace(self.options, exposure=exposure, brightness=0.0)
        made = enhance(images, self.nets, self.segmenter, options, self.finishing, mask=mask)
        return made[0].cpu(), exposure.item()

    def frames(self, frames: Iterator[Tensor]) -> Iterator[Tensor]:
        """(1, 3 or 4, H, W) each, as `enhance_frames` wants them; with `rows` if they are fields (see `Pictures`)."""
        first, rows = next(frames), getattr(frames, "rows", (slice(None),))
        mask = self.mask((first.shape[2] * len(rows), first.shape[3]))
        masks = None if mask is None else cycle([mask[:, :, part] for part in rows])
        pictures = chain([first], frames)
        return enhance_frames(
            pictures, self.nets, self.segmenter, self.options, self.finishing, self.clip, masks=masks
        )  # fmt: skip

    def mask(self, size: tuple[int, int]) -> Tensor | None:
        """(1, 1, H, W), for a picture of (H, W)."""
        if self.mask_file is None:
            return None
        mask = read_image(self.mask_file).pixels[None, :3].amax(1, keepdim=True)
        if mask.shape[2:] != size:
            shown = "the mask is {1}x{0} (width x height), the picture {3}x{2}".format(*mask.shape[2:], *size)
            raise ValueError(f"{self.mask_file}: {shown}: they must be of one size")
        return mask


def options_of(kind: type[Options], args: argparse.Namespace) -> Options:
    """The options that the command line has; the others keep their defaults."""
    return kind(**{f.name: getattr(args, f.name) for f in fields(kind) if hasattr(args, f.name)})


def choose_device(name: str) -> torch.device:
    """`name`, or for "auto" the first accelerator there is, or else the processor.

    Raises:
        ValueError: there is no such device.
    """
    if name == "auto":
        available = {
            "cuda": torch.cuda.is_available(),
            "xpu": hasattr(torch, "xpu") and torch.xpu.is_available(),
            "mps": torch.backends.mps.is_available(),
        }
        name = next((kind for kind, there in available.items() if there), "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:  # the latter from builds without CUDA
        raise ValueError(f"--device {name} cannot be used: {str(error).splitlines()[0]}") from error


@dataclass(frozen=True)
class Share:
    """Which of the processes that work together this one is."""

    index: int = 0
    count: int = 1
    device: torch.device | None = None  # None: as the command line says

    @classmethod
    def from_environment(cls, args: argparse.Namespace) -> Share:
        """The share that a launcher gave to this process; without one, all of the work.

        Raises:
            ValueError: launched as one of several, but accelerate is missing.
        """
        if int(os.environ.get("WORLD_SIZE", "1")) < 2:
            return cls()
        try:
            from accelerate import PartialState
        except ImportError as error:
            raise ValueError("several processes share the work through accelerate: pip install accelerate") from error
        # Whoever is ready first waits for the others, however long their files take.
        state = PartialState(cpu=args.device == "cpu", timeout=timedelta(days=30))
        return cls(state.process_index, state.num_processes, state.device)

    def gathered(self, lines: list[str]) -> list[str]:
        """The lines of all processes, in each of them."""
        if self.count < 2:
            return lines
        from accelerate.utils import gather_object

        return gather_object(lines)

    def leave(self) -> None:
        """A launcher stops the other processes as soon as one returns an error: so none does before all are done."""
        if self.count > 1:
            from accelerate import PartialState

            PartialState().wait_for_everyone()
            PartialState().destroy_process_group()


@dataclass(frozen=True)
class Job:
    path: Path
    target: Path
    clash: Path | None = None  # an earlier input whose result has the same name


def jobs(inputs: list[Path], output: Path) -> Iterator[Job]:
    taken: dict[str, Path] = {}
    for path in inputs:
        target = output / path.name
        first = taken.setdefault(os.path.normcase(target), path)
        yield Job(path, target, None if first is path else first)


def run(args: argparse.Namespace) -> int:
    """`jores enhance`: one line of JSON for each file as it is done, the failures once more at the end."""
    share = Share.from_environment(args)
    todo = list(jobs(find_images(args.inputs, (*FORMATS, *VIDEO_FORMATS)), args.output))
    enhancer = Enhancer.from_args(args, share.device)
    args.output.mkdir(parents=True, exist_ok=True)
    failures = []
    for job in todo[share.index :: share.count]:
        record: dict[str, Any] = {"input": str(job.path)}
        if share.count > 1:
            record["process"] = share.index
        try:
            record |= _work(job, enhancer, args)
        except (ValueError, OSError, MemoryError, RuntimeError) as error:
            record["error"] = _complaint(job, error)
            failures.append(record["error"])
        sys.stdout.write(json.dumps(record) + "\n")  # in ASCII: a redirected output may know no other letters
        sys.stdout.flush()
    failures = share.gathered(failures)
    if failures and share.index == 0:
        sys.stderr.write("".join(f"jores: {failure}\n" for failure in failures))
        sys.stderr.write(f"jores: {len(failures)} of {len(todo)} files failed\n")
        sys.stderr.flush()
    share.leave()
    return 1 if failures else 0


def _complaint(job: Job, error: Exception) -> str:
    """What to tell of a file that could not be done. Raises the error again where the file cannot be what is wrong."""
    if is_out_of_memory(error):
        return f"{job.path}: out of memory ({error})"
    if isinstance(error, RuntimeError):
        raise error
    return str(error)


def _work(job: Job, enhancer: Enhancer, args: argparse.Namespace) -> dict[str, Any]:
    """Nothing of the user's is lost by accident: not the input, not an older result, not one of this very run."""
    path, target = job.path, job.target
    if path.exists() and target.exists() and target.samefile(path):
        raise ValueError(f"{path}: the result would replace its own input; choose another --output")
    if job.clash is not None:
        told = f"{target} is the result of another input of this name, {job.clash}"
        raise ValueError(f"{path}: {told}; choose another --output")
    if target.exists() and args.resume:
        return {"output": str(target), "skipped": True}
    if target.exists() and not args.overwrite:
        raise ValueError(f"{path}: {target} exists already; add --overwrite, or --resume to keep it")
    if path.suffix.lower() in VIDEO_FORMATS:
        return _enhance_video(path, target, enhancer)
    return _enhance_picture(path, target, enhancer)


def _enhance_picture(path: Path, target: Path, enhancer: Enhancer) -> dict[str, Any]:
    start = time.perf_counter()
    picture = read_image(path)
    loaded = time.perf_counter()
    pixels, exposure = enhancer(picture.pixels)
    enhanced = time.perf_counter()
    write_image(target, replace(picture, pixels=pixels))
    seconds = {"load": loaded - start, "enhance": enhanced - loaded, "save": time.perf_counter() - enhanced}
    return {
        "output": str(target),
        "width": pixels.shape[2],
        "height": pixels.shape[1],
        "exposure": round(exposure, 4),
        "brightness": enhancer.options.brightness,
        "seconds": {stage: round(value, 3) for stage, value in seconds.items()},
    }


def _enhance_video(path: Path, target: Path, enhancer: Enhancer) -> dict[str, Any]:
    try:
        from ..files.clips import rewrite_video
    except ImportError as error:
        raise ValueError(f"{path}: videos need PyAV: pip install av") from error
    start = time.perf_counter()
    with tidy_ending():
        report = rewrite_video(path, target, enhancer.frames)
    told = {"brightness": enhancer.options.brightness}
    return {"output": str(target), **asdict(report), **told, "seconds": round(time.perf_counter() - start, 3)}
