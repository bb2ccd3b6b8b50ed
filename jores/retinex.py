"""The Retinex prior: DNet splits the picture into R and L, ANet cleans R, brightens L and gives features (Fig. 3a)."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

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
from .options import SampleOptions
from .statistics import global_statistics
from .tiling.tiler import Tiler
from .tiling.windows import Window, size_of


@torch.inference_mode()
def decompose(nets: JoReSNets, images: Tensor, *, tile: int | Tiler | None = None) -> RetinexMaps:
    """R and L of (B, 3 or 4, H, W) pictures, by DNet (METHOD.md, 4). `tile` as in `SampleOptions`."""
    images, alpha = filled(images)
    weight, size = weight_of(nets.dnet), size_of(images)
    tiles = Tiler.choose(tile, nets.config, images, weight.device)
    home = weight if tiles.covers(size) else images

    def work(window: Window) -> tuple[Tensor, ...]:
        maps = nets.dnet(window.cut(images).clamp(0, 1).to(weight)).to(home.device)
        return maps.reflectance, maps.illumination

    return RetinexMaps(*tiles.run(size, work, (1, 1)), alpha=None if alpha is None else alpha.to(home.device))


@torch.inference_mode()
def adjust(
    nets: JoReSNets,
    maps: RetinexMaps,
    *,
    exposure: float | Tensor | None = None,
    denoise: float = 1.0,
    illumination: Tensor | None = None,
    brightness: float = 0.0,
    tile: int | Tiler | None = None,
) -> RetinexCondition:
    """R', L' and features from R and L, by ANet (METHOD.md, 6).

    Args:
        exposure: target mean luma (0..1), one number or (B,); None: proposed by ANet.
        denoise: weight of R' against R, 0..1; 0 leaves the noise in R.
        illumination: (B, 1, H, W) in [0, 1] that replaces L', such as a painted one.
        brightness: EV by which the result is brighter than the exposure.
        tile: as in `SampleOptions`.

    Raises:
        ValueError: the exposure is out of range, or the illumination has another size.
    """
    weight, picture = weight_of(nets.anet), maps.picture
    tiles = Tiler.choose(tile, nets.config, picture, weight.device)
    statistics = global_statistics(nets, joined(picture, maps.alpha), exposure, brightness)

    def work(window: Window) -> tuple[Tensor, ...]:
        part = maps.at(window).to(weight.device)
        made = nets.anet(part, _under(statistics, window, maps.size)).to(maps.reflectance.device)
        return made.reflectance, made.illumination, *made.features

    reflectance, light, *features = tiles.run(maps.size, work, (1, 1, *FEATURE_STRIDES))
    if denoise < 1:
        reflectance = torch.lerp(maps.reflectance, reflectance, denoise)
    light = light if illumination is None else illumination.to(light).clamp(0, 1)
    if light.shape[-2:] != maps.illumination.shape[-2:]:
        raise ValueError(f"illumination is {tuple(light.shape[-2:])}, the picture {maps.size}: give it the same size")
    return RetinexCondition(reflectance, light.expand_as(maps.illumination), tuple(features), statistics.exposure)


def condition_on_demand(
    nets: JoReSNets, low: Tensor, options: SampleOptions, *, cache: int, alpha: Tensor | None = None
) -> ConditionOnDemand:
    """Output of DNet and ANet for any window of `low` (B, 3, H, W), with the global statistics of the full picture.

    `cache`: bytes for caching conditions of the windows of the `Tiler` in `options.tile`. `alpha` (B, 1, H, W) or None.
    """
    weight = weight_of(nets.anet)
    statistics = global_statistics(nets, joined(low.clamp(0, 1), alpha), options.exposure, options.brightness)

    def make(window: Window) -> RetinexCondition:
        maps = nets.dnet(window.cut(low).clamp(0, 1).to(weight))
        return nets.anet(maps, _under(statistics, window, size_of(low)))

    tiler = options.tile
    layout = (lambda: tiler.layout(size_of(low))) if isinstance(tiler, Tiler) else None
    return ConditionOnDemand(make, low.device, cache, layout=layout, exposure=statistics.exposure)


def _under(statistics: GlobalStatistics, window: Window, size: tuple[int, int]) -> GlobalStatistics:
    return replace(statistics, gains=window.sample(statistics.gains, size, GAIN_STRIDE))


def undiffused(condition: RetinexCondition | ConditionOnDemand, tile: int | Tiler | None, low: Tensor) -> Tensor:
    """R' x L' as x0 (B, 3, H, W) in [-1, 1], on the device of `low`: the result without diffusion."""
    tiles = tile if isinstance(tile, Tiler) else Tiler(tile or 0)
    (picture,) = tiles.run(size_of(low), lambda window: (condition.at(window).picture.to(low.device),), (1,))
    return picture.float() * 2 - 1


def weight_of(net: torch.nn.Module) -> Tensor:
    """A parameter of the net, for its device and dtype."""
    return next(net.parameters())
