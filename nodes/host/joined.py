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
from torch.nn import functional as F

from .fingerprints import same_pictures
from .texture import HostOptions, StockSampling, wrap_sampling

WRAPPER_KEY = "jores_joined"
CONDITION_KEY = "jores_condition"  # key in the conditioning's dictionary
NUMBER_KEY = "jores_number"  # the same: what `numbered` has put in place of a text encoder's output
LINE = 1  # pixels, half of what may be left between two areas by rounding
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
    if text is None or number is None:
        return
    if text.numel() == 1 and (float(text) == 0 or math.isclose(float(text), number, rel_tol=1e-6)):  # 0: zeroed out
        return
    raise ValueError(
        f"{node} was given a conditioning that 'ConditioningAverage' or 'ConditioningConcat' made: these join texts, "
        "and would drop one of the two pictures or lights. Join them with 'Conditioning (Combine)', or set the "
        "exposure between the two in 'Adjust Retinex Condition'"
    )


def refuse_what_does_not_join(model: ModelPatcher) -> None:
    """Makes every sampling of the MODEL raise ValueError for conditionings of different pictures, or with a gap."""

    def sample(call: StockSampling) -> Tensor:
        options, conds = call.extra_args.get("model_options", {}), call.guider.conds
        negative = uses_negative(call.guider, options, call.sampler_function)
        used = {name: joined for name, joined in conds.items() if joined and (negative or name != "negative")}
        check_pictures([cond for joined in used.values() for cond in joined], call)
        for name, joined in used.items():
            check_gaps(name, joined, call)
        return call.run()

    wrap_sampling(model, WRAPPER_KEY, sample)


def uses_negative(guider: comfy.samplers.CFGGuider, options: HostOptions, sampler_function: object = None) -> bool:
    """Whether the host evaluates the negative conditionings: not at cfg 1, but for special guiders and samplers."""
    special = type(guider).predict_noise is not comfy.samplers.CFGGuider.predict_noise  # with two scales, for example
    asked = options.get("disable_cfg1_optimization") or getattr(sampler_function, "__name__", "").endswith("_cfg_pp")
    return bool(special or asked or not math.isclose(guider.cfg, 1.0))


def check_pictures(conds: list[HostOptions], call: StockSampling) -> None:
    """Raises ValueError if conditionings of different pictures meet in one place: they come out through each other."""
    groups: list[list[HostOptions]] = []
    for cond in conds:
        if CONDITION_KEY in cond:
            source = cond[CONDITION_KEY].source
            own = [group for group in groups if same_pictures(group[0][CONDITION_KEY].source, source)]
            own[0].append(cond) if own else groups.append([cond])
    for sigma in call.sigmas[:-1] if len(groups) > 1 else ():
        where = torch.stack([_covered(group, call.noise, sigma) for group in groups])
        if bool((where.sum(0) > 1).any()):
            raise ValueError(
                "The JoReS model was given conditionings of different pictures for one place, which would come out "
                "through each other: use those of one picture"
            )


def check_gaps(name: str, conds: list[HostOptions], call: StockSampling) -> None:
    """Raises ValueError if a place has no conditioning at one of the steps: it would come out plain grey.

    Lines of up to two pixels are let pass: the host rounds the sides of areas that meet.
    """
    if any(not _in_part(cond) for cond in conds):
        return
    steps = call.sigmas[:-1]
    for step, sigma in enumerate(steps, 1):
        covered = _covered(conds, call.noise, sigma)
        gap = F.max_pool2d(covered.float(), 2 * LINE + 1, 1, LINE) == 0
        if call.denoise_mask is not None:  # elsewhere the latent's own pixels come back
            gap &= call.denoise_mask.to(gap.device).amax(1, keepdim=True) > 0
        if not bool(gap.any()):
            continue
        where = f"step {step} of {len(steps)}" if not bool(covered.any()) else "a part of the picture"
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
        if cond.get("default"):  # the host gives it what the others leave
            return torch.ones_like(covered)
        inside = covered
        if part.area is not None:
            height, width, top, left = part.area
            inside = covered[..., top : top + height, left : left + width]
        inside |= part.mult[:, :1].to(inside.device) > 0
    return covered
