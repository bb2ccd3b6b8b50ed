"""Dials of the result: where the enhancement shows, how much of it, and in whose colours.

Pure functions on (B, C, H, W) float pictures in [0, 1]; none of them is a part of the paper's method.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from ..conditions import SemanticPrior, resize_map
from .exposure import luma, smoothstep
from .guided import self_guided
from .reduction import area_average

DARK, LIT = 0.15, 0.5
"""Local light (0..1) below which a place counts as dark, and above which as lit."""

_LIGHT_SIDE, _LIGHT_RADIUS, _LIGHT_EDGE = 256, 6, 0.1
_COLOUR_SIDE = 24
_LARGEST_SHIFT = 4.0


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
    cells, cells_before = (_coarse(x.float().clamp(0, 1), _COLOUR_SIDE) for x in (images, original.to(images.device)))
    # Offsets in proportion to the brightness: black has no colour, and a plain gain between the two changes none.
    offset = 0.01 * luma(cells).mean((2, 3), keepdim=True) + 1e-4
    offset_before = 0.01 * luma(cells_before).mean((2, 3), keepdim=True) + 1e-4
    ratio = _chroma(cells_before, offset_before) / _chroma(cells, offset)                # (B, 3, h, w)
    scale = ratio.clamp(1 / _LARGEST_SHIFT, _LARGEST_SHIFT).pow(amount)
    return resize_map(scale, tuple(images.shape[-2:]))


def scale_colours(images: Tensor, scale: Tensor) -> Tensor:
    """(B, 3, H, W) pictures in [0, 1] with each channel scaled by `scale` (of the same shape), at their own luma."""
    scaled = images * scale
    return (scaled * (luma(images) / luma(scaled).clamp_min(1e-6))).clamp(0, 1)


def find_classes(text: str, labels: Sequence[str]) -> list[int]:
    """Indices of the classes in a list such as "sky, tree", whatever the case; a name may stand for several classes.

    Raises:
        ValueError: a name that is no label, with the labels that look like it.
    """
    lower, found = [label.lower() for label in labels], []
    for name in filter(None, (part.strip().lower() for part in text.split(","))):
        indices = [i for i, label in enumerate(lower) if label == name]
        if not indices:
            alike = ", ".join(difflib.get_close_matches(name, lower, 4, 0.5)) or ", ".join(lower[:8]) + ", ..."
            raise ValueError(f"there is no class {name!r}; did you mean one of these: {alike}?")
        found += indices
    return found


def class_mask(
    prior: SemanticPrior, classes: Sequence[int], *, threshold: float = 0.0, inverted: bool = False
) -> Tensor:
    """How likely each place shows any of these classes: (B, 1, H, W) in [0, 1], at the picture's size.

    Args:
        threshold: 0 leaves the probabilities as they are; above, the mask is 1 where they reach it and 0 elsewhere.
        inverted: everything but these classes.
    """
    likely = prior.probabilities[:, list(classes)].sum(1, keepdim=True)
    likely = resize_map(likely, prior.size).clamp(0, 1)
    if threshold > 0:
        likely = (likely >= threshold).to(likely)
    return 1 - likely if inverted else likely


def _distance_to_zero(mask: np.ndarray) -> np.ndarray:
    """Pixels from each place to the nearest 0 of (H, W); far away everywhere if there is none."""
    inside = mask > 0
    return np.full(mask.shape, np.inf) if inside.all() else distance_transform_edt(inside)


def _local_light(light: Tensor) -> Tensor:
    """Self-guided filter of (B, 1, H, W), fitted on a small copy (fast guided filter, He & Sun 2015)."""
    fitted = self_guided(_coarse(light, _LIGHT_SIDE), _LIGHT_RADIUS, _LIGHT_EDGE)
    slope, intercept = (resize_map(x, tuple(light.shape[-2:])) for x in fitted)
    return (slope * light + intercept).clamp(0, 1)


def _coarse(x: Tensor, side: int) -> Tensor:
    """Area average whose long side is at most `side`."""
    height, width = x.shape[-2:]
    scale = min(1.0, side / max(height, width))
    return area_average(x, (max(1, round(height * scale)), max(1, round(width * scale))))


def _chroma(cells: Tensor, offset: Tensor) -> Tensor:
    return (cells + offset) / (luma(cells) + offset)
