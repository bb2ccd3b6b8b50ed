"""The method in the order of the paper's Figure 3: `enhance` runs it, and the functions below are its stages.

Pictures are (B, 3, H, W) floats in [0, 1]. Every stage runs on the device of its nets, without gradients.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from .checkpoint import JoReSNets
from .conditions import (
    ConditionOnDemand,
    Given,
    Keeper,
    RetinexCondition,
    RetinexMaps,
    Sampled,
    SemanticPrior,
)
from .config import JoReSConfig
from .diffusion.sampling import Callback, Denoise, Mean, Refine, ddim_in_tiles, start_noise
from .diffusion.schedule import NoiseSchedule
from .imaging.alpha import filled
from .imaging.bars import insides_of
from .imaging.compositing import check_mask, finish
from .imaging.guided_filter import enlarged
from .imaging.resize import area_average, reduced
from .nets.segmentation import Segmenter, working_size
from .options import FinishOptions, SampleOptions
from .retinex import adjust, condition_on_demand, decompose, undiffused, weight_of
from .tiling.memory import cache_bytes, free_memory
from .tiling.tiler import Tiler
from .tiling.windows import Window, size_of

SEEN_WHOLE, SEEN_REDUCED = 640, 512
"""Longer sides in pixels: what the segmenter sees is lit at full size up to the first, otherwise reduced to the second.

