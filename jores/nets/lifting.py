"""Brightens L before ANet's trunk: by one gain for the picture, or by local gains that follow edges (METHOD.md, 6).

From the paper: that ANet brightens L. Inferred: nothing. Ours: gains that are sliced by brightness, the limit
on L, and the roll-off of highlights.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..conditions import RetinexMaps
from ..imaging.guided_filter import TONE, sliced_grid, smoothed
from ..imaging.resize import resize_map
from .decomposition import FLOOR

REACH, EDGE = 8, 0.06  # of the self-guided filter of the guide: radius in pixels, and contrast after TONE
ROOM = 2.0  # upper bound of L, as a multiple of the local brightness
SHOULDER = 4  # the larger, the later the roll-off of highlights starts


@dataclass(frozen=True)
class Lift:
    """Input of ANet's trunk, and gains that are applied after it.

    Attributes:
        reflectance, illumination: R (B, 3, H, W) and L (B, 1, H, W).
        lifted: L multiplied by the gains.
        bright: the brightened picture R * `lifted`.
        colour, brightness: gains for R' (B, 3, H, W) and L' (B, 1, H, W), applied after the trunk.
    """

    reflectance: Tensor
    illumination: Tensor
    lifted: Tensor
    bright: Tensor
    colour: Tensor | float = 1.0
    brightness: Tensor | float = 1.0


def uniform_lift(r: Tensor, light: Tensor, gain: Tensor, gains: Tensor) -> Lift:
    """As in release 0.1: L is multiplied by one `gain` (B, 1, 1, 1) and clipped to 1.

    The log gains of the grid, `gains` (B, 3, h, w), are applied after the trunk.
    """
    logs = resize_map(gains.float(), r.shape[-2:])
    share = logs.mean(1, keepdim=True)
    bright = (r * light * gain).clamp(0, 1.5)
    colour, brightness = (logs - share).exp().to(r), share.exp().to(r)
    return Lift(r, light, (light * gain).clamp(0, 1), bright, colour, brightness)


def local_lift(r: Tensor, light: Tensor, gain: Tensor, gains: Tensor) -> Lift:
    """Multiplies L by `gain` (B, 1, 1, 1) and by local gains from the grid `gains` (B, 3 * bins, h, w) of log gains.

    The grid is sliced by the local brightness, which follows edges. So dark areas can get a larger gain than bright
    ones, and white stays white.
    """
    guide = brightness_guide(r * light)
    tight = tightened(RetinexMaps(r, light), guide)
    r, light = tight.reflectance, tight.illumination
    logs = sliced(gains, guide)
    share = logs.mean(1, keepdim=True)
    lifted = roll_off(light.float(), gain.float() * share.exp()).to(r)
    return Lift(r, light, lifted, r * lifted, (logs - share).exp().to(r))


def brightness_guide(picture: Tensor) -> Tensor:
    """Guide for `sliced`: the brightest channel of (B, 3, H, W), raised to TONE and smoothed by a self-guided filter.

    Returns (B, 1, H, W) float32 in [0, 1].
    """
    tone = picture.float().amax(1, keepdim=True).clamp(0, 1).pow(TONE)
    return smoothed(tone, REACH, EDGE)


def tightened(maps: RetinexMaps, guide: Tensor) -> RetinexMaps:
    """Limits L to ROOM times the local brightness, and adapts R so that R * L is unchanged.

    DNet's L is an upper envelope: beside a bright window it is as bright as the window. Without this limit, gains for
    the shadow there would be clipped, which leaves a dark rim.
    """
    picture = maps.reflectance * maps.illumination
    around = (ROOM * guide.pow(1 / TONE) + FLOOR).to(picture)
    light = torch.maximum(picture.amax(1, keepdim=True), torch.minimum(maps.illumination, around)).clamp_min(FLOOR)
    return RetinexMaps(picture / light, light)


def sliced(gains: Tensor, guide: Tensor) -> Tensor:
    """`sliced_grid` for a guide (B, 1, H, W) of the full picture: (B, 3, H, W) float32."""
    return sliced_grid(gains.float(), guide.float(), lambda part: resize_map(part, guide.shape[-2:]))


def roll_off(x: Tensor, gain: Tensor) -> Tensor:
    """x in [0, 1] times `gain`, with a smooth roll-off towards white instead of clipping.

    White stays white, and a gain of 1 changes nothing.
    """
    raised = (x * gain).pow(SHOULDER)
    return x * gain / (1 + raised - x.pow(SHOULDER)).clamp_min(1e-6).pow(1 / SHOULDER)


def relit(light: Tensor, gain: Tensor) -> Tensor:
    """L (B, 1, H, W) multiplied by `gain` (B, 1, 1, 1); where that brightens it, with a smooth roll-off."""
    if not gain.is_meta and bool((gain <= 1).all()):  # nearly always; the roll-off takes time
        return light * gain.to(light)
    brighter = roll_off(light.float(), gain.float().clamp_min(1)).to(light)
    return torch.where(gain > 1, brighter, light * gain.to(light))
