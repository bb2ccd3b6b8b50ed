"""Compositing, the last stage: converts x0 to a picture and blends it with the original.

Pure functions on (B, C, H, W) float pictures in [0, 1]. Masks, shadows and colours are not part of the paper's method.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from ..options import FinishOptions
from ..tiling.windows import Span, Window, size_of, smoothstep
from .alpha import opaque
from .bars import Inside, insides_of, mask_of
from .checks import check_mask
from .colours import LIGHT_EDGE, LIGHT_RADIUS, LIGHT_SIDE, ColourCast
from .exposure import luma
from .guided_filter import self_guided
from .resize import reduced, reduced_in_bands, resize_map

DARK, LIT = 0.15, 0.5
"""Local illumination (0..1) below which a pixel counts as dark, and above which as lit, if not `lit_from`."""

_SLOPE = 0.3  # with `shadows`, of the tones between dark and lit: flatter than in either, but brighter stays brighter
_FEW = 0.01  # share of dark pixels from which on their brightness in the result counts

BAND = 256  # rows per step, to limit memory


@torch.no_grad()
def finish(
    x0: Tensor,
    original: Tensor,
    finishing: FinishOptions = FinishOptions(),
    *,
    mask: Tensor | None = None,
    reuse: bool = False,
    insides: Sequence[Inside] | None = None,
) -> Tensor:
    """Converts x0 to a picture and blends it with the original.

    Where the mask or the strength is 0, in fully transparent pixels and in black bars, the original's colours are
    returned bit by bit, even outside [0, 1]. Black-and-white pictures stay so; the nets would give them a tint.

    Args:
        x0: (B, 3, H, W) in [-1, 1].
        original: (B, 3 or 4, H, W) in [0, 1].
        mask: (B or 1, 1, H, W) in [0, 1]: weight of the result.
        reuse: x0 may be overwritten, if possible, because big pictures leave little memory.
        insides: one per picture, or one for all: where the originals lie between black bars; None: bars are looked for.

    Returns:
        (B, 3 or 4, H, W) float32 on the device of `original` and with its alpha; in [0, 1] where the original is.

    Raises:
        ValueError: the mask has a wrong shape or values, or x0 holds NaN.
    """
    check_mask(mask, original)
    if bool(x0.amax().isnan()):
        raise ValueError("x0 holds NaN: the weights are damaged, or need a dtype of higher precision (float32)")
    insides = insides_of(original) if insides is None else insides
    blend = _Blend.of(x0, original, finishing, mask, insides)
    reuse = reuse and (x0.shape, x0.dtype, x0.device) == (original.shape, torch.float32, original.device)
    result = x0 if reuse else torch.empty(original.shape, device=original.device)
    for top in range(0, original.shape[-2], BAND):  # intermediate results of a big picture would fill the memory
        rows = slice(top, min(top + BAND, original.shape[-2]))
        result[..., rows, :] = blend.band(x0[..., rows, :], original[..., rows, :].float(), rows)
    return result


@dataclass(frozen=True)
class _Blend:
    """What must be known of complete pictures before their bands can be blended.

    Attributes:
        strength, mask, dark: factors of the weight; the maps are (B or 1, 1, H, W) in [0, 1], or None for 1.
        inside: (B, 1, H, W), what lies between black bars; None for everything.
        shown: colours (B, 3, H, W) of the original.
        cast: that of the original, for the result to keep.
        grey: which originals are black-and-white; None for none.
    """

    strength: float
    mask: Tensor | None
    dark: Tensor | None
    inside: Tensor | None
    shown: Tensor
    cast: ColourCast | None
    grey: Tensor | None

    @classmethod
    def of(
        cls, x0: Tensor, original: Tensor, finishing: FinishOptions, mask: Tensor | None, insides: Sequence[Inside]
    ) -> _Blend:
        """That of `finish`, with its arguments."""

        def decode(band: Tensor) -> Tensor:
            return band.to(original.device).float() / 2 + 0.5

        mask = None if mask is None else feather_mask(mask.float(), finishing.feather)
        shown = opaque(original, insides) if finishing.shadows or finishing.colour_fidelity else original[:, :3]
        dark = cast = None
        if finishing.shadows:
            dark = shadow_weight(shown, finishing.shadows, lit_from(shown, x0, decode))
        if finishing.colour_fidelity:
            cast = ColourCast.of(x0, shown, finishing.colour_fidelity, decode)
        return cls(finishing.strength, mask, dark, mask_of(insides), shown, cast, black_and_white(original))

    def band(self, x0: Tensor, before: Tensor, rows: slice) -> Tensor:
        """The rows of the result (B, 3 or 4, h, W), from those of x0 and of the original."""
        picture = self._coloured((x0.to(before).clamp(-1, 1) + 1) / 2, rows)
        weight, colours = self._weight(before, rows), before[:, :3]
        mixed = torch.where(weight > 0, torch.lerp(colours, picture, weight).clamp(0, 1), colours)
        return torch.cat([mixed, before[:, 3:]], 1)

    def _weight(self, before: Tensor, rows: slice) -> Tensor:
        """Weight of the result, (B, 1, h, W)."""
        whole = torch.ones_like(before[:, :1]) if self.mask is None else self.mask[..., rows, :].to(before)
        weight = whole * self.strength
        if self.dark is not None:
            weight = weight * self.dark[..., rows, :]
        if before.shape[1] == 4:
            weight = torch.where(before[:, 3:] > 0, weight, 0)
        return weight if self.inside is None else weight * self.inside[..., rows, :].to(weight.device)

    def _coloured(self, picture: Tensor, rows: slice) -> Tensor:
        """The rows of the result, (B, 3, h, W), with the cast of the original, or black-and-white as it is."""
        if self.cast is not None:
            height, width = size_of(self.shown)
            band = Window(Span(rows.start, rows.stop), Span(0, width))
            enlarge = partial(band.sample, size=(height, width), stride=1)
            picture = self.cast.applied(picture, self.shown[..., rows, :], enlarge)
        return picture if self.grey is None else torch.where(self.grey, luma(picture), picture)


def black_and_white(images: Tensor) -> Tensor | None:
    """Which of (B, 3 or 4, H, W) have three equal channels wherever they are not transparent: (B, 1, 1, 1) bool.

    None: not one of them.
    """
    grey = torch.ones(len(images), 1, 1, 1, dtype=torch.bool, device=images.device)
    for band in images.split(BAND, 2):
        equal = (band[:, :1] == band[:, 1:3]).all(1, keepdim=True)
        if band.shape[1] == 4:
            equal = equal | (band[:, 3:] == 0)
        grey &= equal.amin((1, 2, 3), keepdim=True)
        if not bool(grey.any()):  # known after the first rows of a colour picture
            return None
    return grey


def feather_mask(mask: Tensor, pixels: int) -> Tensor:
    """Softens the edges of a mask inwards: its values fall to 0 over the last `pixels` pixels before the edge.

    Zeros stay zero, so the enhancement never leaves the mask. The border of the picture is not an edge. Thin parts
    become weaker but do not vanish; a stroke that is thin all over has a soft edge that ends in its middle. A mask
    without zeros has no edge and is returned unchanged.

    Args:
        mask: (B, 1, H, W) in [0, 1].
        pixels: width of the soft edge; 0 returns `mask` itself.
    """
    if pixels == 0:
        return mask
    edges = [_distances(one, pixels + 1.0) for one in mask[:, 0].detach().cpu().numpy()]
    depth, reach = (torch.from_numpy(np.stack(maps)).to(mask)[:, None] for maps in zip(*edges, strict=True))
    return mask * smoothstep(depth, 0.0, reach)


def lit_from(images: Tensor, result: Tensor, decode: Callable[[Tensor], Tensor] = Tensor.float) -> Tensor:
    """Local illumination from which on a pixel counts as lit, (B, 1, 1, 1): LIT, or more if dark areas get very bright.

    An area that was brighter than a dark one must not end darker than it, although only the dark one is enhanced in
    full. So from DARK on the tones of the result rise by _SLOPE until they meet those of the input; there lit areas
    begin. What DARK becomes in the result is told by the power of the input that fits all dark areas of it, so it
    follows the light of a scene without jumps.

    Args:
        images: (B, 3, H, W) in [0, 1], the input.
        result: (B, 3, H, W), fully enhanced; `decode` converts a band of it to [0, 1].
    """
    light = reduced_in_bands(images, LIGHT_SIDE, lambda x: x.float().clamp(0, 1).amax(1, keepdim=True))
    made = reduced_in_bands(result, LIGHT_SIDE, lambda x: decode(x).clamp(0, 1).amax(1, keepdim=True))
    light, made = light.clamp_min(DARK / 8), made.to(light).clamp_min(DARK / 8)
    weight = (light / DARK).clamp_max(1).square() * (1 - light / LIT).clamp_min(0)  # dark, but not black: noise
    few = _FEW * weight[0].numel() * math.log(DARK)
    logs, logs_before = ((weight * x.log()).sum((1, 2, 3), keepdim=True) + few for x in (made, light))
    reached = DARK ** (logs / logs_before).clamp(0, 1)
    return ((reached - _SLOPE * DARK) / (1 - _SLOPE)).clamp_min(LIT)


def shadow_weight(images: Tensor, amount: float, lit: float | Tensor = LIT) -> Tensor:
    """Weight of the enhancement per pixel that limits it to dark areas.

    The local illumination is the maximum of R, G and B (as in LIME), smoothed by a self-guided filter. The filter
    preserves edges, so the weight has no noise and no texture, and bright objects get no halo.

    Args:
        images: (B, 3, H, W), the input.
        amount: 0 gives 1 everywhere, 1 gives 0 in lit areas.
        lit: local illumination from which on an area counts as lit, (B, 1, 1, 1) or a number.

    Returns:
        (B, 1, H, W) float32 in [0, 1].
    """
    light = _local_light(images.amax(1, keepdim=True).float().clamp(0, 1))
    return 1 - amount * smoothstep(light, DARK, lit)


def _distances(mask: np.ndarray, most: float) -> tuple[np.ndarray, np.ndarray]:
    """Of each pixel of (H, W): the distance in pixels to the nearest 0, and the largest such distance in its stroke.

    A stroke is a connected area that is not 0. Distances larger than `most` are `most`.
    """
    from scipy.ndimage import distance_transform_edt, label  # imported late: few masks have a feather

    inside = mask > 0
    if inside.all():
        return np.full(mask.shape, most), np.full(mask.shape, most)
    depth = np.minimum(np.asarray(distance_transform_edt(inside)), most)
    strokes = np.empty(mask.shape, np.int32)
    label(inside, output=strokes)
    deepest = np.ones(int(strokes.max()) + 1)
    np.maximum.at(deepest, strokes.ravel(), depth.ravel())
    return depth, deepest[strokes]


def _local_light(light: Tensor) -> Tensor:
    """Self-guided filter of (B, 1, H, W), fitted on a reduced copy (fast guided filter, He & Sun 2015)."""
    fitted = self_guided(reduced(light, LIGHT_SIDE), LIGHT_RADIUS, LIGHT_EDGE)
    slope, intercept = (resize_map(x, tuple(light.shape[-2:])) for x in fitted)
    return (slope * light + intercept).clamp(0, 1)
