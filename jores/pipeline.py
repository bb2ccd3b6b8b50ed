"""The paper's Figure 3, read from top to bottom: `enhance` is the method, the functions under it are its stages.

All pictures are (B, 3, H, W) floats in [0, 1]; every stage runs where the nets it is given live, without gradients.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .checkpoint import JoReSNets
from .conditions import RetinexCondition, RetinexMaps, SemanticPrior
from .diffusion.sampling import Callback, ddim_sample, start_noise
from .diffusion.schedule import NoiseSchedule
from .imaging.exposure import mean_luma
from .nets.segmentation import Segmenter

DEFAULT_STEPS = 4


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
    callback: Callback | None = None,
) -> Tensor:
    """Dark pictures (B, 3 or 4, H, W) in, enhanced ones of the same shape out, float32 in [0, 1].

    Args:
        segmenter: gives the semantic prior; without one the semantic attention layers are skipped.
        steps: 1..T diffusion steps. seed: of the start noise, the same for every picture of the batch.
        exposure: mean luma of the result, 0..1; None lets ANet propose it.
        strength: 0 returns the input, 1 the enhancement. mask (B, 1, H, W): where to apply it.
        callback: (steps done, steps, x0) after every step; may raise to cancel.
    """
    low = checked(images)[:, :3]
    # Retinex prior: the frozen DNet decomposes, ANet denoises R, brightens L and gives F (Fig. 3a, learning stage)
    maps = decompose(nets, low)
    condition = adjust(nets, maps, exposure=exposure)
    # Semantic prior: an off-the-shelf network segments the input picture (Fig. 3b)
    prior = segment(segmenter, low) if segmenter is not None else None
    # Refinement stage: one UNet with both attentions, RNet on x0 inside the loop (Fig. 3a; Fig. 4)
    x0 = sample(nets, condition, prior, low=low, steps=steps, seed=seed, eta=eta, callback=callback)
    return finish(x0, images, strength=strength, mask=mask)


def checked(images: Tensor) -> Tensor:
    """Returns `images` if they can be worked on. Raises ValueError that names what is wrong otherwise."""
    if images.ndim != 4 or images.shape[1] not in (3, 4):
        raise ValueError(f"images must be (B, 3 or 4, H, W), not {tuple(images.shape)}")
    if images.numel() == 0:
        raise ValueError(f"images of shape {tuple(images.shape)} hold no pixels")
    if not bool(torch.isfinite(images).all()):
        raise ValueError("images hold NaN or infinite pixels: find the step before that made them")
    return images


@torch.inference_mode()
def decompose(nets: JoReSNets, images: Tensor) -> RetinexMaps:
    """DNet (Eq. 4)."""
    weight = next(nets.decomposition.parameters())
    return nets.decomposition(images.clamp(0, 1).to(weight))


@torch.inference_mode()
def adjust(
    nets: JoReSNets,
    maps: RetinexMaps,
    *,
    exposure: float | Tensor | None = None,
    denoise: float = 1.0,
    illumination: Tensor | None = None,
) -> RetinexCondition:
    """ANet (Eq. 6).

    Args:
        exposure: mean luma (0..1) to aim at, one for all or (B,); None: ANet's own proposal.
        denoise: how much of ANet's cleaning of R is used, 0..1.
        illumination: (B, 1, H, W) in [0, 1] that replaces L', for light painted by hand.
    """
    anet, picture = nets.adjustment, maps.picture
    if exposure is None:
        exposure = anet.propose_exposure(picture)
    elif not isinstance(exposure, Tensor):
        if not 0 < exposure <= 1:
            raise ValueError(f"exposure must be above 0 and at most 1, not {exposure}")
        exposure = torch.full((len(picture),), float(exposure))
    condition = anet(maps, exposure.to(picture.device, torch.float32), mean_luma(picture))
    reflectance = torch.lerp(maps.reflectance, condition.reflectance, denoise) if denoise < 1 else condition.reflectance
    light = condition.illumination if illumination is None else illumination.to(condition.illumination).clamp(0, 1)
    if light.shape[-2:] != maps.illumination.shape[-2:]:
        raise ValueError(f"illumination is {tuple(light.shape[-2:])}, the picture {maps.size}: give it the same size")
    light = light.expand_as(maps.illumination)
    return RetinexCondition(reflectance, light, condition.features, condition.exposure)


@torch.inference_mode()
def segment(segmenter: Segmenter, images: Tensor) -> SemanticPrior:
    """c_seg (Eq. 8), from the dark input itself."""
    return segmenter(images)


@torch.inference_mode()
def sample(
    nets: JoReSNets,
    condition: RetinexCondition,
    prior: SemanticPrior | None = None,
    *,
    low: Tensor,
    steps: int = DEFAULT_STEPS,
    seed: int = 0,
    eta: float = 0.0,
    refine: bool = True,
    callback: Callback | None = None,
) -> Tensor:
    """The diffusion with both priors and, unless `refine` is False, RNet on x0 at every step (Eqs. 12-19).

    One field of start noise serves all pictures of a batch, so that the frames of a clip share it.
    Returns x0 (B, 3, H, W) in [-1, 1], in the nets' dtype.
    """
    weight = next(nets.denoiser.parameters())
    schedule = NoiseSchedule(nets.config.schedule)
    condition, low = condition.to(weight), low.clamp(0, 1).to(weight)
    r, light, features = condition.reflectance, condition.illumination, condition.features
    semantics = prior.probabilities.to(weight) if prior is not None else None

    def level(alpha_bar: float) -> Tensor:
        return torch.full((len(low),), alpha_bar**0.5, device=weight.device)

    def denoise(x_t: Tensor, t: int) -> Tensor:
        return nets.denoiser(x_t, level(schedule.alpha_bar(t)), low, r, light, features, semantics)

    def rnet(x0: Tensor, alpha_bar: float) -> Tensor:
        return nets.refinement(x0, level(alpha_bar), r, light, features)

    fresh = torch.Generator("cpu").manual_seed(seed + 1)
    noise = start_noise((1, *low.shape[1:]), seed, low).expand_as(low)
    refiner = rnet if refine else None
    return ddim_sample(denoise, noise, schedule, steps, eta=eta, refine=refiner, generator=fresh, callback=callback)


@torch.inference_mode()
def finish(x0: Tensor, original: Tensor, *, strength: float = 1.0, mask: Tensor | None = None) -> Tensor:
    """x0 in [-1, 1] -> picture in [0, 1], in float32, with the original's alpha; where mask or strength is 0 the
    original's pixels come back bit by bit."""
    original = original.float()
    picture = (x0.float().to(original.device).clamp(-1, 1) + 1) / 2
    weight = torch.full_like(original[:, :1], strength) if mask is None else mask.to(original) * strength
    mixed = torch.where(weight > 0, torch.lerp(original[:, :3], picture, weight), original[:, :3])
    return torch.cat([mixed, original[:, 3:]], 1)
