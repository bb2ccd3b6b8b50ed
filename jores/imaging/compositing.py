"""Compositing, the last stage: x0 becomes a picture and is mixed with the original as the settings say.

Pure functions on (B, C, H, W) float pictures in [0, 1]; all but `finish` are no part of the paper's method.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from ..options import FinishOptions
from ..tiling.windows import Span, Window, size_of
from .alpha import opaque
from .exposure import luma, smoothstep
from .guided_filter import self_guided
from .resize import area_average, resize_map

DARK, LIT = 0.15, 0.5
"""Local light (0..1) below which a place counts as dark, and above which as lit."""

_LIGHT_SIDE, _LIGHT_RADIUS, _LIGHT_EDGE = 256, 6, 0.1
_COLOUR_SIDE = 24
_LARGEST_SHIFT = 4.0
BAND = 256  # rows of a picture that are finished at once


@torch.inference_mode()
def finish(
    x0: Tensor,
    original: Tensor,
    finishing: FinishOptions = FinishOptions(),
    *,
    mask: Tensor | None = None,
    reuse: bool = False,
) -> Tensor:
    """x0 in [-1, 1] -> picture in [0, 1], in float32, with the original's alpha; where mask or strength is 0 the
    original's pixels come back bit by bit (even those that are not in [0, 1]), and so do the hidden colours of pixels
    that are transparent.

    Args:
        mask: (B or 1, 1, H, W) in [0, 1]: where the result shows.
        reuse: x0 may be written over where it has the shape of the result; a big picture has hardly room for both.

    Raises:
        ValueError: names the argument that cannot be used.
    """
    check_mask(mask, original)
    if bool(x0.amax().isnan()):
        raise ValueError("x0 holds NaN: the nets' weights are damaged, or need a wider dtype than theirs")
    mask = None if mask is None else feather_mask(mask.float(), finishing.feather)
    shown = opaque(original) if finishing.shadows or finishing.colour_fidelity else original[:, :3]
    dark = shadow_weight(shown, finishing.shadows) if finishing.shadows else None
    cast, size = None, size_of(original)
    if finishing.colour_fidelity:
        cast = _colour_cells(x0, shown, finishing.colour_fidelity, lambda x: x.to(original.device).float() / 2 + 0.5)
    reuse = reuse and x0.shape == original.shape and x0.dtype == torch.float32 and x0.device == original.device
    result = x0 if reuse else torch.empty(original.shape, device=original.device)
    for top in range(0, original.shape[-2], BAND):  # a big picture's intermediate results would fill the memory
        rows = slice(top, top + BAND)
        before, picture = original[..., rows, :].float(), x0[..., rows, :].to(original.device, torch.float32)
        picture, colours = (picture.clamp(-1, 1) + 1) / 2, before[:, :3]
        if cast is not None:
            band = Window(Span(top, min(top + BAND, size[0])), Span(0, size[1]))
            picture = scale_colours(picture, band.sample(cast, size, 1))
        weight = torch.full_like(before[:, :1], finishing.strength)
        if mask is not None:
            weight = mask[..., rows, :].to(before) * finishing.strength
        if dark is not None:
            weight = weight * dark[..., rows, :]
        if before.shape[1] == 4:
            weight = torch.where(before[:, 3:] > 0, weight, 0)
        mixed = torch.where(weight > 0, torch.lerp(colours, picture, weight).clamp(0, 1), colours)
        result[..., rows, :] = torch.cat([mixed, before[:, 3:]], 1)
    return result


def check_mask(mask: Tensor | None, original: Tensor) -> None:
    """Raises ValueError that says what is wrong with the mask of a picture (B, C, H, W)."""
    if mask is None:
        return
    size = tuple(original.shape[-2:])
    if mask.ndim != 4 or mask.shape[1] != 1 or tuple(mask.shape[-2:]) != size or len(mask) not in (1, len(original)):
        raise ValueError(f"mask is {tuple(mask.shape)}, must be ({len(original)} or 1, 1, {size[0]}, {size[1]})")
    if not bool(((mask >= 0) & (mask <= 1)).all()):
        raise ValueError("mask holds values outside [0, 1], or NaN")


def feather_mask(mask: Tensor, pixels: int) -> Tensor:
    """Soft edge INSIDE a mask: it falls from its own value to 0 over `pixels` pixels before its border.

    What was 0 stays 0, so the enhancement never leaves the mask. The picture's border is no edge. Thin parts become
    fainter but do not vanish. A mask that is nowhere 0 has no edge and comes back unchanged.

    Args:
        mask: (B, 1, H, W) in [0, 1]. pixels: width of the soft edge; 0 returns `mask` itself.
    """
    if pixels < 0:
        raise ValueError(f"feather must be 0 pixels or more, not {pixels}")
    if pixels == 0:
        return mask
    edges = [_distance_to_zero(one) for one in mask[:, 0].detach().cpu().numpy()]
    depth = torch.from_numpy(np.stack(edges)).to(mask)[:, None] if edges else torch.zeros_like(mask)
    return mask * smoothstep(depth, 0.0, pixels + 1.0)


def shadow_weight(images: Tensor, amount: float) -> Tensor:
    """How much of the enhancement each place should get when only what is dark is to be enhanced.

    The light of a place is the largest of R, G and B (LIME's first guess of the illumination), averaged around it by a
    guided filter, which stops at edges: neither noise nor texture shows in the weight, and bright things get no halo.

    Args:
        images: (B, 3, H, W), the input. amount: 0 gives 1 everywhere, 1 gives 0 where the input is lit.

    Returns:
        (B, 1, H, W) float32 in [0, 1].
    """
    light = _local_light(images.amax(1, keepdim=True).float().clamp(0, 1))
    return 1 - amount * smoothstep(light, DARK, LIT)


def colour_scale(images: Tensor, original: Tensor, amount: float) -> Tensor:
    """What to multiply a result's channels by to give it the colour cast of its original, for `scale_colours`.

    The cast is the low frequencies of the chroma: averages over cells of about 1/24 of the long side, divided by their
    luma. Details and their colours stay the result's.

    Args:
        images: the result, and original: the input, (B, 3, H, W) in [0, 1]. amount: 0 gives 1 everywhere, 1 takes over
            the whole cast.

    Returns:
        (B, 3, H, W) float32, between 1/4 and 4.
    """
    return resize_map(_colour_cells(images, original.to(images.device), amount, torch.Tensor.float), images.shape[-2:])


def _colour_cells(images: Tensor, original: Tensor, amount: float, decode: Callable[[Tensor], Tensor]) -> Tensor:
    """`colour_scale` at its coarse size, (B, 3, h, w). `decode` makes a picture in [0, 1] of a band of `images`."""
    cells = _coarse_in_bands(images, _COLOUR_SIDE, lambda x: decode(x).clamp(0, 1))
    cells_before = _coarse_in_bands(original, _COLOUR_SIDE, lambda x: x.float().clamp(0, 1))
    # Offsets in proportion to the brightness: black has no colour, and a plain gain between the two changes none.
    offset = 0.01 * luma(cells).mean((2, 3), keepdim=True) + 1e-4
    offset_before = 0.01 * luma(cells_before).mean((2, 3), keepdim=True) + 1e-4
    ratio = _chroma(cells_before, offset_before) / _chroma(cells, offset)  # (B, 3, h, w)
    return ratio.clamp(1 / _LARGEST_SHIFT, _LARGEST_SHIFT).pow(amount)


def scale_colours(images: Tensor, scale: Tensor) -> Tensor:
    """(B, 3, H, W) pictures in [0, 1] with each channel scaled by `scale` (of the same shape), at their own luma."""
    scaled = images * scale
    return (scaled * (luma(images) / luma(scaled).clamp_min(1e-6))).clamp(0, 1)


def _distance_to_zero(mask: np.ndarray) -> np.ndarray:
    """Pixels from each place to the nearest 0 of (H, W); far away everywhere if there is none."""
    inside = mask > 0
    return np.full(mask.shape, np.inf) if inside.all() else np.asarray(distance_transform_edt(inside))


def _local_light(light: Tensor) -> Tensor:
    """Self-guided filter of (B, 1, H, W), fitted on a small copy (fast guided filter, He & Sun 2015)."""
    fitted = self_guided(_coarse(light, _LIGHT_SIDE), _LIGHT_RADIUS, _LIGHT_EDGE)
    slope, intercept = (resize_map(x, tuple(light.shape[-2:])) for x in fitted)
    return (slope * light + intercept).clamp(0, 1)


def _coarse(x: Tensor, side: int) -> Tensor:
    """Area average whose long side is at most `side`."""
    return area_average(x, _coarse_size(x, side))


def _coarse_size(x: Tensor, side: int) -> tuple[int, int]:
    height, width = x.shape[-2:]
    scale = min(1.0, side / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def _coarse_in_bands(x: Tensor, side: int, convert: Callable[[Tensor], Tensor]) -> Tensor:
    """`_coarse(convert(x), side)`, of which no more than the rows of one cell exist at a time."""
    (rows, columns), height = _coarse_size(x, side), x.shape[-2]
    bands = [x[..., i * height // rows : -(-(i + 1) * height // rows), :] for i in range(rows)]
    return torch.cat([area_average(convert(band), (1, columns)) for band in bands], -2)


def _chroma(cells: Tensor, offset: Tensor) -> Tensor:
    return (cells + offset) / (luma(cells) + offset)
