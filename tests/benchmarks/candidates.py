"""Training experiments: candidates that differ in one thing each, trained alike, side by side in one table.

    python -m tests.benchmarks.candidates tests/benchmarks/candidates_adjust.yaml [--out DIR] [--only NAME ...]

Each candidate is trained by `python -m jores train` for the same number of minutes in a folder of its own, with its
recipe, log and figures. The table (Markdown, the last validation of each) goes to standard output. The same command
goes on where it was stopped: finished candidates are not trained again. A candidate's figures compare only with those
of the same table, and only if nothing else took the machine's time meanwhile: see its number of steps.

The file: stage, minutes, data, photos, init (bundle), keep (parts of it to start from; the others are fresh), recipe,
arguments (further ones for `train`), common (overrides for all) and candidates (name: overrides). Overrides are merged
into the recipe's part for the stage; `config` among them into the nets' config. The recipe must be one for the preset
of `init`; by default both are those of the release.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from jores.checkpoint import PARTS, JoReSNets, held_parts, load_bundle, read_header, save_bundle
from jores.config import PRESETS, JoReSConfig
from jores.files.saving import write_atomically
from jores.training import RECIPES
from jores.training.recipe import merged, read_recipe
from jores.training.settings import check_recipe

ROOT = Path(__file__).parents[2]
FIRST = ("step", "minutes")


@dataclass(frozen=True)
class Experiment:
    """One file of candidates; paths in it are relative to the folder the command is given in."""

    stage: str
    minutes: float
    data: str
    candidates: dict[str, dict[str, Any] | None]
    photos: str | None = None
    init: str | None = None
    keep: list[str] | None = None
    recipe: str = str(RECIPES / "texture.yaml")  # of the released bundle's preset
    arguments: tuple[str, ...] = ()
    common: dict[str, Any] | None = None

    @classmethod
    def read(cls, path: Path) -> Experiment:
        """Raises ValueError that names the file."""
        try:
            return cls(**yaml.safe_load(path.read_text(encoding="utf-8")))
        except (TypeError, yaml.YAMLError) as error:
            raise ValueError(f"{path}: not a file of candidates: {error}") from error

    def settings(self, name: str) -> dict[str, Any]:
        """All that decides a candidate's result: the recipe's part as trained, the config, and how it was started.

        Raises:
            ValueError: a setting that the stage does not have, or one that does nothing.
        """
        if not isinstance(own := self.candidates[name] or {}, dict):
            raise ValueError(f"must hold settings by name, not {own!r}")
        overrides = merged(self.common or {}, own)
        config = overrides.pop("config", {})
        part = merged(read_recipe(Path(self.recipe), self.stage), overrides)
        start = {"init": self.init, "keep": self.keep, "config": config, "arguments": list(self.arguments)}
        recipe = {**{key: part.pop(key) for key in ("preset", "header")}, self.stage: part}
        check_recipe(Path("its recipe"), recipe)
        return {"stage": self.stage, "minutes": self.minutes, **start, "recipe": recipe}


def starting_config(settings: dict[str, Any]) -> JoReSConfig:
    """The config of the bundle to start from, with the candidate's overrides; then it is no preset and has no name of
    one, so that training leaves it as it is. Raises ValueError: the config cannot be."""
    init, overrides = settings["init"], settings["config"]
    config = read_header(init)[0] if init else PRESETS[settings["recipe"]["preset"]]
    if not overrides:
        return config
    if config.name in PRESETS and config.name != (wanted := settings["recipe"]["preset"]):
        raise ValueError(f"{init} is of the preset {config.name!r}, the recipe is for {wanted!r}")
    values = json.loads(json.dumps(config.to_dict()))
    if not isinstance(overrides, dict) or (unknown := overrides.keys() - values.keys()):
        raise ValueError(f"config: {overrides if not isinstance(overrides, dict) else unknown} is no part of a config")
    return JoReSConfig.from_dict(merged(values, {"name": "candidate", **overrides}))


def starting_bundle(settings: dict[str, Any], path: Path) -> None:
    """Writes what `train --init` starts from: the config with its overrides, and the parts that are kept.

    A part whose own config was overridden does not fit any more and is left out; so are the diffusion nets if what
    they predict has changed.
    """
    init, changed = settings["init"], set(settings["config"])
    config = starting_config(settings)
    if "schedule" in changed:
        changed |= {"denoiser", "refinement"}
    held = held_parts(init) if init else ()
    wanted = settings["keep"] or PARTS
    kept = tuple(name for name in held if name in wanted and name not in changed)
    nets = load_bundle(init, parts=kept) if init else JoReSNets(config)
    nets.config = config
    save_bundle(path, nets)


def train(experiment: Experiment, settings: dict[str, Any], folder: Path) -> dict[str, str]:
    """Trains one candidate, or goes on with it; returns the last row of its validation.csv.

    Raises:
        ValueError: training failed; the message names the log.
    """
    folder.mkdir(parents=True, exist_ok=True)
    recipe, start, log = folder / "recipe.yaml", folder / "start.safetensors", folder / "train.log"
    write_atomically(recipe, yaml.safe_dump(settings["recipe"]).encode())
    if not start.exists():
        starting_bundle(settings, start)
    command = [sys.executable, "-m", "jores", "train", "--stage", experiment.stage, "--config", recipe.resolve()]
    command += ["--data", Path(experiment.data).resolve(), "--init", start.resolve(), "--out", folder.resolve()]
    command += ["--photos", Path(experiment.photos).resolve()] if experiment.photos else []
    command += ["--minutes", settings["minutes"], *experiment.arguments]
    with log.open("ab") as output:
        done = subprocess.run([*map(str, command)], cwd=ROOT, stdout=output, stderr=output, check=False)
    if done.returncode:
        last = log.read_text(encoding="utf-8", errors="replace").strip().rpartition("\n")[2]
        raise ValueError(f"training failed: {last}; see {log}")
    with (folder / "validation.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))[-1]


def result_of(experiment: Experiment, name: str, out: Path) -> dict[str, str]:
    """The figures of a candidate, trained now unless it is finished.

    Raises:
        ValueError: it failed, or its folder holds the same name with other settings.
    """
    folder, settings = out / re.sub(r"\W+", "-", name).strip("-"), experiment.settings(name)
    started, finished = folder / "candidate.json", folder / "result.json"
    if started.exists() and json.loads(started.read_text(encoding="utf-8")) != settings:
        raise ValueError(f"{folder} holds other settings of this name; choose another name or --out, or move it away")
    if finished.exists():
        return json.loads(finished.read_text(encoding="utf-8"))
    starting_config(settings)  # refuses what cannot be before there is a folder
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(started, json.dumps(settings, indent=1).encode())
    row = train(experiment, settings, folder)
    write_atomically(finished, json.dumps(row, indent=1).encode())
    return row


def table(results: dict[str, dict[str, str]]) -> str:
    """Markdown, a line per candidate; a dash where another candidate has a figure that this one has not."""
    found = dict.fromkeys(key for row in results.values() for key in row)
    keys = [*FIRST, *(key for key in found if key not in FIRST)]
    lines = [f"| candidate | {' | '.join(keys)} |", f"|---{'|---' * len(keys)}|"]
    lines += [f"| {name} | {' | '.join(row.get(key, '-') for key in keys)} |" for name, row in results.items()]
    return "\n".join(lines) + "\n"


def main(argv: list[str] | None = None, write: Callable[[str], object] = sys.stdout.write) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", type=Path, metavar="YAML")
    parser.add_argument("--out", type=Path, default=Path("runs/candidates"))
    parser.add_argument("--only", nargs="*", metavar="NAME", help="only these candidates")
    parser.add_argument("--minutes", type=float, help="instead of the file's")
    args = parser.parse_args(argv)
    results, failures = {}, 0
    try:
        experiment = Experiment.read(args.experiment)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    if unknown := set(args.only or ()) - set(experiment.candidates):
        parser.error(f"no such candidate: {', '.join(sorted(unknown))}; there are {', '.join(experiment.candidates)}")
    if args.minutes:
        experiment = replace(experiment, minutes=args.minutes)
    for name in args.only or experiment.candidates:
        try:
            results[name] = result_of(experiment, name, args.out)
        except ValueError as error:
            failures += 1
            sys.stderr.write(f"{name}: {error}\n")
    if results:
        write(table(results))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
