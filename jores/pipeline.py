"""The paper's Figure 3, read from top to bottom: `enhance` is the method, the functions under it are its stages.

All pictures are (B, 3, H, W) floats in [0, 1]; every stage runs where the nets it is given live, without gradients.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .checkpoint import JoReSNets
from .conditions import (
    FEATURE_SIDES,
    GAIN_SIDE,
    ConditionOnDemand,
    RetinexCondition,
    RetinexMaps,
    SemanticPrior,
    cut_condition,
    cut_prior,
)
from .diffusion.sampling import Callback, Denoise, Refine, ddim_in_tiles, start_noise
from .diffusion.schedule import NoiseSchedule
from .imaging.compositing import check_finish, finish
from .imaging.exposure import mean_colour, mean_luma, well_lit
from .imaging.guided_filter import guided_upsample, worked_size
from .imaging.resize import area_average
from .nets.adjustment import THUMBNAIL
from .nets.segmentation import Segmenter
from .tiling.memory import cache_bytes, free_memory
from .tiling.tiler import Tiler
from .tiling.windows import Window

DEFAULT_STEPS = 4
__all__ = ["adjust", "checked", "decompose", "enhance", "finish", "sample", "segment", "wanted_exposure"]


@torch.inference_mode()
def enhance(
    images: Tensor,
    nets: JoReSNets,
    segmenter: Segmenter | None = None,
    *,
    steps: int = DEFAULT_STEPS,
    seed: int = 0,
    exposure: float | Tensor | None = None,
    strength: float = 1.0,
    eta: float = 0.0,
    mask: Tensor | None = None,
    tile: int | Tiler | None = None,
    callback: Callback | None = None,
    feather: int = 0,
    shadows: float = 0.0,
    colour_fidelity: float = 0.0,
    working_size: int = 0,
) -> Tensor:
    """Dark pictures (B, 3 or 4, H, W) in, enhanced ones of the same shape out, float32 in [0, 1].

    The pictures may be of any floating-point dtype and are not changed.

    Args:
        segmenter: gives the semantic prior; without one the semantic attention layers are skipped.
        steps: 1..T diffusion steps. seed: of the start noise, the same for every picture of the batch.
        exposure: mean luma of the result, 0..1; None lets ANet propose it, unless the picture is well lit already.
        strength: 0 returns the input, 1 the enhancement. mask (B or 1, 1, H, W) in [0, 1]: where to apply it.
        feather, shadows, colour_fidelity: as in `finish`.
        tile: side in pixels of the windows that a big picture is done in, which may then lie in main memory while the
            nets live on an accelerator; 0: never; None: as a whole while that fits, then in windows that fit.
        working_size: the longer side in pixels at which all of it is done; the result is then enlarged along the
            picture's own detail (`guided_upsample`). 0, and more than the picture has: its full size.
        callback: (steps done, steps, x0) after every step; may raise to cancel. In tiles also after every tile, with a
            fraction of steps done and None, and x0 comes reduced.

    Raises:
        ValueError: names the argument that cannot be used, before any work is done.
    """
    low = checked(images)[:, :3]
    dials = {"strength": strength, "feather": feather, "shadows": shadows, "colour_fidelity": colour_fidelity}
    check_finish(images, mask, **dials)
    if working_size < 0:
        raise ValueError(f"working_size must be 0 (full size) or a number of pixels, not {working_size}")
    if (size := worked_size(low.shape[-2:], working_size)) != tuple(low.shape[-2:]):
        small = area_average(low, size)
        made = enhance(
            small, nets, segmenter, steps=steps, seed=seed, exposure=exposure, eta=eta, tile=tile, callback=callback
        )
        return finish(guided_upsample(made, small, low).mul_(2).sub_(1), images, mask=mask, **dials)
    tiles = Tiler.choose(tile, nets.config, low, _weight(nets.denoiser).device)
    # Retinex prior: the frozen DNet decomposes, ANet denoises R, brightens L and gives F (Fig. 3a, learning stage)
    if tiles.covers(low.shape[-2:]):
        maps = decompose(nets, low, tile=tiles)
        condition = adjust(nets, maps, exposure=exposure, tile=tiles)
    else:
        room = cache_bytes(free_memory(low.device), nets.config, low.numel() // 3, tiles.tile)
        condition = condition_on_demand(nets, low, exposure, cache=room if steps > 1 else 0, tiler=tiles)
    # Semantic prior: an off-the-shelf network segments the input picture (Fig. 3b)
    prior = segment(segmenter, low) if segmenter is not None else None
    # Refinement stage: one UNet with both attentions, RNet on x0 inside the loop (Fig. 3a; Fig. 4)
    x0 = sample(nets, condition, prior, low=low, steps=steps, seed=seed, eta=eta, tile=tiles, callback=callback)
    del condition
    return finish(x0, images, mask=mask, reuse=True, **dials)


def checked(images: Tensor) -> Tensor:
    """Returns `images` if they can be worked on. Raises ValueError that names what is wrong otherwise."""
    if images.ndim != 4 or images.shape[1] not in (3, 4):
        raise ValueError(f"images must be (B, 3 or 4, H, W), not {tuple(images.shape)}")
    if images.numel() == 0:
        raise ValueError(f"images of shape {tuple(images.shape)} hold no pixels")
    if not images.is_floating_point():
        raise ValueError(f"images are {images.dtype}: give floating-point numbers in [0, 1], such as uint8 / 255")
    if not all(bool(torch.isfinite(bound)) for bound in images.aminmax()):
        raise ValueError("images hold NaN or infinite pixels: find the step before that made them")
    return images


@torch.inference_mode()
def decompose(nets: JoReSNets, images: Tensor, *, tile: int | Tiler | None = None) -> RetinexMaps:
    """DNet (Eq. 4). `tile` as in `enhance`."""
    weight, size = _weight(nets.decomposition), tuple(images.shape[-2:])
    tiles = Tiler.choose(tile, nets.config, images, weight.device)
    home = weight if tiles.covers(size) else images

    def work(window: Window) -> tuple[Tensor, ...]:
        maps = nets.decomposition(window.cut(images).clamp(0, 1).to(weight)).to(home.device)
        return maps.reflectance, maps.illumination

    return RetinexMaps(*tiles.run(size, work, (1, 1)))


@torch.inference_mode()
def adjust(
    nets: JoReSNets,
    maps: RetinexMaps,
    *,
    exposure: float | Tensor | None = None,
    denoise: float = 1.0,
    illumination: Tensor | None = None,
    tile: int | Tiler | None = None,
) -> RetinexCondition:
    """ANet (Eq. 6).

    Args:
        exposure: mean luma (0..1) to aim at, one for all or (B,); None: ANet's own proposal.
        denoise: how much of ANet's cleaning of R is used, 0..1.
        illumination: (B, 1, H, W) in [0, 1] that replaces L', for light painted by hand.
        tile: as in `enhance`.
    """
    weight, picture = _weight(nets.adjustment), maps.picture
    tiles = Tiler.choose(tile, nets.config, picture, weight.device)
    exposure, mean, gains = _of_the_whole(nets, picture, exposure)

    def work(window: Window) -> tuple[Tensor, ...]:
        part = RetinexMaps(window.cut(maps.reflectance), window.cut(maps.illumination)).to(weight.device)
        local = window.sample(gains, maps.size, GAIN_SIDE)
        made = nets.adjustment(part, exposure, mean, local).to(maps.reflectance.device)
        return made.reflectance, made.illumination, *made.features

    reflectance, light, *features = tiles.run(maps.size, work, (1, 1, *FEATURE_SIDES))
    if denoise < 1:
        reflectance = torch.lerp(maps.reflectance, reflectance, denoise)
    light = light if illumination is None else illumination.to(light).clamp(0, 1)
    if light.shape[-2:] != maps.illumination.shape[-2:]:
        raise ValueError(f"illumination is {tuple(light.shape[-2:])}, the picture {maps.size}: give it the same size")
    return RetinexCondition(reflectance, light.expand_as(maps.illumination), tuple(features), exposure)


def condition_on_demand(
    nets: JoReSNets, low: Tensor, exposure: float | Tensor | None, *, cache: int, tiler: Tiler | None = None
) -> ConditionOnDemand:
    """DNet and ANet for any window of a big picture, told the brightness of all of it; `cache` in bytes, of windows
    that `tiler` cuts the picture into."""
    weight = _weight(nets.adjustment)
    exposure, mean, gains = _of_the_whole(nets, low.clamp(0, 1), exposure)

    def make(window: Window) -> RetinexCondition:
        maps = nets.decomposition(window.cut(low).clamp(0, 1).to(weight))
        return nets.adjustment(maps, exposure, mean, window.sample(gains, tuple(low.shape[-2:]), GAIN_SIDE))

    layout = None if tiler is None else lambda: tiler.layout(tuple(low.shape[-2:]))
    return ConditionOnDemand(make, low.device, cache, layout=layout)


def _of_the_whole(
    nets: JoReSNets, images: Tensor, exposure: float | Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """What no window of a picture can tell, on ANet's device: exposure (B,), mean colour (B, 3) and gains."""
    exposure = wanted_exposure(nets, images, exposure)
    gains = nets.adjustment.propose_gains(_thumbnail(nets, images), exposure)
    return exposure, mean_colour(images).to(exposure.device), gains


