"""How ANet brightens L before its trunk looks at the picture: by one gain, or by gains that follow edges."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..conditions import RetinexMaps
from ..imaging.guided_filter import self_guided
from ..imaging.resize import resize_map
from .decomposition import FLOOR

TONE = 0.4  # power under which the steps of a dark picture are about as far apart as those of a light one
REACH, EDGE = 8, 0.06  # of the filter that takes noise and texture out of the guide: pixels, and contrast under TONE
ROOM = 2.0  # L is at most so many times the brightness around
SHOULDER = 4  # how late the highlights start to roll off


@dataclass(frozen=True)
class Lift:
    """R, L and what they become before the trunk: L lifted, the picture R * L so lifted, and what is left to multiply
    R' (B, 3, H, W) and L' (B, 1, H, W) with behind it."""

    reflectance: Tensor
    illumination: Tensor
    lifted: Tensor
    bright: Tensor
    colour: Tensor | float = 1.0
    brightness: Tensor | float = 1.0


def uniform_lift(r: Tensor, light: Tensor, gain: Tensor, gains: Tensor) -> Lift:
    """Release 0.1: one `gain` (B, 1, 1, 1) for all of L, clipped at 1, and the grid's gains (B, 3, h, w) at the end."""
    logs = resize_map(gains.float(), r.shape[-2:])
    share = logs.mean(1, keepdim=True)
    bright = (r * light * gain).clamp(0, 1.5)
    colour, brightness = (logs - share).exp().to(r), share.exp().to(r)
    return Lift(r, light, (light * gain).clamp(0, 1), bright, colour, brightness)


def local_lift(r: Tensor, light: Tensor, gain: Tensor, gains: Tensor) -> Lift:
    """The grid (B, 3 * bins, h, w) is sliced by the brightness around each pixel, which follows edges, before L is
    lifted: what is dark gets more of the gain, what is bright less, and white stays white."""
    guide = brightness_guide(r * light)
    tight = tightened(RetinexMaps(r, light), guide)
    r, light = tight.reflectance, tight.illumination
    logs = sliced(gains, guide)
    share = logs.mean(1, keepdim=True)
    lifted = roll_off(light.float(), gain.float() * share.exp()).to(r)
    return Lift(r, light, lifted, r * lifted, (logs - share).exp().to(r))


def brightness_guide(picture: Tensor) -> Tensor:
    """Brightest channel of (B, 3, H, W) under TONE, without noise and texture but with its edges: (B, 1, H, W)
    float32."""
    tone = picture.float().amax(1, keepdim=True).clamp(0, 1).pow(TONE)
    slope, intercept = self_guided(tone, REACH, EDGE)
    return (slope * tone + intercept).clamp(0, 1)


def tightened(maps: RetinexMaps, guide: Tensor) -> RetinexMaps:
    """The same picture with an L that does not spread over the edge of a lit area: DNet's L is an upper envelope, and
    beside a window it is as bright as the window. A gain for the shadow there would be clipped, and leave a dark
    rim."""
    picture = maps.reflectance * maps.illumination
    around = (ROOM * guide.pow(1 / TONE) + FLOOR).to(picture)
    light = torch.maximum(picture.amax(1, keepdim=True), torch.minimum(maps.illumination, around)).clamp_min(FLOOR)
    return RetinexMaps(picture / light, light)


def sliced(gains: Tensor, guide: Tensor) -> Tensor:
    """A bilateral grid (B, 3 * bins, h, w) at every pixel of the guide (B, 1, H, W): (B, 3, H, W) float32.

    As in HDRNet (Gharbi et al., SIGGRAPH 2017), linear between the two bins that are nearest. Bin by bin, because some
    devices have no 3-D sampling, and a big window no room for all bins at once.
    """
    bins = gains.shape[1] // 3
    place = guide.float() * (bins - 1)
    total = gains.new_zeros((), dtype=torch.float32)
    for i, part in enumerate(gains.float().chunk(bins, 1)):
        total = total + (1 - (place - i).abs()).clamp_min(0) * resize_map(part, guide.shape[-2:])
    return total


def roll_off(x: Tensor, gain: Tensor) -> Tensor:
    """x in [0, 1] times `gain` as long as that is far from white, and smoothly to white for white: a gain of 1 changes
    nothing, and no gain clips."""
    raised = (x * gain).pow(SHOULDER)
    return x * gain / (1 + raised - x.pow(SHOULDER)).clamp_min(1e-6).pow(1 / SHOULDER)
