"""Builds a stage from the command-line arguments and a recipe, and runs it."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from accelerate.utils import set_seed
from torch import Tensor, nn

from ..checkpoint import JoReSNets, build_part, held_parts, load_bundle
from ..config import PRESETS, JoReSConfig
from ..files.targets import make_folder, refuse_inputs
from . import checkpoints
from .data import CropSampler
from .loop import SHEET, LoopConfig, Stage, train
from .pairs import MAX_SHIFT, half_by_scene, load_photos, load_sets, validation_pairs
from .recipe import read_recipe
from .settings import check_complete

NEEDS = {
    "decompose": (), "expose": ("decomposition",), "adjust": ("decomposition",),
    "diffuse": ("decomposition", "adjustment"),
}  # fmt: skip
TRAINS = {
    "decompose": ("decomposition",), "expose": ("adjustment",), "adjust": ("adjustment",),
    "diffuse": ("denoiser", "refinement"),
}  # fmt: skip


def run(args: argparse.Namespace) -> Path:
    """Trains one stage; returns the path of its exported weights. Raises ValueError for wrong arguments or recipes."""
    recipe = read_recipe(args.config, args.stage)
    check_complete(args.config, args.stage, recipe)
    if args.init:
        refuse_inputs(args.out / f"{args.stage}.safetensors", [args.init], "--out")
    result = args.stage if args.stage == "segmenter" else f"{args.stage}.safetensors"  # a folder; a bundle
    checkpoints.refuse_foreign(args.out, (result, SHEET))
    make_folder(args.out, "--out")  # loading the data may take minutes
    overrides = {k: v for k in ("steps", "minutes") if (v := getattr(args, k)) is not None}
    loop = replace(LoopConfig(**recipe["loop"]), **overrides)
    set_seed(loop.seed)  # for the initial weights; the loop gives each process a seed of its own
    stage = build_segmenter(args, recipe) if args.stage == "segmenter" else build_stage(args, recipe)
    last = loop.steps if args.stop_after is None else args.stop_after
    how = {"mixed_precision": args.mixed_precision, "cpu": args.cpu, "workers": args.workers}
    return train(stage, loop, args.out, stop_after=last, **how)


def build_stage(args: argparse.Namespace, recipe: dict[str, Any]) -> Stage:
    """Any stage but "segmenter", with its nets and data loaded. `recipe` is the stage's part (see `read_recipe`).

    Raises:
        ValueError: data, --init and recipe are missing or do not fit together.
    """
    nets = _starting_nets(args, recipe)
    data = dict(recipe["data"])
    train_pairs = load_sets(args.data, args.split, data.pop("set_shares", None), data.pop("max_shift", MAX_SHIFT))
    val_pairs = half_by_scene(validation_pairs(args.data), 0)[:: recipe.get("validate_every", 1)]
    wants_photos = data.get("photo_share") or data.get("photos")
    photos = load_photos(args.photos) if args.photos and wants_photos else None
    if args.stage == "expose":
        from .expose import Expose

        return Expose(nets, train_pairs, photos, val_pairs, data)
    sampler = CropSampler(train_pairs, photos, **data)
    if args.stage == "decompose":
        from .decompose import Decompose

        return Decompose(nets, sampler, val_pairs, recipe["options"])
    if args.stage == "adjust":
        from .adjust import Adjust

        return Adjust(nets, sampler, val_pairs, recipe["options"])
    from .diffuse import Diffuse

    return Diffuse(nets, sampler, val_pairs, recipe["options"], recipe.get("segmenter"))


def build_segmenter(args: argparse.Namespace, recipe: dict[str, Any]) -> Stage:
    """Stage "segmenter", with its teacher and data loaded. Raises ValueError as `build_stage`."""
    from .segmenter import DistillSegmenter

    return DistillSegmenter(args, recipe)


def _starting_nets(args: argparse.Namespace, recipe: dict[str, Any]) -> JoReSNets:
    """All parts of --init, also those that the stage does not train. Parts to train that --init lacks are new."""
    needs, trains = NEEDS[args.stage], TRAINS[args.stage]
    if not args.init and needs:
        raise ValueError(f"--stage {args.stage} needs --init: a bundle that holds {', '.join(needs)}")
    held = held_parts(args.init) if args.init else ()
    missing = [n for n in needs if n not in held]
    if missing:
        raise ValueError(f"{args.init} holds no {', '.join(missing)}: train that stage first")
    config = preset(recipe["preset"])
    nets = _prepared(load_bundle(args.init, parts=held), config) if args.init else JoReSNets(config)
    others = [n for n in needs if getattr(nets.config, n) != getattr(config, n)]
    named = nets.config.name in PRESETS  # nets of an unnamed config may be used, and their UNet is trained as it is
    if nets.config.name != config.name and named and others:
        raise ValueError(f"{args.init} is of the preset {nets.config.name!r}, the recipe is for {config.name!r}")
    if "adjustment" in trains and nets.adjustment is not None and nets.config.adjustment != config.adjustment:
        nets = replace(nets, config=replace(nets.config, adjustment=config.adjustment), adjustment=_grown(nets, config))
    if "denoiser" in trains and named and nets.config.denoiser != config.denoiser:  # for another objective: start anew
        changed = replace(nets.config, name=config.name, denoiser=config.denoiser, schedule=config.schedule)
        nets = replace(nets, config=changed, denoiser=None, refinement=None)
    for name in trains:
        if getattr(nets, name) is None:
            setattr(nets, name, build_part(nets.config, name))
    nets.metadata.update(recipe["header"])
    return nets


def _prepared(nets: JoReSNets, config: JoReSConfig) -> JoReSNets:
    """The nets with dark pictures prepared for DNet as the recipe's preset does it, which changes no weights."""
    deband = config.decomposition.deband
    if nets.decomposition is not None:
        nets.decomposition.deband = deband
    part = replace(nets.config.decomposition, deband=deband)
    return replace(nets, config=replace(nets.config, decomposition=part))


