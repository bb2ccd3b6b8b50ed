"""Checks of inputs before any work. Each error message is one sentence that says what to connect instead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from ...jores.imaging.checks import is_finite
from .fingerprints import latent_pictures, same_pictures
from .model_sampling import model_sampling

T = TypeVar("T")
PROBE = (-0.7, 0.2, 1.3)  # arbitrary values, to compare two parametrizations
IGNORED_PATCHES = {"attn1_patch", "attn1_output_patch"}  # of HyperTile and ToMe, which only improve speed


def expect(value: Any, kind: type[T] | tuple[type, ...], node: str, name: str, wanted: str) -> T:
    """Returns `value` if it has this type. Raises ValueError that names its type; `wanted` says what to connect."""
    if isinstance(value, kind):
        return value
    raise ValueError(f"{node}: {name} is {_shown(value)}: {wanted}")


def _shown(value: Any) -> str:
    if value is None:
        return "None (is the node before it muted, or not connected?)"
    return f"a {type(value).__name__}"


def check_schedule(sampling: Any, config: Any, node: str) -> None:
    """Raises ValueError if `sampling` has another noise schedule or parametrization than the bundle's config."""
    own = model_sampling(config)
    probes = _probes(own)
    wanted = [_at(own, probe) for probe in probes]  # not in the `try`: what fails here is no other node's doing
    cause = None
    try:
        if all(_close(_at(sampling, probe), value) for probe, value in zip(probes, wanted, strict=True)):
            return
    except (AttributeError, TypeError, ValueError, LookupError) as error:  # of another kind of model
        cause = error
    raise ValueError(
        f"{node}: the model's noise schedule was replaced by another node's ({_base_name(sampling)}), but a JoReS "
        "model only works with its own: take out the ModelSampling node between 'Load JoReS Model' and this node"
    ) from cause


def _base_name(sampling: Any) -> str:
    """Name of the sampling's class; for classes that stock nodes create dynamically, that of the base class."""
    kind = type(sampling)
    return (kind.__mro__[1] if kind.__name__ == "ModelSamplingAdvanced" else kind).__name__


def _probes(own: Any) -> list[Callable[[Any], Tensor]]:
    sigmas = own.sigmas[[0, len(own.sigmas) // 3, -2]].cpu()
    output, x = (torch.tensor(PROBE).roll(i).view(3, 1, 1, 1) for i in (0, 1))

    def on(sampling: Any, name: str, *values: Any) -> Tensor:
        device = sampling.sigmas.device
        return getattr(sampling, name)(*(v.to(device) if isinstance(v, Tensor) else v for v in values))

    return [
        lambda sampling: sampling.sigmas,
        lambda sampling: on(sampling, "timestep", sigmas),
        lambda sampling: on(sampling, "calculate_input", sigmas, x.clone()),
        lambda sampling: on(sampling, "calculate_denoised", sigmas, output.clone(), x.clone()),
        lambda sampling: on(sampling, "noise_scaling", sigmas.view(3, 1, 1, 1), x.clone(), output.clone()),
    ]


def _at(sampling: Any, probe: Callable[[Any], Tensor]) -> Tensor:
    return probe(sampling).detach().cpu().float()


def _close(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, rtol=1e-3, atol=1e-5)


def latent_samples(latent: Any, node: str, source: str) -> Tensor:
    """The latent's pictures (B, 3, H, W) in float32, because noise of the first step overflows half precision.

    Raises ValueError for other latents; `source` is the display name of the node to connect.
    """
    wanted = f"connect the latent of '{source}'"
    expect(latent, dict, node, "latent", wanted)
    samples = expect(latent.get("samples"), Tensor, node, "latent's samples", wanted)
    check_pixels(samples, f"{node}: latent", wanted)
    return samples.float()


def check_pixels(samples: Tensor, what: str, wanted: str) -> None:
    """Raises ValueError unless `samples` is a non-empty batch of finite pictures (B, 3, H, W)."""
    shape = tuple(samples.shape)
    if getattr(samples, "is_nested", False) or samples.ndim != 4 or shape[1] != 3:
        video = " (a video's latent?)" if samples.ndim == 5 else ""
        raise ValueError(
            f"{what} is {shape}{video}, but this model works on pixels, (batch, 3, height, width): {wanted}"
        )
    if samples.numel() == 0:
        raise ValueError(f"{what} of shape {shape} is empty, there is no picture to work on: {wanted}")
    check_finite(samples, what)


def check_sampled(samples: Tensor, node: str) -> None:
    """Raises ValueError if a picture (B, 3, H, W) is all zeros: no sampler leaves it so, and it would be plain grey.

    A picture that is plain grey is another matter: `encoded` tells it from an empty one.
    """
    if not bool((samples.ne(0) | samples.signbit()).flatten(1).any(1).all()):
        raise ValueError(
            f"{node}: latent is still empty, no sampler has worked on it: is KSampler or 'Sample JoReS Diffusion' "
            "bypassed? Switch it on again; the picture without diffusion is the preview of 'Adjust Retinex Condition'"
        )


def check_finite(samples: Tensor, what: str) -> None:
    """Raises ValueError for NaN and infinity; `what` starts the message."""
    if samples.is_floating_point() and not is_finite(samples):
        raise ValueError(f"{what} holds NaN or infinite values: find the node before that made them")


def check_counts(conditions: int, latents: int, node: str) -> None:
    """Raises ValueError unless there is one condition, which is used for all latents, or one per latent."""
    if conditions not in (1, latents):
        raise ValueError(
            f"{node}: the condition was made from {conditions} pictures, but the latent holds {latents}, and nothing "
            "says which of them: take pictures out of the batch before 'Decompose Retinex', not after it"
        )


def check_latent_pictures(latent: dict[str, Any], source: Tensor | None, node: str) -> None:
    """Raises ValueError if a latent was made from other pictures than those with the fingerprints `source`."""
    known = latent_pictures(latent)
    if known is not None and not same_pictures(known["source"], source):
        raise ValueError(
            f"{node}: latent and positive were made from different pictures: connect both of one 'Condition JoReS "
            "Diffusion'"
        )


def check_inner_patches(transformer_options: dict[str, Any] | None) -> None:
    """Raises ValueError for patches of Stable Diffusion's UNet blocks, which have no effect or fail here."""
    options = transformer_options or {}
    replaced = sorted(name for name, patches in options.get("patches_replace", {}).items() if patches)
    added = sorted(name for name, p in options.get("patches", {}).items() if p and name not in IGNORED_PATCHES)
    if replaced or added:
        raise ValueError(
            f"The JoReS model has no blocks like Stable Diffusion's, which a node before the sampler patches "
            f"({', '.join([*replaced, *added])}; FreeU, SelfAttentionGuidance or the like): take that node out"
        )