@torch.inference_mode()
def wanted_exposure(nets: JoReSNets, images: Tensor, exposure: float | Tensor | None) -> Tensor:
    """(B,) on ANet's device: `exposure`, one for all or (B,), or for None what ANet proposes for these whole pictures.

    A picture that is well lit already keeps its own mean luma instead: it needs no other, and the nets have seen few
    of its kind. Dark pictures get ANet's proposal to the bit.
    """
    weight = _weight(nets.adjustment)
    if exposure is None:
        proposal = nets.adjustment.propose_exposure(_thumbnail(nets, images))
        lit, own = (f(images).to(proposal) for f in (well_lit, mean_luma))
        return torch.where(lit > 0, torch.lerp(proposal, own, lit), proposal)
    if not isinstance(exposure, Tensor):
        if not 0 < exposure <= 1:
            raise ValueError(f"exposure must be above 0 and at most 1, not {exposure}")
        exposure = torch.full((len(images),), float(exposure))
    if exposure.shape != (len(images),) or not bool(((exposure >= 0) & (exposure <= 1)).all()):
        raise ValueError(f"exposure must be one number for each of {len(images)} pictures, 0 to 1, not {exposure}")
    return exposure.to(weight.device, torch.float32)


@torch.inference_mode()
def segment(segmenter: Segmenter, images: Tensor) -> SemanticPrior:
    """c_seg (Eq. 8), from the dark input itself."""
    return segmenter(images)


