"""The method, from top to bottom as the paper's Figure 3 shows it.

`enhance` checks pictures, reduces them and composites the result; what is between is `_Run`: the Retinex prior of DNet
and ANet (`retinex`), the semantic prior, and the diffusion, with the UNet and RNet in its loop.

Pictures are (B, 3, H, W) floats in [0, 1]. Every stage runs on the device of its nets, without gradients.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from .budget import choose_tiler
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
from .imaging.alpha import filled, opaque
from .imaging.bars import insides_of
from .imaging.checks import check_mask, checked
from .imaging.compositing import finish
from .imaging.guided_filter import enlarged
from .imaging.resize import reduced
from .nets.segmentation import Segmenter
from .options import FinishOptions, SampleOptions
from .picture_statistics import check_exposure
from .retinex import adjust, condition_on_demand, decompose, decomposed, lit_for_segmenter, undiffused, weight_of
from .tiling.tiler import Tiler
from .tiling.windows import Window, size_of

__all__ = ["adjust", "checked", "decompose", "enhance", "finish", "sample", "segment"]


@torch.no_grad()
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
    return enhance_by(Setup(nets, segmenter, callback, keeper), images, options, finishing, mask)


@torch.no_grad()
def enhance_by(
    setup: Setup,
    images: Tensor,
    options: SampleOptions,
    finishing: FinishOptions = FinishOptions(),
    mask: Tensor | None = None,
) -> Tensor:
    """`enhance`, by a setup."""
    check_mask(mask, checked(images))
    check_exposure(options.exposure, len(images))
    steps = needed_steps(options, setup.nets.config)
    insides = insides_of(images)
    full, alpha = filled(images, insides)
    low, alpha = reduced(full, options.working_size), reduced(alpha, options.working_size)
    run = _Run(setup, replace(options, steps=steps), low, alpha)
    made = setup.keeper(run.key, lambda: run.sampled(full))
    if setup.callback is not None and not run.reported:
        setup.callback(max(1, options.steps), max(1, options.steps), None)
    setup.keeper.on_exposure(made.exposure)
    return finish(made.x0, images, finishing, mask=mask, reuse=not setup.keeper.keeps, insides=insides)


@dataclass
class _Run:
    """The stages of Figure 3, for pictures `low` (B, 3, H, W) of the working size.

    `options` has as many steps as are needed. `alpha` (B, 1, H, W) is that of pictures with transparent pixels (see
    `filled`), otherwise None. `reported`: the setup's callback has heard of the steps.
    """

    setup: Setup
    options: SampleOptions
    low: Tensor
    alpha: Tensor | None
    reported: bool = False

    def sampled(self, full: Tensor) -> Sampled:
        """All of the figure. x0 gets the size of `full`."""
        maps = self.decompose()
        condition = self.adjust(maps)
        prior = self.segment(condition, maps)
        del maps  # the sampling needs the memory, as does the enlarging
        x0, exposure = self.sample(condition, prior), condition.exposure
        del condition
        return Sampled(enlarged(x0, self.low, full), exposure)

    def decompose(self) -> RetinexMaps | None:
        """Retinex prior, first half: the frozen DNet decomposes (Fig. 3a). None in tiles, which are done on demand."""
        if not self._whole:
            return None
        key = ("maps", self.options.working_size)
        return self.setup.keeper(key, lambda: decomposed(self.setup.nets, self.low, tiler=self.tiler))

    def adjust(self, maps: RetinexMaps | None) -> RetinexCondition | ConditionOnDemand:
        """Retinex prior, second half: ANet denoises R, brightens L and gives F (Fig. 3a, learning stage)."""
        nets, options = self.setup.nets, self.options
        if maps is None:
            return condition_on_demand(nets, self.low, options, self.tiler, alpha=self.alpha)
        maps = replace(maps, alpha=self.alpha)
        return adjust(nets, maps, exposure=options.exposure, brightness=options.brightness, tiler=self.tiler)

    def segment(
        self, condition: RetinexCondition | ConditionOnDemand, maps: RetinexMaps | None
    ) -> SemanticPrior | None:
        """Semantic prior: a pretrained network segments the picture (Fig. 3b), here after ANet brightened it."""
        nets, segmenter, options = self.setup.nets, self.setup.segmenter, self.options
        if segmenter is None or not options.steps:
            return None
        proposed = options.steadied or (options.exposure is None and not options.brightness)
        known = condition if proposed and self.alpha is None and isinstance(condition, RetinexCondition) else None
        key = ("prior", options.working_size)
        return self.setup.keeper(key, lambda: _segmented(segmenter, self.low, nets, known, maps))

    def sample(self, condition: RetinexCondition | ConditionOnDemand, prior: SemanticPrior | None) -> Tensor:
        """Refinement stage: one UNet with both attentions, RNet on x0 inside the loop (Fig. 3a; Fig. 4)."""
        if not self.options.steps:
            return undiffused(condition, self.tiler, self.low)
        self.reported, nets, callback = True, self.setup.nets, self.setup.callback
        return sample(nets, condition, prior, self.options, low=self.low, callback=callback, tiler=self.tiler)

    @property
    def key(self) -> tuple:
        """All that x0 of a picture depends on, for the keeper. Without diffusion there is no noise."""
        seed, tile = self.options.seed if self.options.steps else 0, 0 if self._whole else self.tiler.tile
        values = vars(replace(self.options, seed=seed, tile=tile)).values()
        flat = (tuple(v.flatten().cpu().tolist()) if isinstance(v, Tensor) else v for v in values)
        return "x0", self.setup.segmenter is None, *flat

    @cached_property
    def tiler(self) -> Tiler:
        """The windows of all stages; it remembers that memory ran out."""
        nets, tile = self.setup.nets, self.options.tile
        return self.setup.tiler or choose_tiler(tile, nets.config, self.low, weight_of(nets.unet).device)

    @property
    def _whole(self) -> bool:
        return self.tiler.covers(size_of(self.low))


@torch.no_grad()
def segment(segmenter: Segmenter, images: Tensor, nets: JoReSNets | None = None) -> SemanticPrior:
    """Semantic prior c_seg (METHOD.md, 8) of pictures (B, 3 or 4, H, W).

    `nets`: DNet and ANet, which brighten and denoise the input of the segmenter. The paper segments the dark input, but
    models trained on well-lit pictures recognise much less there. None: the input is brightened by a global gain.
    """
    images = opaque(checked(images))
    return segmenter(images) if nets is None else _segmented(segmenter, images, nets)


def _segmented(
    segmenter: Segmenter,
    images: Tensor,
    nets: JoReSNets,
    known: RetinexCondition | None = None,
    maps: RetinexMaps | None = None,
) -> SemanticPrior:
    """`segment`, for `filled` pictures (B, 3, H, W); `known` and `maps` as in `lit_for_segmenter`."""
    lit = lit_for_segmenter(nets, images, segmenter.resolution, known, maps)
    return replace(segmenter(lit), size=size_of(images), seen=lit)


@torch.no_grad()
def sample(
    nets: JoReSNets,
    condition: RetinexCondition | ConditionOnDemand,
    prior: SemanticPrior | None = None,
    options: SampleOptions = SampleOptions(),
    *,
    low: Tensor,
    refine: bool = True,
    callback: Callback | None = None,
    tiler: Tiler | None = None,
) -> Tensor:
    """Diffusion with both priors and, unless `refine` is False, with RNet on x0 at every step (METHOD.md, 12 to 19).

    All pictures of a batch share the start noise, so that clips do not flicker.

    Args:
        low: the dark pictures (B, 3, H, W) in [0, 1].
        callback: as in `enhance`.
        tiler: chosen already; None: chosen by the options.

    Returns:
        x0 (B, 3, H, W) in [-1, 1], float32.

    Raises:
        ValueError: `checked` refuses the pictures, or the condition is of others.
    """
    _check_same_pictures(condition, checked(low))
    weight, schedule = weight_of(nets.unet), NoiseSchedule(nets.config.schedule)
    tiler = tiler or choose_tiler(options.tile, nets.config, low, weight.device)

    def stage(window: Window) -> tuple[Denoise, Refine | None, Mean | None]:
        semantics = None if prior is None else prior.at(window).probabilities.to(weight)
        given = Given(window.cut(low).clamp(0, 1).to(weight), condition.at(window).to(weight), semantics)
        loop = _Loop(nets, schedule, given, refine)
        return loop.denoise, loop.refine if refine else None, loop.mean if nets.config.denoiser.detail_std else None

    home = weight if tiler.covers(size_of(low)) else low
    noise = start_noise((1, *low.shape[1:]), options.seed, torch.empty(0, device=home.device))
    noise = noise.expand_as(low).contiguous()  # one copy per picture, because sampling works in place
    return ddim_in_tiles(tiler, noise, schedule, options, stage, like=weight, callback=callback)


def _check_same_pictures(condition: RetinexCondition | ConditionOnDemand, low: Tensor) -> None:
    """Raises ValueError if a condition is of another size or number than the dark pictures."""
    if not isinstance(condition, RetinexCondition):  # made for windows of these pictures
        return
    count = len(condition.reflectance)
    if condition.size != size_of(low) or count not in (1, len(low)):
        raise ValueError(
            f"the condition is of {count} picture(s) of {condition.size}, low of {len(low)} of {size_of(low)} (H, W): "
            "give both of the same pictures"
        )


class _Loop:
    """The UNet and RNet for one window, as the functions of `ddim_step`; what all steps share is computed once."""

    def __init__(self, nets: JoReSNets, schedule: NoiseSchedule, given: Given, refine: bool) -> None:
        self.nets, self.schedule, self.given = nets, schedule, given
        self.guides = nets.unet.guides(given)
        self.modulations = nets.rnet.modulations(given.condition.features, given.low) if refine else None

    def denoise(self, x_t: Tensor, t: int) -> Tensor:
        return self.nets.unet(x_t, self._level(self.schedule.alpha_bar(t)), self.given, self.guides)

    def refine(self, x0: Tensor, alpha_bar: float) -> Tensor:
        return self.nets.rnet(x0, self._level(alpha_bar), self.given.condition, self.modulations)

    def mean(self, x_t: Tensor, t: int) -> Tensor:
        return self.given.condition.picture.float() * 2 - 1

    def _level(self, alpha_bar: float) -> Tensor:
        return torch.full((len(self.given.low),), alpha_bar**0.5, device=self.given.low.device)


def needed_steps(options: SampleOptions, config: JoReSConfig) -> int:
    """Steps of the diffusion; 0 where the detail that it samples would not be used.

    Raises:
        ValueError: the schedule has not so many.
    """
    if options.steps:
        NoiseSchedule(config.schedule).timesteps(options.steps)
    return options.steps if options.texture or not config.denoiser.detail_std else 0


@dataclass(frozen=True)
class Setup:
    """By what pictures are enhanced, see `enhance`: what stays the same from one frame of a clip to the next.

    `tiler`: chosen for all of them; it remembers that memory ran out. None: chosen for each by `SampleOptions.tile`.
    """

    nets: JoReSNets
    segmenter: Segmenter | None = None
    callback: Callback | None = None
    keeper: Keeper = Keeper()
    tiler: Tiler | None = None
