"""The Retinex prior: DNet splits the picture into R and L, ANet cleans R, brightens L and gives features (Fig. 3a)."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from .budget import cache_bytes, choose_tiler
from .checkpoint import JoReSNets
from .conditions import (
    FEATURE_STRIDES,
    GAIN_STRIDE,
    ConditionOnDemand,
    GlobalStatistics,
    RetinexCondition,
    RetinexMaps,
)
from .imaging.alpha import filled, joined
from .imaging.checks import check_range, checked, is_finite
from .imaging.deband import debanded
from .imaging.resize import area_average
from .nets.segmentation import working_size
from .options import SampleOptions, check_brightness
from .picture_statistics import global_statistics
from .tiling.memory import free_memory
from .tiling.tiler import Tiler
from .tiling.windows import Window, size_of

SEEN_WHOLE, SEEN_REDUCED = 640, 512
"""Longer sides in pixels: what the segmenter sees is lit at full size up to the first, otherwise reduced to the second.

The segmenter reduces it further, but masks follow the edges of this picture.
"""
SMOOTHED = 4_000_000  # pixels; statistics of bigger pictures average so many that smoothed shadows change nothing


@torch.no_grad()
def decompose(nets: JoReSNets, images: Tensor, *, tiler: Tiler | None = None) -> RetinexMaps:
    """R and L of (B, 3 or 4, H, W) pictures, by DNet (METHOD.md, 4), and the weight of their pixels.

    `tiler`: None for windows that fit into the memory. Raises ValueError for pictures that `checked` refuses.
    """
    colours, alpha = filled(checked(images))
    maps = decomposed(nets, colours, tiler=tiler)
    return maps if alpha is None else replace(maps, alpha=alpha.to(maps.illumination.device))


@torch.no_grad()
def decomposed(nets: JoReSNets, images: Tensor, *, tiler: Tiler | None = None) -> RetinexMaps:
    """As `decompose`, for (B, 3, H, W) pictures that are `filled` already: what is black in them is no bar."""
    weight, size = weight_of(nets.dnet), size_of(images)
    tiler = tiler or choose_tiler(None, nets.config, images, weight.device)
    home = weight if tiler.covers(size) else images

    def work(window: Window) -> tuple[Tensor, ...]:
        maps = nets.dnet(window.cut(images).clamp(0, 1).to(weight)).to(home.device)
        return maps.reflectance, maps.illumination

    return RetinexMaps(*tiler.run(size, work, (1, 1)))


@torch.no_grad()
def adjust(
    nets: JoReSNets,
    maps: RetinexMaps,
    *,
    exposure: float | Tensor | None = None,
    denoise: float = 1.0,
    illumination: Tensor | None = None,
    brightness: float = 0.0,
    tiler: Tiler | None = None,
) -> RetinexCondition:
    """R', L' and features from R and L, by ANet (METHOD.md, 6).

    Args:
        exposure: target mean luma, above 0 and at most 1, one number or (B,); None: proposed by ANet.
        denoise: share of the cleaning of R, 0..1; 0 leaves the noise in R. The cleaning brightens, too: without it the
            mean luma is lower, by about a quarter, and by half in what is nearly black.
        illumination: (B, 1, H, W) in [0, 1] that replaces L', such as a painted one.
        brightness: EV by which the result is brighter than the exposure.
        tiler: None for windows that fit into the memory.

    Raises:
        ValueError: a number is out of range, or the illumination has another size, or NaN or levels 0..255.
    """
    _check_dials(denoise, brightness, illumination)
    weight, picture = weight_of(nets.anet), maps.picture
    tiler = tiler or choose_tiler(None, nets.config, picture, weight.device)
    statistics = global_statistics(nets, joined(picture, maps.alpha), exposure, brightness)

    def work(window: Window) -> tuple[Tensor, ...]:
        part = maps.at(window).to(weight.device)
        made = nets.anet(part, _under(statistics, window, maps.size), denoise=denoise).to(maps.reflectance.device)
        return made.reflectance, made.illumination, *made.features

    reflectance, light, *features = tiler.run(maps.size, work, (1, 1, *FEATURE_STRIDES))
    light = light if illumination is None else illumination.to(light).clamp(0, 1)
    if light.shape[-2:] != maps.illumination.shape[-2:]:
        raise ValueError(f"illumination is {tuple(light.shape[-2:])}, the picture {maps.size}: give it the same size")
    return RetinexCondition(reflectance, light.expand_as(maps.illumination), tuple(features), statistics.exposure)


def _check_dials(denoise: float, brightness: float, illumination: Tensor | None) -> None:
    """Raises ValueError for a dial of `adjust` that is out of its range, or NaN."""
    if not 0 <= denoise <= 1:
        raise ValueError(f"denoise must be between 0 and 1, not {denoise}")
    check_brightness(brightness)
    if illumination is not None:
        if not is_finite(illumination):
            raise ValueError("illumination holds NaN or infinite values: find the step before that made them")
        check_range(illumination, "illumination")


def as_decomposed(nets: JoReSNets, low: Tensor) -> Tensor:
    """Dark pictures (B, 3, H, W) as DNet decomposes them: for their global statistics, where R and L are not at hand.

    Big pictures are returned as they are.
    """
    height, width = size_of(low)
    return debanded(low) if nets.dnet.deband and height * width <= SMOOTHED else low


def condition_on_demand(
    nets: JoReSNets, low: Tensor, options: SampleOptions, tiler: Tiler, *, alpha: Tensor | None = None
) -> ConditionOnDemand:
    """Output of DNet and ANet for any window of `low` (B, 3, H, W), with the global statistics of the full picture.

    Where there are several steps, conditions of the windows of `tiler` are cached as far as there is room for them.
    `alpha` (B, 1, H, W) or None.
    """
    weight, room = weight_of(nets.anet), 0
    if options.steps > 1:
        room = cache_bytes(free_memory(low.device), nets.config, low.numel() // 3, tiler.tile)
    seen = joined(as_decomposed(nets, low.clamp(0, 1)), alpha)
    statistics = global_statistics(nets, seen, options.exposure, options.brightness)

    def make(window: Window) -> RetinexCondition:
        maps = nets.dnet(window.cut(low).clamp(0, 1).to(weight))
        return nets.anet(maps, _under(statistics, window, size_of(low)))

    layout = partial(tiler.layout, size_of(low))
    return ConditionOnDemand(make, low.device, room, layout=layout, exposure=statistics.exposure)


@torch.no_grad()
def lit_for_segmenter(
    nets: JoReSNets,
    images: Tensor,
    resolution: int,
    known: RetinexCondition | None = None,
    maps: RetinexMaps | None = None,
) -> Tensor:
    """R' x L' (B, 3, h, w) of `filled` pictures (B, 3, H, W); those over SEEN_WHOLE are reduced to about SEEN_REDUCED.

    The exposure is always about ANet's proposal, so that settings of the enhancement do not change the segmentation.
    Big pictures are reduced on their own device.

    Args:
        known: the condition of these pictures at about ANet's own exposure, if it is at hand; saves computing it again.
        maps: R and L of these pictures, in the same way.
    """
    size = size_of(images)
    if max(size) > max(SEEN_WHOLE, resolution):
        images, known = area_average(images, working_size(size, max(SEEN_REDUCED, resolution))), None
        maps = None
    if known is None:
        known = adjust(nets, maps or decomposed(nets, images.float().clamp(0, 1)))
    return known.picture


def _under(statistics: GlobalStatistics, window: Window, size: tuple[int, int]) -> GlobalStatistics:
    return replace(statistics, gains=window.sample(statistics.gains, size, GAIN_STRIDE))


def undiffused(condition: RetinexCondition | ConditionOnDemand, tiler: Tiler, low: Tensor) -> Tensor:
    """R' x L' as x0 (B, 3, H, W) in [-1, 1], on the device of `low`: the result without diffusion."""
    (picture,) = tiler.run(size_of(low), lambda window: (condition.at(window).picture.to(low.device),), (1,))
    return picture.float() * 2 - 1


def weight_of(net: torch.nn.Module) -> Tensor:
    """A parameter of the net, for its device and dtype."""
    return next(net.parameters())
