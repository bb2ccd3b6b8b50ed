"""Brightness: luma and its mean, gains between exposures, and global statistics of brightness."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from .alpha import is_opaque, seen_average
from .srgb import decode_srgb, encode_srgb

LEVEL = 1 / 255
"""Step of 8 bits; also added before taking logarithms, to keep them finite."""

BRIGHT = 0.4
"""Mean luma to which `brighten` raises dark pictures."""

MAX_GAIN = 60.0
"""Upper bound of the gain of `brighten`: beyond it one level of 8 bits becomes a quarter of the range."""

DARKEST = 1e-3
"""Mean luma below which a picture counts as black."""

MAX_EXPOSURE_GAIN = 100.0
"""Upper bound of the gain requested from ANet."""

DIM, WELL_LIT = 0.33, 0.38
"""For weights of release 0.1: pictures with a mean luma up to DIM count as dark, those from WELL_LIT on as well lit.
Later weights learn this decision."""


def luma(images: Tensor) -> Tensor:
    """Rec. 601 luma of (B, 3, H, W) pictures, as (B, 1, H, W): the grey value of OpenCV and of Pillow's mode L."""
    weights = images.new_tensor((0.299, 0.587, 0.114)).view(1, 3, 1, 1)
    return (images * weights).sum(1, keepdim=True)


def mean_colour(images: Tensor) -> Tensor:
    """Mean of each colour channel of (B, 3 or 4, H, W) pictures, as (B, 3) in float32 or wider.

    With an alpha channel, pixels are weighted by it.
    """
    if not is_opaque(images):
        return seen_average(images, (1, 1)).flatten(1)
    images = images[:, :3]
    wide = torch.promote_types(images.dtype, torch.float32)
    return images.mean((2, 3), dtype=wide)  # half precision cannot sum a million pixels


def mean_luma(images: Tensor) -> Tensor:
    """Mean Rec. 601 luma of each of (B, 3 or 4, H, W) pictures, as (B,) in float32 or wider."""
    return luma_of(mean_colour(images))


def luma_of(colours: Tensor) -> Tensor:
    """Rec. 601 luma of (B, 3) colours, as (B,)."""
    return luma(colours[:, :, None, None]).flatten()


def brighten(images: Tensor) -> Tensor:
    """Multiplies each picture (B, 3, H, W) in [0, 1] by a gain that raises its mean luma to BRIGHT, and clips to 1.

    Clipping lowers the mean slightly below that. Pictures at least as bright stay unchanged, and black stays black. The
    gain is at most `MAX_GAIN`. Returns the same dtype.
    """
    gain = (BRIGHT / mean_luma(images)).clamp(1.0, MAX_GAIN)  # black: inf, clamped to MAX_GAIN
    return (images * gain.to(images.dtype).view(-1, 1, 1, 1)).clamp(0.0, 1.0)


def shadow_share(dark: Tensor, picture: Tensor) -> Tensor:
    """Brightness of the shadows relative to the mean, from (B, 3, h, w) thumbnails of full pictures.

    It is the mean luma of `picture` over those pixels that are in the darker half of `dark`, divided by the mean luma
    of `picture`. With the dark picture for both it describes how deep the shadows are; with the well-lit picture of the
    same scene as `picture`, how far they should be brightened.

    Returns:
        (B,) float32, above 0 and at most about 1.
    """
    order = luma(dark.float()).flatten(1).argsort(1)
    half = order[:, : order.shape[1] // 2]
    y = luma(picture.float()).flatten(1)
    return (y.gather(1, half).mean(1) + LEVEL / 4) / (y.mean(1) + LEVEL / 4)


def exposure_gain(input_mean: Tensor, exposure: Tensor | float) -> Tensor:
    """Gain from a mean luma to the target `exposure`, at most MAX_EXPOSURE_GAIN; float32, of the input's shape."""
    return (exposure / input_mean.float().clamp_min(DARKEST)).clamp(0, MAX_EXPOSURE_GAIN)


DIMMEST, BRIGHTEST = 0.02, 0.9
"""Range of mean luma that `brightened` does not leave."""


def brightened(exposure: Tensor, stops: float) -> Tensor:
    """Mean luma (B,) in sRGB encoding, 0..1, made brighter by `stops` EV: linear light times 2^stops, encoded again.

    The result stays within DIMMEST..BRIGHTEST; values that are already outside are not moved further outwards, and
    not moved back. 0 stops return `exposure` unchanged.
    """
    if stops == 0:
        return exposure
    made = encode_srgb(decode_srgb(exposure) * 2.0**stops)
    return made.clamp(exposure.clamp_max(DIMMEST), exposure.clamp_min(BRIGHTEST))


BRIGHTNESS_STATISTICS = 23
_QUANTILES = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)


def brightness_statistics(thumbnails: Tensor) -> Tensor:
    """Statistics of brightness, independent of the content: (B, 3, H, W) in [0, 1] -> (B, 23) float32.

    log m, the logarithm of the mean luma. Relative to m, as logarithms: nine quantiles of the luma and the three
    channels' means. Over a coarse grid: mean and standard deviation of log(red / luma) and log(blue / luma), and the
    standard deviation of the log luma. Relative to m: horizontal and vertical contrast (logarithms) and the standard
    deviation of the luma. Absolute: the 99 % and 90 % quantiles of the luma.
    """
    pictures = thumbnails.float()
    y, mean = luma(pictures), mean_luma(pictures).clamp_min(1e-3)[:, None]  # (B, 1, H, W), (B, 1)
    relative = 1 / (mean + LEVEL)
    ordered = y.flatten(1).sort(1).values
    quantiles = torch.stack([ordered[:, int(ordered.shape[1] * q)] for q in _QUANTILES], 1)
    channels = pictures.mean((2, 3))
    grid = F.adaptive_avg_pool2d(pictures, (8, 16))
    grid_luma = luma(grid)
    colour = ((grid + LEVEL) / (grid_luma + LEVEL)).log()[:, [0, 2]].flatten(2)  # (B, 2, 128)
    light = ((grid_luma + LEVEL) * relative[:, :, None, None]).log().flatten(1)  # (B, 128)
    across = (y[..., 1:] - y[..., :-1]).abs().mean((1, 2, 3))[:, None]
    down = (y[:, :, 1:] - y[:, :, :-1]).abs().mean((1, 2, 3))[:, None]
    return torch.cat([
        mean.log(), ((quantiles + LEVEL) * relative).log(), ((channels + LEVEL) * relative).log(),
        colour.mean(2), colour.std(2), light.std(1, keepdim=True),
        ((across + LEVEL / 4) * relative).log(), ((down + LEVEL / 4) * relative).log(),
        y.std((1, 2, 3))[:, None] * relative, quantiles[:, -1:], quantiles[:, -3:-2],
    ], 1)  # fmt: skip
