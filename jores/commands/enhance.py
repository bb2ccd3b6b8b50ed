"""The command `enhance`: pictures, clips and folders of them, on one device or distributed over several processes.

`accelerate launch -m jores enhance ...` starts one process per device, on one or several machines; each processes every
n-th file. They synchronise only at the end, to collect failures.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from ..files.pictures import check_fits, expand, find_images, missing, read_image, readable, write_image
from ..files.records import json_line
from ..files.suffixes import DEVELOPED, FORMATS, VIDEO_FORMATS
from ..files.targets import Job, held, identity, make_folder, plan
from ..out_of_memory import is_out_of_memory
from .enhancer import Enhancer
from .signals import exit_on_signal

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Share:
    """The share of the files that this process enhances: every `count`-th one, starting with `index`."""

    index: int = 0
    count: int = 1
    device: torch.device | None = None  # None: as the command line says

    @classmethod
    def from_environment(cls, args: argparse.Namespace) -> Share:
        """The share given by a launcher; all files without a launcher.

        Raises:
            ValueError: launched as one of several, but accelerate is missing.
        """
        if int(os.environ.get("WORLD_SIZE", "1")) < 2:
            return cls()
        try:
            from accelerate import PartialState
        except ImportError as error:
            raise ValueError("several processes need accelerate: pip install accelerate") from error
        # The first process that is done waits for the others, which may take long.
        state = PartialState(cpu=args.device == "cpu", timeout=timedelta(days=30))
        return cls(state.process_index, state.num_processes, state.device)

    def gathered(self, lines: list[str]) -> list[str]:
        """The lines of all processes; every process gets all of them."""
        if self.count < 2:
            return lines
        from accelerate.utils import gather_object

        return gather_object(lines)

    def leave(self) -> None:
        """Waits until all processes are done, because a launcher stops all of them when one returns an error."""
        if self.count > 1:
            from accelerate import PartialState

            PartialState().wait_for_everyone()
            PartialState().destroy_process_group()


def result_name(path: Path) -> str:
    """File name of the result of an input."""
    return f"{path.name}.tif" if path.suffix.lower() in DEVELOPED else path.name


def run(args: argparse.Namespace) -> int:
    """`jores enhance`: prints one line of JSON per file, and a summary of failures at the end.

    Returns the exit code: 1 if a file failed, otherwise 0. Raises ValueError for wrong arguments, before any work.
    """
    share = Share.from_environment(args)
    skipped: list[Path] = []
    barren: list[Path] = []
    inputs = _without_results(expand(args.inputs), args.output)
    files = find_images(inputs, (*FORMATS, *VIDEO_FORMATS), skipped=skipped, barren=barren)
    _check_output(args.output)
    _check_stripping(args, files)
    enhancer = Enhancer.from_args(args, share.device)
    make_folder(args.output, "--output")
    skipped, barren = ([path for path in paths if not _is_same(path, args.output)] for paths in (skipped, barren))
    todo = plan(files, args.output, result_name, also=[p for p in (args.mask, args.weights) if p])
    failures = []
    with exit_on_signal():
        for job in todo[share.index :: share.count]:
            record: dict[str, Any] = {"input": str(job.path)}
            if share.count > 1:
                record["process"] = share.index
            try:
                record |= _work(job, enhancer, args)
            except Exception as error:  # any error concerns this file only; the others are still processed
                record["error"] = _complaint(job, error)
                failures.append(record["error"])
            sys.stdout.write(json_line(record))
            sys.stdout.flush()
    failures = share.gathered(failures)
    if share.index == 0:
        sys.stderr.write(_summary(failures, len(todo), skipped, barren))
        sys.stderr.flush()
    share.leave()
    return 1 if failures else 0


def _without_results(inputs: list[Path], output: Path) -> list[Path]:
    """The inputs without the folder of the results, where that lies beside another one: a pattern that means all in a
    folder names what an earlier run has made there, too. Elsewhere it was named on purpose, and is read."""
    own = [path for path in inputs if _is_same(path, output)]
    if not own:
        return inputs
    left = set(own)
    beside = {Path(os.path.abspath(path)).parent for path in inputs if path not in left}
    places = {identity(folder) for folder in beside}
    return [path for path in inputs if path not in left or identity(Path(os.path.abspath(path)).parent) not in places]


def _is_same(path: Path, folder: Path) -> bool:
    """Whether a path is that folder, perhaps by another name."""
    return path.is_dir() and identity(path) == identity(folder)


def _check_output(output: Path) -> None:
    """Raises ValueError if the folder of the results has the name of a picture or film, or is a file."""
    if output.is_dir():
        return
    if os.path.lexists(output):  # also a link to what is not there
        raise ValueError(f"--output {output}: this is a file; name a folder. Nothing was done")
    if output.suffix.lower() in (*FORMATS, *VIDEO_FORMATS, *DEVELOPED):
        raise ValueError(
            f"--output {output}: results keep the names of their inputs, so --output names a folder, not a file "
            f"{output.suffix}. Nothing was done"
        )


def _check_stripping(args: argparse.Namespace, files: list[Path]) -> None:
    """Raises ValueError for --strip-metadata with videos, whose metadata cannot be removed."""
    films = [str(path) for path in files if path.suffix.lower() in VIDEO_FORMATS]
    if args.strip_metadata and films:
        more = f" and {len(films) - 1} more" if len(films) > 1 else ""
        reason = "a video keeps all that its file says (place, time, camera)"
        raise ValueError(
            f"{films[0]}{more}: --strip-metadata is for pictures; {reason}; leave it out. Nothing was done"
        )


def _summary(failures: list[str], count: int, skipped: list[Path], barren: Sequence[Path] = ()) -> str:
    """The failures, one per line, the folders without a picture and those in folders, and the number of files skipped
    there by suffix."""
    lines = [f"jores: {failure}\n" for failure in failures]
    if failures:
        lines.append(f"jores: {len(failures)} of {count} files failed\n")
    if barren:
        lines.append(
            f"jores: {len(barren)} folder(s) left out, with no picture or film directly in them ({_first(barren)})\n"
        )
    folders = [path for path in skipped if path.is_dir()]
    if folders:
        lines.append(f"jores: {len(folders)} folder(s) inside were not searched: name them, too ({_first(folders)})\n")
    no_files = [path for path in skipped if not path.is_file() and not path.is_dir()]
    if no_files:
        lines.append(f"jores: {len(no_files)} entry(s) are no files, or links to nothing ({_first(no_files)})\n")
    kinds = Counter(path.suffix.lower() or path.name for path in skipped if path.is_file())
    if kinds:
        named = ", ".join(f"{number} {kind}{_wanted(kind)}" for kind, number in sorted(kinds.items()))
        lines.append(f"jores: skipped in the folders, because their kind is not supported: {named}\n")
    return "".join(lines)


def _first(paths: Sequence[Path]) -> str:
    return ", ".join(map(str, paths[:3])) + (", ..." if len(paths) > 3 else "")


def _wanted(kind: str) -> str:
    message = missing(kind)
    return f" ({message})" if message else ""


def _complaint(job: Job, error: Exception) -> str:
    """Message for a file that failed; it always names the file."""
    if is_out_of_memory(error):
        return f"{job.path}: out of memory ({error})"
    if not isinstance(error, ValueError | OSError):
        logger.debug("%s", job.path, exc_info=error)
        return f"{job.path}: {type(error).__name__}: {error}"
    message = str(error)
    return message if str(job.path) in message else f"{job.path}: {message}"


def _work(job: Job, enhancer: Enhancer, args: argparse.Namespace) -> dict[str, Any]:
    """Enhances one file; returns its record. `plan` already made sure that the result replaces no input."""
    path, target = job.path, job.target
    exists = job.is_done()
    if exists and args.resume:
        return {"output": str(target), "skipped": True}
    if exists and not args.overwrite:
        raise ValueError(f"{path}: {target} exists already; add --overwrite, or --resume to keep it")
    if exists and (reason := held(target)):
        raise ValueError(f"{path}: {target} cannot be replaced: locked, or open in another program ({reason})")
    is_film = path.suffix.lower() in VIDEO_FORMATS
    if not is_film and target.suffix.lower() not in FORMATS:
        if not path.exists():
            raise ValueError(f"{path}: no such file or folder")
        raise ValueError(f"{path}: not a kind of file that is read ({readable((*FORMATS, *VIDEO_FORMATS))})")
    try:
        return (_enhance_video if is_film else _enhance_picture)(job, enhancer, args)
    except FileExistsError as error:
        if args.resume:
            return {"output": str(target), "skipped": True}
        raise ValueError(f"{path}: {target} was made by another program meanwhile; it is kept") from error


def _enhance_picture(job: Job, enhancer: Enhancer, args: argparse.Namespace) -> dict[str, Any]:
    path, target, start = job.path, job.target, time.perf_counter()
    picture = read_image(path).stripped() if args.strip_metadata else read_image(path)
    check_fits(target, picture)
    loaded = time.perf_counter()
    pixels, exposure = enhancer(picture.pixels)
    enhanced = time.perf_counter()
    write_image(target, replace(picture, pixels=pixels), replace=args.overwrite)
    seconds = {"load": loaded - start, "enhance": enhanced - loaded, "save": time.perf_counter() - enhanced}
    return {
        "output": str(target),
        "width": pixels.shape[2],
        "height": pixels.shape[1],
        "exposure": round(exposure, 4),
        "brightness": enhancer.options.brightness,
        "texture": enhancer.options.texture,
        "left_out": picture.metadata.left_out,
        "seconds": {stage: round(value, 3) for stage, value in seconds.items()},
    }


def _enhance_video(job: Job, enhancer: Enhancer, args: argparse.Namespace) -> dict[str, Any]:
    try:
        from ..files.clips import rewrite_video
    except ImportError as error:
        raise ValueError(f"{job.path}: videos need PyAV: pip install av") from error
    start = time.perf_counter()
    report = rewrite_video(job.path, job.target, enhancer.frames, replace=args.overwrite)
    settings = {"brightness": enhancer.options.brightness, "texture": enhancer.options.texture}
    return {"output": str(job.target), **asdict(report), **settings, "seconds": round(time.perf_counter() - start, 3)}
