"""One .safetensors bundle <-> the nets. The header carries config, licence and training record: no side-car files."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from .config import JoReSConfig
from .nets.adjustment import AdjustmentNet
from .nets.decomposition import DecompositionNet
from .nets.denoiser import DenoisingUNet
from .nets.refinement import RefinementNet

FORMAT = "jores-diff"
PARTS: dict[str, type[nn.Module]] = {
    "decomposition": DecompositionNet,
    "adjustment": AdjustmentNet,
    "denoiser": DenoisingUNet,
    "refinement": RefinementNet,
}
SHIPPED_WEIGHTS = Path(__file__).parent / "weights" / "jores-compact.safetensors"
SHIPPED_SEGMENTER = Path(__file__).parent / "weights" / "segformer-dark"


class CheckpointError(ValueError):
    """A checkpoint that cannot be used. The message names the file and says what to do."""


@dataclass
class JoReSNets:
    """The four nets of the method; a part that a bundle does not hold (an early training stage) is None."""

    config: JoReSConfig
    decomposition: nn.Module | None = None
    adjustment: nn.Module | None = None
    denoiser: nn.Module | None = None
    refinement: nn.Module | None = None
    metadata: dict[str, str] = field(default_factory=dict)

    def parts(self) -> dict[str, nn.Module]:
        return {name: getattr(self, name) for name in PARTS if getattr(self, name) is not None}


def build(config: JoReSConfig, parts: tuple[str, ...] = tuple(PARTS), **kwargs: Any) -> JoReSNets:
    """Nets with fresh weights, in evaluation mode. `kwargs`: operations, device, dtype."""
    return JoReSNets(config, **{name: build_part(config, name, **kwargs) for name in parts})


def build_part(config: JoReSConfig, name: str, **kwargs: Any) -> nn.Module:
    return PARTS[name](getattr(config, name), **kwargs).eval()


def save_bundle(
    path: str | Path, nets: JoReSNets, metadata: dict[str, str] | None = None, dtype: torch.dtype | None = torch.float16
) -> None:
    """Writes the parts of `nets` to a temporary name, then renames: no half-written file under the final name."""
    path = Path(path)
    tensors = {
        f"{name}.{key}": (value.to(dtype) if dtype and value.is_floating_point() else value).contiguous().cpu()
        for name, part in nets.parts().items()
        for key, value in part.state_dict().items()
    }
    header = {**nets.metadata, **(metadata or {}), "format": FORMAT, "config": json.dumps(nets.config.to_dict())}
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        save_file(tensors, temporary, metadata=header)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


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
    dtype: torch.dtype | None = torch.float32,
) -> JoReSNets:
    """Strictly loads the named parts, in evaluation mode and without gradients.

    Raises:
        CheckpointError: the file is missing, damaged, foreign, or does not hold every weight of every part.
    """
    path = Path(path)
    with _open(path) as file:
        config, metadata = _parse_header(path, file.metadata())
        tensors = {key: file.get_tensor(key) for key in file.keys() if key.split(".", 1)[0] in parts}  # noqa: SIM118
    nets = JoReSNets(config, metadata=metadata)
    for name in parts:
        part = build_part(config, name, operations=operations, device=device, dtype=dtype)
        _load_part(path, name, part, {k.split(".", 1)[1]: v for k, v in tensors.items() if k.startswith(f"{name}.")})
        setattr(nets, name, part.requires_grad_(False))
    return nets


def held_parts(path: str | Path) -> tuple[str, ...]:
    """Names of the parts a bundle holds; an early training stage has not all of them."""
    with _open(Path(path)) as file:
        held = {key.split(".", 1)[0] for key in file.keys()}  # noqa: SIM118
    return tuple(name for name in PARTS if name in held)


def _open(path: Path) -> Any:
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file. Put a JoReS bundle there, or choose the shipped one.")
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not a readable .safetensors file ({error}). Download it again.") from error


def _parse_header(path: Path, metadata: dict[str, str] | None) -> tuple[JoReSConfig, dict[str, str]]:
    metadata = dict(metadata or {})
    if metadata.pop("format", None) != FORMAT:
        raise CheckpointError(f"{path}: not a JoReS bundle (its header says nothing of {FORMAT}). Choose another file.")
    try:
        return JoReSConfig.from_dict(json.loads(metadata.pop("config"))), metadata
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"{path}: the config in its header cannot be used: {error}") from error


def _load_part(path: Path, name: str, part: nn.Module, tensors: dict[str, torch.Tensor]) -> None:
    expected = part.state_dict()
    missing, surplus = sorted(expected.keys() - tensors.keys()), sorted(tensors.keys() - expected.keys())
    wrong = sorted(k for k in expected.keys() & tensors.keys() if expected[k].shape != tensors[k].shape)
    if missing or surplus or wrong:
        found = [f"{len(v)} {what} (first: {v[0]})" for what, v in
                 (("missing", missing), ("unknown", surplus), ("of another shape", wrong)) if v]  # fmt: skip
        raise CheckpointError(f"{path}: its {name} weights do not fit its config: {', '.join(found)}. Get it again.")
    part.load_state_dict(tensors)
