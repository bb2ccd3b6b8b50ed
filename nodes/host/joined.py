"""Conditionings that stock nodes have changed or joined: what cannot be sampled is refused before the first step.

Stock nodes join conditionings for parts of a picture or of the steps, and for the text encoders of other models. Where
no conditioning is left, or two meet that do not belong together, the host says nothing, and gives plain grey or two
pictures through each other.
"""

from __future__ import annotations

import itertools
import math

import comfy.samplers
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from .fingerprints import same_pictures
from .texture import HostOptions, StockSampling, wrap_sampling

WRAPPER_KEY = "jores_joined"
CONDITION_KEY = "jores_condition"  # key in the conditioning's dictionary
NUMBER_KEY = "jores_number"  # the same: what `numbered` has put in place of a text encoder's output
PARTS = ("area", "mask", "timestep_start", "timestep_end")  # keys of a conditioning for a part
_numbers = itertools.count(1)


def numbered() -> tuple[Tensor, dict[str, float]]:
    """A tensor in place of a text encoder's output, so that stock nodes work, and an entry that tells its number.

    Nodes that average or concatenate text leave the entry of one conditioning, and another number, or several.
    """
    number = float(next(_numbers) % (1 << 24) or 1)  # exact in float32
    return torch.full((1, 1, 1), number), {NUMBER_KEY: number}


def check_number(options: HostOptions, node: str) -> None:
    """Raises ValueError if the host's `options` of a conditioning are those of text nodes that mix two of them."""
    text, number = options.get("cross_attn"), options.get(NUMBER_KEY)
    if text is None or number is None or (text.numel() == 1 and float(text) in (0.0, number)):  # 0: zeroed out
        return
    raise ValueError(
        f"{node} was given a conditioning that 'ConditioningAverage' or 'ConditioningConcat' made: these join texts, "
        "and would drop one of the two pictures or lights. Join them with 'Conditioning (Combine)', or set the "
        "exposure between the two in 'Adjust Retinex Condition'"
    )


def refuse_what_does_not_join(model: ModelPatcher) -> None:
    """Makes every sampling of the MODEL raise ValueError for conditionings of different pictures, or with a gap."""

    def sample(call: StockSampling) -> Tensor:
        used = {name: conds for name, conds in call.guider.conds.items() if conds and _counts(name, call)}
        check_pictures([cond for conds in used.values() for cond in conds])
        for name, conds in used.items():
            check_gaps(name, conds, call)
        return call.run()

    wrap_sampling(model, WRAPPER_KEY, sample)


def _counts(name: str, call: StockSampling) -> bool:
    """Whether the host evaluates the conditionings of this name: the negative ones not at cfg 1."""
    at_one = math.isclose(getattr(call.guider, "cfg", 0.0) or 0.0, 1.0)
    special = type(call.guider).predict_noise is not comfy.samplers.CFGGuider.predict_noise
    return name != "negative" or special or not at_one


def check_pictures(conds: list[HostOptions]) -> None:
    """Raises ValueError if the conditionings of one sampling were made from different pictures."""
    sources = [cond[CONDITION_KEY].source for cond in conds if CONDITION_KEY in cond]
    if any(not same_pictures(source, sources[0]) for source in sources[1:]):
        raise ValueError(
            "The JoReS model was given conditionings of different pictures, which would come out through each other: "
            "use those of one picture"
        )


def check_gaps(name: str, conds: list[HostOptions], call: StockSampling) -> None:
    """Raises ValueError if a pixel has no conditioning at one of the steps: it would come out plain grey."""
    if any(cond.get("default") or not _in_part(cond) for cond in conds):
        return
    steps = call.sigmas[:-1]
    for step, sigma in enumerate(steps, 1):
        gap = ~_covered(conds, call.noise, sigma)
        if call.denoise_mask is not None:  # elsewhere the latent's own pixels come back
            gap &= call.denoise_mask.to(gap.device).amax(1, keepdim=True) > 0
        if not bool(gap.any()):
            continue
        where = f"step {step} of {len(steps)}" if bool(gap.all()) else "a part of the picture"
        raise ValueError(
            f"The JoReS model's {name} says nothing of {where}, which would come out plain grey: join it with a "
            "conditioning for the rest by 'Conditioning (Combine)'. ('Conditioning (Set Area)' counts in eighths of a "
            "pixel here: 'Conditioning (Set Area with Percentage)' does not.)"
        )


def _in_part(cond: HostOptions) -> bool:
    """Whether a conditioning may leave a part of the picture, or of the steps, to others."""
    return cond.get("strength", 1.0) <= 0 or any(key in cond for key in PARTS)


def _covered(conds: list[HostOptions], noise: Tensor, sigma: Tensor) -> Tensor:
    """Where any of the conditionings has a weight, (B, 1, H, W), as the host weights them."""
    covered = torch.zeros_like(noise[:, :1], dtype=torch.bool)
    level = sigma.to(noise) * noise.new_ones(len(noise))
    for cond in conds:
        part = comfy.samplers.get_area_and_mult(cond, noise, level)
        if part is None:  # not at this step
            continue
        inside = covered
        if part.area is not None:
            height, width, top, left = part.area
            inside = covered[..., top : top + height, left : left + width]
        inside |= part.mult[:, :1].to(inside.device) > 0
    return covered
