"""The pipeline with the settings of the command line, for its commands `enhance` and `evaluate`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from itertools import chain, cycle
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from ..checkpoint import SHIPPED_SEGMENTER, SHIPPED_WEIGHTS, JoReSNets, load_bundle
from ..conditions import Listener
from ..files.pictures import read_image
from ..imaging.alpha import is_opaque
from ..nets.segmentation import Segmenter
from ..options import ClipOptions, FinishOptions, SampleOptions, at_quality
from ..pipeline import enhance, needed_steps
from ..precision import reduce_precision
from ..semantics import load_segmenter
from ..video import enhance_frames

Options = TypeVar("Options", SampleOptions, FinishOptions)


@dataclass(frozen=True)
class Enhancer:
    """The pipeline with nets and settings from the command line. Call it with a picture, or use `frames` for a clip."""

    nets: JoReSNets
    segmenter: Segmenter | None
    options: SampleOptions
    finishing: FinishOptions
    clip: ClipOptions
    mask_file: Path | None = None
    whole_mask: Tensor | None = None

    @classmethod
    def from_args(cls, args: argparse.Namespace, device: torch.device | None = None) -> Enhancer:
        """Loads the nets to `device` (default: that of the command line). Raises ValueError for wrong arguments."""
        device = device or choose_device(args.device)
        options, finishing = at_quality(options_of(SampleOptions, args), args.quality), options_of(FinishOptions, args)
        clip, mask = ClipOptions(not args.independent_frames, device), read_mask(args.mask) if args.mask else None
        nets = load_bundle(args.weights or SHIPPED_WEIGHTS, device=device)
        needed_steps(options, nets.config)  # refuses steps that the schedule has not
        reduce_precision(nets, args.precision, device)
        segmenter = None
        if args.segmenter != "none":
            segmenter = load_segmenter(Path(args.segmenter or SHIPPED_SEGMENTER), device=device)
        return cls(nets, segmenter, options, finishing, clip, args.mask, mask)

    def __call__(self, pixels: Tensor) -> tuple[Tensor, float]:
        """Enhances (3 or 4, H, W) in [0, 1] on the CPU; returns the result of the same shape, and its exposure."""
        images = pixels[None]  # stays on the CPU: the pipeline moves what it needs to the nets
        mask, listener = self.mask((pixels.shape[1], pixels.shape[2])), Listener()
        made = enhance(images, self.nets, self.segmenter, self.options, self.finishing, mask=mask, keeper=listener)
        return made[0].cpu(), listener.exposure

    def frames(self, frames: Iterator[Tensor]) -> Iterator[Tensor]:
        """Enhances frames (1, 3 or 4, H, W) of a clip; fields of interlaced video have `rows` (see `Pictures`)."""
        first, rows = next(frames), getattr(frames, "rows", (slice(None),))
        mask = self.mask((first.shape[2] * len(rows), first.shape[3]))
        masks = None if mask is None else cycle([mask[:, :, part] for part in rows])
        clip = replace(self.clip, ahead=getattr(frames, "again", None))
        pictures = chain([first], frames)
        return enhance_frames(
            pictures, self.nets, self.segmenter, self.options, self.finishing, clip, masks=masks
        )  # fmt: skip

    def mask(self, size: tuple[int, int]) -> Tensor | None:
        """The mask (1, 1, H, W) for a picture of `size` (H, W); None without --mask. Raises ValueError."""
        if self.whole_mask is not None and self.whole_mask.shape[2:] != size:
            shown = "the mask is {1}x{0} (width x height), the picture {3}x{2}"
            shown = shown.format(*self.whole_mask.shape[2:], *size)
            raise ValueError(f"{self.mask_file}: {shown}: they must have the same size")
        return self.whole_mask


def read_mask(path: Path) -> Tensor:
    """The mask (1, 1, H, W) in [0, 1] of a picture file. Raises ValueError if it cannot be read or is nowhere white."""
    pixels = read_image(path).pixels[None]
    mask = pixels[:, :3].amax(1, keepdim=True)
    if not is_opaque(pixels):  # transparent pixels do not count as white
        mask = mask * pixels[:, 3:]
    if not mask.any():
        where = "" if is_opaque(pixels) else " where it is not transparent"
        raise ValueError(f"{path}: nowhere white{where}, so nothing would be enhanced")
    return mask


def options_of(kind: type[Options], args: argparse.Namespace) -> Options:
    """An options object with the fields that the command line has; the others keep their defaults."""
    return kind(**{f.name: getattr(args, f.name) for f in fields(kind) if hasattr(args, f.name)})


def choose_device(name: str) -> torch.device:
    """The device `name`; "auto" selects the first available accelerator, or the CPU.

    Raises:
        ValueError: the device cannot be used.
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
    except (RuntimeError, AssertionError) as error:  # AssertionError: builds without CUDA
        raise ValueError(f"--device {name} cannot be used: {str(error).splitlines()[0]}") from error
