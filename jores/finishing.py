"""The last stage: x0 becomes a picture again, and the dials say where, how much and in whose colours it shows."""

from __future__ import annotations

import torch
from torch import Tensor

from .imaging.alpha import opaque
from .imaging.controls import colour_scale, feather_mask, scale_colours, shadow_weight

BAND = 256  # rows of a picture that are finished at once


@torch.inference_mode()
def finish(
    x0: Tensor,
    original: Tensor,
    *,
    strength: float = 1.0,
    mask: Tensor | None = None,
    feather: int = 0,
    shadows: float = 0.0,
    colour_fidelity: float = 0.0,
    reuse: bool = False,
) -> Tensor:
    """x0 in [-1, 1] -> picture in [0, 1], in float32, with the original's alpha; where mask or strength is 0 the
    original's pixels come back bit by bit (even those that are not in [0, 1]), and so do the hidden colours of pixels
    that are transparent.

    Args:
        mask: (B or 1, 1, H, W) in [0, 1]. feather: pixels of soft edge inside the mask.
        shadows: 0 enhances every place, 1 only those that are dark in the original.
        colour_fidelity: 0 leaves the colours to the nets, 1 keeps the original's cast.
        reuse: x0 may be written over where it has the shape of the result; a big picture has hardly room for both.

    Raises:
        ValueError: names the argument that cannot be used.
    """
    check_finish(original, mask, strength, feather, shadows, colour_fidelity)
    if bool(x0.amax().isnan()):
        raise ValueError("x0 holds NaN: the nets' weights are damaged, or need a wider dtype than theirs")
    mask = None if mask is None else feather_mask(mask.float(), feather)
    shown = opaque(original) if shadows or colour_fidelity else None
    dark = shadow_weight(shown, shadows) if shadows else None
    scale = None
    if colour_fidelity:
        scale = colour_scale(x0.to(original.device, torch.float32) / 2 + 0.5, shown, colour_fidelity)
    reuse = reuse and x0.shape == original.shape and x0.dtype == torch.float32 and x0.device == original.device
    result = x0 if reuse else torch.empty(original.shape, device=original.device)
    for top in range(0, original.shape[-2], BAND):  # a big picture's intermediate results would fill the memory
        rows = slice(top, top + BAND)
        before, picture = original[..., rows, :].float(), x0[..., rows, :].to(original.device, torch.float32)
        picture, colours = (picture.clamp(-1, 1) + 1) / 2, before[:, :3]
        if scale is not None:
            picture = scale_colours(picture, scale[..., rows, :])
        weight = torch.full_like(before[:, :1], strength) if mask is None else mask[..., rows, :].to(before) * strength
        if dark is not None:
            weight = weight * dark[..., rows, :]
        if before.shape[1] == 4:
            weight = torch.where(before[:, 3:] > 0, weight, 0)
        mixed = torch.where(weight > 0, torch.lerp(colours, picture, weight).clamp(0, 1), colours)
        result[..., rows, :] = torch.cat([mixed, before[:, 3:]], 1)
    return result


def check_finish(
    original: Tensor, mask: Tensor | None, strength: float, feather: int, shadows: float, colour_fidelity: float
) -> None:
    """Raises ValueError that names the argument of `finish` that cannot be used."""
    for name, value in (("strength", strength), ("shadows", shadows), ("colour_fidelity", colour_fidelity)):
        if not 0 <= value <= 1:
            raise ValueError(f"{name} must be between 0 and 1, not {value}")
    if feather < 0:
        raise ValueError(f"feather must be 0 pixels or more, not {feather}")
    if mask is None:
        return
    size = tuple(original.shape[-2:])
    if mask.ndim != 4 or mask.shape[1] != 1 or tuple(mask.shape[-2:]) != size or len(mask) not in (1, len(original)):
        raise ValueError(f"mask is {tuple(mask.shape)}, must be ({len(original)} or 1, 1, {size[0]}, {size[1]})")
    if not bool(((mask >= 0) & (mask <= 1)).all()):
        raise ValueError("mask holds values outside [0, 1], or NaN")
