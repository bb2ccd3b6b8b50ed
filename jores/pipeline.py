"""The method in the order of the paper's Figure 3: `enhance` runs it, and the functions below are its stages.

Pictures are (B, 3, H, W) floats in [0, 1]. Every stage runs on the device of its nets, without gradients.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .budget import cache_bytes, choose_tiler
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
from .tiling.memory import free_memory
from .tiling.tiler import Tiler
from .tiling.windows import Window, size_of

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
    return enhance_by(Setup(nets, segmenter, callback, keeper), images, options, finishing, mask)


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


@torch.inference_mode()
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
    insides = insides_of(images)
    full, alpha = filled(images, insides)
    low, alpha = reduced(full, options.working_size), reduced(alpha, options.working_size)
    steps, reports = max(1, options.steps), []
    noted = replace(setup, callback=_noted(setup.callback, reports))
    run = _Run.of(noted, options, low, alpha)
    made = setup.keeper(run.key, lambda: run.sampled(full))
    if setup.callback is not None and not reports:
        setup.callback(steps, steps, None)
    setup.keeper.on_exposure(made.exposure)
    return finish(made.x0, images, finishing, mask=mask, reuse=not setup.keeper.keeps, insides=insides)


def _noted(callback: Callback | None, reports: list[float]) -> Callback | None:
    """The callback, whose reports are also added to `reports`."""
    if callback is None:
        return None

    def note(done: float, steps: int, x0: Tensor | None) -> None:
        reports.append(done)
        callback(done, steps, x0)

    return note


@dataclass(frozen=True)
class _Run:
    """The stages before compositing, for pictures `low` (B, 3, H, W) of the working size, in the windows of `tiler`.

    `options` has as many steps as are needed. `alpha` (B, 1, H, W) is that of pictures with transparent pixels (see
    `filled`), otherwise None.
    """

    setup: Setup
    options: SampleOptions
    tiler: Tiler
    low: Tensor
    alpha: Tensor | None

    @classmethod
    def of(cls, setup: Setup, options: SampleOptions, low: Tensor, alpha: Tensor | None) -> _Run:
        config, device = setup.nets.config, weight_of(setup.nets.unet).device
        tiler = setup.tiler or choose_tiler(options.tile, config, low, device)
        return cls(setup, replace(options, steps=needed_steps(options, config)), tiler, low, alpha)

    @property
    def key(self) -> tuple:
        """All that x0 of a picture depends on, for the keeper. Without diffusion there is no noise."""
        options = self.options
        exposure, seed = options.exposure, options.seed if options.steps else 0
        exposure = tuple(exposure.flatten().cpu().tolist()) if isinstance(exposure, Tensor) else exposure
        tile = 0 if self._whole else self.tiler.tile
        return (
            "x0", self.setup.segmenter is None, options.steps, seed, exposure, options.brightness, options.eta,
            options.working_size, options.texture, options.steadied, tile,
        )  # fmt: skip

    @property
    def _whole(self) -> bool:
        return self.tiler.covers(size_of(self.low))

    def sampled(self, full: Tensor) -> Sampled:
        """All of the method's Figure 3. x0 gets the size of `full`."""
        maps = self._decompose()
        condition = self._adjust(maps)
        prior = self._segment(condition, maps)
        del maps  # the sampling needs the memory, as does the enlarging
        x0, exposure = self._sample(condition, prior), condition.exposure
        del condition
        return Sampled(enlarged(x0, self.low, full), exposure)

    def _decompose(self) -> RetinexMaps | None:
        """Retinex prior, first half: the frozen DNet decomposes (Fig. 3a). None in tiles, which are done on demand."""
        if not self._whole:
            return None
        key = ("maps", self.options.working_size)
        return self.setup.keeper(key, lambda: decomposed(self.setup.nets, self.low, tiler=self.tiler))

    def _adjust(self, maps: RetinexMaps | None) -> RetinexCondition | ConditionOnDemand:
        """Retinex prior, second half: ANet denoises R, brightens L and gives F (Fig. 3a, learning stage)."""
        nets, low, options = self.setup.nets, self.low, self.options
        if maps is not None:
            maps = replace(maps, alpha=self.alpha)
            return adjust(nets, maps, exposure=options.exposure, brightness=options.brightness, tiler=self.tiler)
        room = cache_bytes(free_memory(low.device), nets.config, low.numel() // 3, self.tiler.tile)
        room = room if options.steps > 1 else 0
        return condition_on_demand(nets, low, options, self.tiler, cache=room, alpha=self.alpha)

    def _segment(
        self, condition: RetinexCondition | ConditionOnDemand, maps: RetinexMaps | None
    ) -> SemanticPrior | None:
        """Semantic prior: a pretrained network segments the picture (Fig. 3b), here after ANet brightened it."""
        setup, options = self.setup, self.options
        if (segmenter := setup.segmenter) is None or not options.steps:
            return None
        proposed = options.steadied or (options.exposure is None and not options.brightness)
        known = condition if proposed and self.alpha is None and isinstance(condition, RetinexCondition) else None
        key = ("prior", options.working_size)
        return setup.keeper(key, lambda: _segmented(segmenter, self.low, setup.nets, known, maps))

    def _sample(self, condition: RetinexCondition | ConditionOnDemand, prior: SemanticPrior | None) -> Tensor:
        """Refinement stage: one UNet with both attentions, RNet on x0 inside the loop (Fig. 3a; Fig. 4)."""
        if not self.options.steps:
            return undiffused(condition, self.tiler, self.low)
        nets, callback = self.setup.nets, self.setup.callback
        return sample(nets, condition, prior, self.options, low=self.low, callback=callback, tiler=self.tiler)


def needed_steps(options: SampleOptions, config: JoReSConfig) -> int:
    """Steps of the diffusion; 0 where the detail that it samples would not be used.

    Raises:
        ValueError: the schedule has not so many.
    """
    if options.steps:
        NoiseSchedule(config.schedule).timesteps(options.steps)
    return options.steps if options.texture or not config.denoiser.detail_std else 0


@torch.inference_mode()
def segment(segmenter: Segmenter, images: Tensor, nets: JoReSNets | None = None) -> SemanticPrior:
    """Semantic prior c_seg (METHOD.md, 8) of pictures (B, 3 or 4, H, W).

    `nets`: DNet and ANet, which brighten and denoise the input of the segmenter. The paper segments the dark input, but
    models trained on well-lit pictures recognise much less there. None: the input is brightened by a global gain.
    """
    images = opaque(images)
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
    """
    weight, schedule = weight_of(nets.unet), NoiseSchedule(nets.config.schedule)
    tiler = tiler or choose_tiler(options.tile, nets.config, low, weight.device)

    def stage(window: Window) -> tuple[Denoise, Refine | None, Mean | None]:
        semantics = None if prior is None else prior.at(window).probabilities.to(weight)
        given = Given(window.cut(low).clamp(0, 1).to(weight), condition.at(window).to(weight), semantics)
        there = _Part(nets, schedule, given, refine)
        return there.denoise, there.refine if refine else None, there.mean if nets.config.denoiser.detail_std else None

    home = weight if tiler.covers(size_of(low)) else low
    noise = start_noise((1, *low.shape[1:]), options.seed, torch.empty(0, device=home.device))
    noise = noise.expand_as(low).contiguous()  # one copy per picture, because sampling works in place
    return ddim_in_tiles(tiler, noise, schedule, options, stage, like=weight, callback=callback)


class _Part:
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