@torch.inference_mode()
def sample(
    nets: JoReSNets,
    condition: RetinexCondition | ConditionOnDemand,
    prior: SemanticPrior | None = None,
    *,
    low: Tensor,
    steps: int = DEFAULT_STEPS,
    seed: int = 0,
    eta: float = 0.0,
    refine: bool = True,
    tile: int | Tiler | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """The diffusion with both priors and, unless `refine` is False, RNet on x0 at every step (Eqs. 12-19).

    One field of start noise serves all pictures of a batch, so that the frames of a clip share it. `tile` and
    `callback` as in `enhance`. Returns x0 (B, 3, H, W) in [-1, 1], float32.
    """
    weight, size = _weight(nets.denoiser), tuple(low.shape[-2:])
    schedule = NoiseSchedule(nets.config.schedule)
    tiles = Tiler.choose(tile, nets.config, low, weight.device)

    def level(alpha_bar: float) -> Tensor:
        return torch.full((len(low),), alpha_bar**0.5, device=weight.device)

    def stage(window: Window) -> tuple[Denoise, Refine | None]:
        on_demand = isinstance(condition, ConditionOnDemand)
        part = (condition.window(window) if on_demand else cut_condition(condition, window)).to(weight)
        picture, semantics = window.cut(low).clamp(0, 1).to(weight), None
        if prior is not None:
            semantics = cut_prior(prior, window).probabilities.to(weight)
        r, light, features = part.reflectance, part.illumination, part.features

        def denoise(x_t: Tensor, t: int) -> Tensor:
            return nets.denoiser(x_t, level(schedule.alpha_bar(t)), picture, r, light, features, semantics)

        def rnet(x0: Tensor, alpha_bar: float) -> Tensor:
            return nets.refinement(x0, level(alpha_bar), r, light, features)

        return denoise, rnet if refine else None

    fresh = torch.Generator("cpu").manual_seed(seed + 1)
    home = weight if tiles.covers(size) else low
    noise = start_noise((1, *low.shape[1:]), seed, torch.empty(0, device=home.device))
    noise = noise.expand_as(low).contiguous()  # a copy for each picture of a batch: sampling is done in place
    return ddim_in_tiles(
        tiles, noise, schedule, steps, stage, like=weight, eta=eta, generator=fresh, callback=callback
    )  # fmt: skip


def _thumbnail(nets: JoReSNets, images: Tensor) -> Tensor:
    """What ANet sees of whole pictures: reduced where they lie, so that no big one has to go to its device."""
    return area_average(images, THUMBNAIL).to(_weight(nets.adjustment))


def _weight(net: torch.nn.Module) -> Tensor:
    """A tensor of the net's device and dtype."""
    return next(net.parameters())