def _grown(nets: JoReSNets, config: JoReSConfig) -> nn.Module:
    """Converts an older ANet: the bins of a bilateral gain grid all start with the log gains of release 0.1, and the
    experts that propose the light with the one head that was there.

    Raises:
        ValueError: its widths are not those of the recipe's preset.
    """
    anet = build_part(config, "adjustment")
    state = anet.state_dict()
    for key, old in nets.anet.state_dict().items():
        if key.startswith("gain_grid.head"):
            old = old.repeat(len(state[key]) // len(old), *[1] * (old.dim() - 1))
        heads = range(config.adjustment.light_experts) if key.startswith("exposure_head") else ()
        # that of release 0.1 is of another kind; experts begin as the one head
        names = [key, *(key.replace("exposure_head", f"exposure_head.experts.{i}") for i in heads)]
        fitting = {name: _widened(old, state[name], bool(heads)) for name in names if name in state}
        state.update({name: value for name, value in fitting.items() if value is not None})
        if not key.startswith("exposure_head") and fitting.get(key) is None:
            raise ValueError(f"--init has an ANet of other sizes than the recipe's preset: {key} {tuple(old.shape)}")
    anet.load_state_dict(state)
    return anet


def _widened(old: Tensor, new: Tensor, head: bool) -> Tensor | None:
    """`old`, for a `head` with zeros for the inputs that `new` has besides; None if they differ in more than that."""
    more = new.shape[-1] - old.shape[-1] if head and old.dim() == 2 == new.dim() else 0
    widened = nn.functional.pad(old, (0, more)) if more > 0 else old
    return widened if widened.shape == new.shape else None


def preset(name: str) -> JoReSConfig:
    """The preset of this name. Raises ValueError that lists the known names."""
    if name not in PRESETS:
        raise ValueError(f"preset {name!r} is not one of {', '.join(PRESETS)}")
    return PRESETS[name]
