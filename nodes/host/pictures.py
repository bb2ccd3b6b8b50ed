"""Converts the host's IMAGE and MASK (BHWC, BHW) to the library's BCHW and back, and refuses invalid input."""

from __future__ import annotations

import logging

import comfy.model_management as mm
import torch
from torch import Tensor

from ...jores.imaging.checks import check_range
from .checks import check_finite, expect

log = logging.getLogger(__name__)

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
NO_MASK = (64, 64)  # size of the zero mask that the host's Load Image returns for a picture without alpha


def from_image(image: Tensor, node: str, name: str = "image") -> Tensor:
    """IMAGE (B, H, W, 1 | 3 | 4) -> float32 view or copy (B, 3 | 4, H, W); grey becomes RGB.

    Raises:
        ValueError: an empty batch, other channels, NaN, infinity, levels 0..255, or no values. The message starts with
            `node` and the name of the input.
    """
    expect(image, Tensor, node, name, "connect an IMAGE")
    shape = tuple(image.shape)
    if image.ndim != 4 or shape[-1] not in (1, 3, 4):
        raise ValueError(f"{node}: {name} must be (batch, height, width, 1, 3 or 4 channels), not {shape}")
    if image.numel() == 0:
        raise ValueError(f"{node}: {name} of shape {shape} is empty: there is no picture to work on")
    image = _computable(image, f"{node}: {name}")
    check_finite(image, f"{node}: {name}")
    check_range(image, f"{node}: {name}")
    pixels = image.movedim(-1, 1).float()
    return pixels.expand(-1, 3, -1, -1) if shape[-1] == 1 else pixels


def from_mask(mask: Tensor | None, count: int, size: tuple[int, int], node: str, name: str = "mask") -> Tensor | None:
    """MASK (B, H, W) or (H, W) -> (count, 1, H, W) in [0, 1]; a single mask is used for all pictures. None stays None.

    Raises:
        ValueError: a wrong number, size or range of masks, or no values. The message starts with `node` and
            the name of the input.
    """
    if mask is None:
        return None
    expect(mask, Tensor, node, name, "connect a MASK, or nothing")
    if mask.ndim < 2 or mask.numel() == 0 or mask.ndim > 4 or (mask.ndim == 4 and mask.shape[1] != 1):
        raise ValueError(f"{node}: {name} must be (batch, height, width), at least one, not {tuple(mask.shape)}")
    mask = mask.reshape(-1, *mask.shape[-2:])
    mask = _computable(mask, f"{node}: {name}")
    if tuple(mask.shape[-2:]) == NO_MASK and not mask.any():
        raise ValueError(
            f"{node}: nothing is painted on {name}: Load Image gives an empty mask of {NO_MASK[1]}x{NO_MASK[0]} for a "
            "picture without one. Paint one (right click on Load Image, Open in MaskEditor), or disconnect it"
        )
    if tuple(mask.shape[-2:]) != tuple(size):
        height, width = mask.shape[-2:]
        raise ValueError(
            f"{node}: {name} is {width}x{height} (width x height), but the picture is {size[1]}x{size[0]}: give it "
            "the picture's size"
        )
    check_finite(mask, f"{node}: {name}")
    if len(mask) not in (1, count):
        raise ValueError(f"{node}: {name} holds {len(mask)} masks for {count} pictures: give one, or one for each")
    check_range(mask, f"{node}: {name}")
    if name == "mask" and not mask.any():
        log.warning("%s: mask is black everywhere, so nothing is enhanced", node)
    return mask[:, None].float().clamp(0, 1).expand(count, -1, -1, -1)


def _computable(values: Tensor, what: str) -> Tensor:
    """`values` in a dtype that has all operations: integers and floats of 8 bits become float32.

    Raises ValueError for a tensor without values (on PyTorch's meta device).
    """
    if values.is_meta:
        raise ValueError(f"{what} has a size but no values: the node before it made none (meta device); take another")
    return values if values.dtype in FLOATS else values.float()


def result_dtype() -> torch.dtype:
    """Dtype of results: float32, or the host's setting (newer hosts: --fp16-intermediates)."""
    return getattr(mm, "intermediate_dtype", lambda: torch.float32)()


def empty_image(count: int, like: Tensor) -> Tensor:
    """An uninitialised IMAGE for `count` pictures with the size and channels of `like` (B, C, H, W)."""
    shape = (count, *like.shape[-2:], like.shape[1])
    return torch.empty(shape, device=mm.intermediate_device(), dtype=result_dtype())


def to_image(pictures: Tensor) -> Tensor:
    """(B, C, H, W) -> IMAGE (B, H, W, C) on the host's device for results."""
    return pictures.movedim(1, -1).to(mm.intermediate_device(), result_dtype()).contiguous()


def to_mask(maps: Tensor) -> Tensor:
    """(B, 1, H, W) -> MASK (B, H, W)."""
    return maps[:, 0].to(mm.intermediate_device(), result_dtype())


def shown_size(x: Tensor) -> str:
    """Size of a (..., H, W) tensor for messages, width first: "600x400"."""
    return f"{x.shape[-1]}x{x.shape[-2]}"