The segmenter reduces it further, but masks follow the edges of this picture.
"""

__all__ = ["adjust", "checked", "decompose", "enhance", "finish", "sample", "segment"]


@torch.inference_mode()
def enhance(
    images: Tensor,
    nets: JoReSNets,
    segmenter: Segmenter | None = None,
    options: SampleOptions = SampleOptions(),
    finishing: FinishOptions = FinishOptions(),
    *,
    mask: Tensor | None = None,
    callback: Callback | None = None,
    keeper: Keeper = Keeper(),
) -> Tensor:
    """Enhances dark pictures.

    Args:
        images: (B, 3 or 4, H, W) in [0, 1], of any floating-point dtype. They may be on another device than the nets.
        segmenter: computes the semantic prior; without it the semantic attention layers are skipped.
        mask: (B or 1, 1, H, W) in [0, 1]: weight of the enhancement.
        callback: called after every step with (steps done, number of steps, x0). In tiles it is also called after every
            tile, with a fraction of a step and None, and x0 is reduced. Where nothing is sampled, without diffusion or
            from the cache, it is called once, with all steps done and None. It may raise an exception to cancel.
        keeper: caches results of the stages for these pictures between calls, and gets the exposures.

    Returns:
        Enhanced pictures of the shape and on the device of `images`, float32 in [0, 1].

    Raises:
        ValueError: an argument cannot be used; raised before any work.
    """
    insides = insides_of(checked(images))
    full, alpha = filled(images, insides)
    check_mask(mask, images)
    low, alpha = reduced(full, options.working_size), reduced(alpha, options.working_size)
    tiles = Tiler.choose(options.tile, nets.config, low, weight_of(nets.unet).device)
    asked, reports = max(1, options.steps), []
    options = replace(options, tile=tiles, steps=needed_steps(options, nets.config))
    made = keeper(
        ("x0", segmenter is None, *_asked(options, 0 if tiles.covers(size_of(low)) else tiles.tile)),
        lambda: _sampled(low, alpha, full, nets, segmenter, options, _noted(callback, reports), keeper),
    )
    if callback is not None and not reports:
        callback(asked, asked, None)
    keeper.on_exposure(made.exposure)
    return finish(made.x0, images, finishing, mask=mask, reuse=not keeper.keeps, insides=insides)


def _noted(callback: Callback | None, reports: list[float]) -> Callback | None:
    """The callback, whose reports are also added to `reports`."""
    if callback is None:
        return None

    def note(done: float, steps: int, x0: Tensor | None) -> None:
        reports.append(done)
        callback(done, steps, x0)

    return note


def _sampled(
    low: Tensor,
    alpha: Tensor | None,
    full: Tensor,
    nets: JoReSNets,
    segmenter: Segmenter | None,
    options: SampleOptions,
    callback: Callback | None,
    keeper: Keeper,
) -> Sampled:
    """All stages before compositing. x0 has the size of `full`."""
    # Retinex prior: the frozen DNet decomposes, ANet denoises R, brightens L and gives F (Fig. 3a, learning stage)
    tiles = Tiler.choose(options.tile, nets.config, low, weight_of(nets.unet).device)
    maps = None
    if tiles.covers(size_of(low)):
        maps = keeper(("maps", options.working_size), lambda: decompose(nets, low, tile=tiles))
    condition = retinex_condition(nets, low, alpha, replace(options, tile=tiles), maps)
    # Semantic prior: a pretrained network segments the picture (Fig. 3b), here after ANet brightened it
    prior = None
    if segmenter is not None and options.steps:
        proposed = options.steadied or (options.exposure is None and not options.brightness)
        known = condition if proposed and alpha is None and isinstance(condition, RetinexCondition) else None
        key = ("prior", options.working_size)
        prior = keeper(key, lambda maps=maps: segment(segmenter, low, nets, known=known, maps=maps))
    del maps
    # Refinement stage: one UNet with both attentions, RNet on x0 inside the loop (Fig. 3a; Fig. 4)
    if options.steps:
        x0 = sample(nets, condition, prior, options, low=low, callback=callback)
    else:
        x0 = undiffused(condition, options.tile, low)
    exposure = condition.exposure
    del condition
    return Sampled(enlarged(x0, low, full), exposure)


def needed_steps(options: SampleOptions, config: JoReSConfig) -> int:
    """Steps of the diffusion; 0 where the detail that it samples would not be used.

    Raises:
        ValueError: the schedule has not so many.
    """
    if options.steps:
        NoiseSchedule(config.schedule).timesteps(options.steps)
    return options.steps if options.texture or not config.denoiser.detail_std else 0


def _asked(options: SampleOptions, tile: int) -> tuple:
    """All settings that x0 of a picture depends on, as a key for the keeper. Without diffusion there is no noise."""
    exposure, seed = options.exposure, options.seed if options.steps else 0
    exposure = tuple(exposure.flatten().cpu().tolist()) if isinstance(exposure, Tensor) else exposure
    return (
        options.steps,
        seed,
        exposure,
        options.brightness,
        options.eta,
        options.working_size,
        options.texture,
        options.steadied,
        tile,
    )


def checked(images: Tensor) -> Tensor:
    """Returns `images` if they are valid: (B, 3 or 4, H, W), not empty, floating-point, finite. Raises ValueError."""
    if images.ndim != 4 or images.shape[1] not in (3, 4):
        raise ValueError(f"images must be (B, 3 or 4, H, W), not {tuple(images.shape)}")
    if images.numel() == 0:
        raise ValueError(f"images of shape {tuple(images.shape)} hold no pixels")
    if not images.is_floating_point():
        raise ValueError(f"images are {images.dtype}: give floating-point numbers in [0, 1], such as uint8 / 255")
    if not all(bool(torch.isfinite(bound)) for bound in images.aminmax()):
        raise ValueError("images hold NaN or infinite pixels: find the step before that made them")
    return images


def retinex_condition(
    nets: JoReSNets, low: Tensor, alpha: Tensor | None, options: SampleOptions, maps: RetinexMaps | None = None
) -> RetinexCondition | ConditionOnDemand:
    """Output of ANet for pictures (B, 3, H, W) with R and L `maps`; without these, per window on demand.

    `alpha` (B, 1, H, W) is that of pictures with transparent pixels (see `filled`), otherwise None.
    """
    tiles = Tiler.choose(options.tile, nets.config, low, weight_of(nets.unet).device)
    if maps is not None:
        maps = replace(maps, alpha=alpha)
        return adjust(nets, maps, exposure=options.exposure, brightness=options.brightness, tile=tiles)
    room = cache_bytes(free_memory(low.device), nets.config, low.numel() // 3, tiles.tile)
    room = room if options.steps > 1 else 0
    return condition_on_demand(nets, low, replace(options, tile=tiles), cache=room, alpha=alpha)


@torch.inference_mode()
def segment(
    segmenter: Segmenter,
    images: Tensor,
    nets: JoReSNets | None = None,
    *,
    known: RetinexCondition | None = None,
    maps: RetinexMaps | None = None,
) -> SemanticPrior:
    """Semantic prior c_seg (Eq. 8) of pictures (B, 3, H, W).

    Args:
        nets: DNet and ANet, which brighten and denoise the input of the segmenter. The paper segments the dark input,
            but models trained on well-lit pictures recognise much less there. None: the input is brightened by a global
            gain.
        known: the condition of these pictures at about ANet's own exposure, if it is at hand; saves computing it again.
        maps: R and L of these pictures, in the same way.
    """
    if nets is None:
        return segmenter(images)
    lit = lit_for_segmenter(nets, images, segmenter.resolution, known, maps)
    return replace(segmenter(lit), size=size_of(images), seen=lit)


@torch.inference_mode()
def lit_for_segmenter(
    nets: JoReSNets,
    images: Tensor,
    resolution: int,
    known: RetinexCondition | None = None,
    maps: RetinexMaps | None = None,
) -> Tensor:
    """R' x L' (B, 3, h, w) of pictures (B, 3, H, W); those over SEEN_WHOLE are reduced to about SEEN_REDUCED pixels.

    The exposure is always about ANet's proposal, so that settings of the enhancement do not change the segmentation.
    Big pictures are reduced on their own device. `known` and `maps`: see `segment`.
    """
    size = size_of(images)
    if max(size) > max(SEEN_WHOLE, resolution):
        images, known = area_average(images, working_size(size, max(SEEN_REDUCED, resolution))), None
        maps = None
    if known is None:
        known = adjust(nets, maps or decompose(nets, images.float().clamp(0, 1)))
    return known.picture


@torch.inference_mode()
def sample(
    nets: JoReSNets,
    condition: RetinexCondition | ConditionOnDemand,
    prior: SemanticPrior | None = None,
    options: SampleOptions = SampleOptions(),
    *,
    low: Tensor,
    refine: bool = True,
    callback: Callback | None = None,
) -> Tensor:
    """Diffusion with both priors and, unless `refine` is False, with RNet on x0 at every step (Eqs. 12-19).

    All pictures of a batch share the start noise, so that clips do not flicker.

    Args:
        low: the dark pictures (B, 3, H, W) in [0, 1].
        callback: as in `enhance`.

    Returns:
        x0 (B, 3, H, W) in [-1, 1], float32.
    """
    weight, size = weight_of(nets.unet), size_of(low)
    schedule = NoiseSchedule(nets.config.schedule)
    tiles = Tiler.choose(options.tile, nets.config, low, weight.device)

    def level(alpha_bar: float) -> Tensor:
        return torch.full((len(low),), alpha_bar**0.5, device=weight.device)

    def stage(window: Window) -> tuple[Denoise, Refine | None, Mean | None]:
        part, semantics = condition.at(window).to(weight), None
        if prior is not None:
            semantics = prior.at(window).probabilities.to(weight)
        given = Given(window.cut(low).clamp(0, 1).to(weight), part, semantics)
        guides = nets.unet.guides(given)  # the same at all steps, as are the modulations
        modulations = nets.rnet.modulations(part.features, given.low) if refine else None

        def denoise(x_t: Tensor, t: int) -> Tensor:
            return nets.unet(x_t, level(schedule.alpha_bar(t)), given, guides)

        def rnet(x0: Tensor, alpha_bar: float) -> Tensor:
            return nets.rnet(x0, level(alpha_bar), part, modulations)

        def mean(x_t: Tensor, t: int) -> Tensor:
            return part.picture.float() * 2 - 1

        return denoise, rnet if refine else None, mean if nets.config.denoiser.detail_std else None

    home = weight if tiles.covers(size) else low
    noise = start_noise((1, *low.shape[1:]), options.seed, torch.empty(0, device=home.device))
    noise = noise.expand_as(low).contiguous()  # one copy per picture, because sampling works in place
    return ddim_in_tiles(tiles, noise, schedule, options, stage, like=weight, callback=callback)
