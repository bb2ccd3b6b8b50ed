"""What is refused before any work: pictures and masks that cannot be used."""

from __future__ import annotations

import torch
from torch import Tensor


def checked(images: Tensor) -> Tensor:
    """Returns `images` if they are valid: (B, 3 or 4, H, W), not empty, floating-point, finite, no levels 0..255.

    Raises ValueError.
    """
    if images.ndim != 4 or images.shape[1] not in (3, 4):
        raise ValueError(f"images must be (B, 3 or 4, H, W), not {tuple(images.shape)}")
    if images.numel() == 0:
        raise ValueError(f"images of shape {tuple(images.shape)} hold no pixels")
    if not images.is_floating_point():
        raise ValueError(f"images are {images.dtype}: give floating-point numbers in [0, 1], such as uint8 / 255")
    if images.is_meta:  # without values, as for a count of operations
        return images
    if not is_finite(images):
        raise ValueError("images hold NaN or infinite pixels: find the step before that made them")
    check_range(images, "a picture")
    return images


def is_finite(values: Tensor) -> bool:
    """Whether a tensor, which is not empty, holds neither NaN nor infinity."""
    return all(bool(torch.isfinite(bound)) for bound in values.aminmax())


def check_range(values: Tensor, what: str) -> None:
    """Raises ValueError for levels 0..255 instead of 0..1 in one of the pictures or masks (B, ...): all would be white.

    Values above 1 are allowed: slightly, as after sharpening, or a few large ones, as in HDR pictures. Levels are
    recognised because all are integers, or their mean is high. Each picture is judged alone, as a frame of a clip is.
    """
    for picture in values if float(values.amax()) >= 2 else ():
        if (top := float(picture.amax())) < 2:
            continue
        if float(picture.mean(dtype=torch.float32)) > 2 or bool((picture == picture.round()).all()):
            raise ValueError(f"{what} holds levels up to {top:g}, not 0 to 1: divide by 255 where they are made")


def check_mask(mask: Tensor | None, original: Tensor) -> None:
    """Raises ValueError for a mask with a wrong shape for pictures (B, C, H, W), or values outside [0, 1] or NaN."""
    if mask is None:
        return
    size = tuple(original.shape[-2:])
    if mask.ndim != 4 or mask.shape[1] != 1 or tuple(mask.shape[-2:]) != size or len(mask) not in (1, len(original)):
        raise ValueError(f"mask is {tuple(mask.shape)}, must be ({len(original)} or 1, 1, {size[0]}, {size[1]})")
    if not bool(((mask >= 0) & (mask <= 1)).all()):
        raise ValueError("mask holds values outside [0, 1], or NaN")
