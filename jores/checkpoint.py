"""Bundles: the nets in one .safetensors file, whose header holds config, licence and training record."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from .config import JoReSConfig, ScheduleConfig
from .diffusion.schedule import NoiseSchedule
from .files.saving import write_atomically
from .nets.adjustment import AdjustmentNet
from .nets.decomposition import DecompositionNet
from .nets.denoiser import DenoisingUNet
from .nets.layout import in_fast_layout
from .nets.refinement import RefinementNet
from .out_of_memory import is_out_of_memory

Net = TypeVar("Net", bound=nn.Module)

FORMAT = "jores-diff"
FORMAT_VERSION = 1
"""Version of the layout of a bundle: names of parts and weights, and fields of the header. The default is 1."""
PARTS: dict[str, type[nn.Module]] = {
    "decomposition": DecompositionNet,
    "adjustment": AdjustmentNet,
    "denoiser": DenoisingUNet,
    "refinement": RefinementNet,
}
SHIPPED_WEIGHTS = Path(__file__).parent / "weights" / "jores-compact.safetensors"
SHIPPED_SEGMENTER = Path(__file__).parent / "weights" / "deeplab-ade20k"
FORMER_SEGMENTER = Path(__file__).parent / "weights" / "segformer-dark"
"""The segmenter of release 0.1, still shipped for graphs that use it."""

_LARGEST_WIDTH = 1 << 14
_LARGEST = {
    "timesteps": 100_000, "blocks": 64, "encoder": 64, "decoder": 64,
    "picture_std": 1, "residual_scale": 1, "beta_start": 1, "beta_end": 1,
}  # fmt: skip
_UNREADABLE = (SafetensorError, OSError, ValueError, TypeError, RuntimeError, KeyError, AttributeError, OverflowError)


class CheckpointError(ValueError):
    """A checkpoint that cannot be used. The message names the file and says what to do."""


@dataclass
class JoReSNets:
    """The four nets of the method. A part that a bundle does not hold, as in early stages of training, is None."""

    config: JoReSConfig
    decomposition: DecompositionNet | None = None
    adjustment: AdjustmentNet | None = None
    denoiser: DenoisingUNet | None = None
    refinement: RefinementNet | None = None
    metadata: dict[str, str] = field(default_factory=dict)

    @property
    def dnet(self) -> DecompositionNet:
        """The part by its name in the paper, like the next three. Raises CheckpointError if it is None."""
        return _held(self.decomposition, "decomposition")

    @property
    def anet(self) -> AdjustmentNet:
        return _held(self.adjustment, "adjustment")

    @property
    def unet(self) -> DenoisingUNet:
        return _held(self.denoiser, "denoiser")

    @property
    def rnet(self) -> RefinementNet:
        return _held(self.refinement, "refinement")

    def parts(self) -> dict[str, nn.Module]:
        """The parts that are not None, by name."""
        return {name: getattr(self, name) for name in PARTS if getattr(self, name) is not None}


def build(config: JoReSConfig, parts: tuple[str, ...] = tuple(PARTS), **kwargs: Any) -> JoReSNets:
    """Nets with newly initialised weights, in evaluation mode. `kwargs`: operations, device, dtype."""
    nets = JoReSNets(config)
    for name in parts:
        setattr(nets, name, build_part(config, name, **kwargs))
    return nets


def _held(part: Net | None, name: str) -> Net:
    if part is None:
        raise CheckpointError(f"the {name} net is missing: load a bundle that holds it, or train that stage first")
    return part


def build_part(config: JoReSConfig, name: str, **kwargs: Any) -> nn.Module:
    """One net with newly initialised weights, in evaluation mode. `name`: a key of PARTS; `kwargs` as in `build`."""
    return PARTS[name](getattr(config, name), **kwargs).eval()


def save_bundle(
    path: str | Path, nets: JoReSNets, metadata: dict[str, str] | None = None, dtype: torch.dtype | None = torch.float16
) -> None:
    """Writes the parts of `nets` to a bundle, atomically.

    `metadata` is added to the header. Weights are converted to `dtype` (None: unchanged). Raises OSError.
    """
    tensors = {
        f"{name}.{key}": (value.to(dtype) if dtype and value.is_floating_point() else value).contiguous().cpu()
        for name, part in nets.parts().items()
        for key, value in part.state_dict().items()
    }
    header = {
        **nets.metadata, **(metadata or {}), "format": FORMAT, "format_version": str(FORMAT_VERSION),
        "config": json.dumps(nets.config.to_dict()),
    }  # fmt: skip
    write_atomically(Path(path), save(tensors, header))


def read_header(path: str | Path) -> tuple[JoReSConfig, dict[str, str]]:
    """Config and the other header fields of a bundle, without reading its tensors. Raises CheckpointError."""
    with _open(Path(path)) as file:
        return _parse_header(Path(path), file.metadata())


def load_bundle(
    path: str | Path,
    *,
    parts: tuple[str, ...] = tuple(PARTS),
    operations: Any = nn,
    device: torch.device | str | None = None,
    runs_on: torch.device | None = None,
) -> JoReSNets:
    """Loads the named parts strictly, in float32, in evaluation mode and without gradients.

    Args:
        runs_on: the device that the nets run on, if that is not `device`.

    Raises:
        CheckpointError: the file is missing, damaged or not a bundle, holds NaN, or lacks a weight of these parts.
    """
    path = Path(path)
    with _open(path) as file:
        config, metadata = _parse_header(path, file.metadata())
        try:
            tensors = {k: file.get_tensor(k) for k in file.keys() if k.split(".", 1)[0] in parts}  # noqa: SIM118
        except _UNREADABLE as error:
            if is_out_of_memory(error):  # the file is whole; the host makes room and says so
                raise
            raise CheckpointError(f"{path}: its weights cannot be read ({error}). Get it again.") from error
    nets, weights = JoReSNets(config, metadata=metadata), {}
    for name in parts:
        weights[name] = {k.split(".", 1)[1]: v for k, v in tensors.items() if k.startswith(f"{name}.")}
        _check_weights(path, config, name, weights[name])
    for name in parts:
        part = build_part(config, name, operations=operations, device=device, dtype=torch.float32)
        # Converted here, because layers of some hosts use the given tensors instead of copying their values.
        # Copied, because tensors that map the file would prevent replacing it.
        part.load_state_dict({k: v.to(device, torch.float32, copy=True) for k, v in weights[name].items()})
        setattr(nets, name, in_fast_layout(part.requires_grad_(False), runs_on or device))
    return nets


def held_parts(path: str | Path) -> tuple[str, ...]:
    """Names of the parts in a bundle, which may not hold all of them. Raises CheckpointError."""
    with _open(Path(path)) as file:
        held = {key.split(".", 1)[0] for key in file.keys()}  # noqa: SIM118
    return tuple(name for name in PARTS if name in held)


def _open(path: Path) -> Any:
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file. Put a JoReS bundle there, or choose the shipped one.")
    if not os.access(path, os.R_OK):
        raise CheckpointError(f"{path}: this user may not read the file. Change its permissions.")
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not a readable .safetensors file ({error}). Download it again.") from error


def _parse_header(path: Path, metadata: dict[str, str] | None) -> tuple[JoReSConfig, dict[str, str]]:
    metadata = dict(metadata or {})
    if metadata.pop("format", None) != FORMAT:
        raise CheckpointError(
            f"{path}: not a JoReS bundle (its header does not have the format {FORMAT}). Choose another file."
        )
    version = metadata.pop("format_version", "1")
    if not version.isdecimal() or int(version) > FORMAT_VERSION:
        raise CheckpointError(
            f"{path}: a bundle of format {version}, this version of the nodes reads formats up to {FORMAT_VERSION}. "
            "Update the nodes, or choose another bundle."
        )
    try:
        config = JoReSConfig.from_dict(json.loads(metadata.pop("config")))
        _check_entries(config.to_dict(), JoReSConfig().to_dict())
        _check_schedule(config.schedule)
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{path}: the config in its header cannot be used: {error}") from error
    return config, metadata


def _check_entries(values: dict[str, Any], usual: dict[str, Any], name: str = "") -> None:
    """Checks types and ranges of a config against those of a preset, so that a damaged header builds no huge nets."""
    for key, value in values.items():
        like, shown = usual[key], f"{name}{key} = {value!r}"
        if isinstance(like, dict):
            _check_entries(value, like, f"{key}.")
            continue
        many = value if isinstance(like, tuple) and isinstance(value, tuple) else (value,)
        kind = type(like[0]) if isinstance(like, tuple) else type(like)
        if kind is float and type(value) is int:
            kind = int
        if any(type(one) is not kind for one in many) or isinstance(like, tuple) != isinstance(value, tuple):
            raise ValueError(f"{shown} is of the wrong type")
        if kind in (int, float) and not all(0 <= one <= _LARGEST.get(key, _LARGEST_WIDTH) for one in many):
            raise ValueError(f"{shown} is out of range")
        if len(many) > 16:
            raise ValueError(f"{shown} is too long")


def _check_schedule(schedule: ScheduleConfig) -> None:
    """Checks that a schedule goes from a picture to noise; the shapes of the weights do not depend on it."""
    if schedule.timesteps < 2:
        raise ValueError(f"schedule.timesteps = {schedule.timesteps}: there must be 2 or more")
    alphas = NoiseSchedule(schedule).alphas_cumprod
    least = 0.0 if schedule.prediction == "v" else 1e-10  # with "eps" x0 is divided by the root of alpha_bar
    falling = bool(torch.isfinite(alphas).all()) and bool((alphas.diff() <= 0).all())
    if not (falling and least <= alphas[-1] < alphas[0] <= 1):
        raise ValueError(f"{schedule} does not lead from a picture to noise")


def _check_weights(path: Path, config: JoReSConfig, name: str, tensors: dict[str, torch.Tensor]) -> None:
    """Compares weights with a net on the meta device, so that memory is only allocated for a net that fits the file."""
    if not tensors:
        raise CheckpointError(
            f"{path}: holds no {name} net: it is the bundle of an earlier stage of training. Train the stages after it "
            "(jores/training/README.md), or choose another bundle."
        )
    try:
        expected = build_part(config, name, device="meta").state_dict()
    except (ValueError, TypeError, RuntimeError, ArithmeticError, LookupError, AttributeError) as error:
        raise CheckpointError(f"{path}: its config gives no {name} net ({error}). Get it again.") from error
    missing, surplus = sorted(expected.keys() - tensors.keys()), sorted(tensors.keys() - expected.keys())
    wrong = sorted(k for k in expected.keys() & tensors.keys() if expected[k].shape != tensors[k].shape)
    if missing or surplus or wrong:
        found = [f"{len(v)} {what} (first: {v[0]})" for what, v in
                 (("missing", missing), ("unknown", surplus), ("of another shape", wrong)) if v]  # fmt: skip
        raise CheckpointError(f"{path}: its {name} weights do not fit its config: {', '.join(found)}. Get it again.")
    for key, tensor in tensors.items():
        if not tensor.is_floating_point() or not bool(torch.isfinite(tensor.float()).all()):
            raise CheckpointError(
                f"{path}: {name}.{key} holds values that are not finite: the file is damaged. Get it again."
            )
