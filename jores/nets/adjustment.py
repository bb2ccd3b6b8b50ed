"""ANet: suppresses the noise in R, brightens L, and gives the multi-scale features F (Eq. 6)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..conditions import RetinexCondition, RetinexMaps
from ..config import AdjustmentConfig
from ..imaging.exposure import BRIGHTNESS_STATISTICS, DARKEST, DIM, brightness_statistics, exposure_gain, luma_of
from ..imaging.resize import area_average, crop_to, pad_to_multiple, resize_map
from .blocks import ScalarEmbedding, Stack, Upsample, u_shape, zero_
from .gain_grid import GainGrid

THUMBNAIL = (48, 64)
USUAL_EXPOSURE = 0.44  # where the head starts from
CAST = 4  # numbers that tell a colour cast


class ExposureHead(nn.Module):
    """Proposes the mean luma of the result from a thumbnail of the whole picture (B, 3, 48, 64) -> (B,) in (0, 1].

    Brightness is a choice that belongs to the whole picture, never to a crop or a tile. Two hundred scenes teach a
    convolutional head what they show rather than how bright it should be; statistics of the light generalise better.
    A gate tells how well lit the picture is already: where it opens, the proposal is the picture's own brightness, but
    no less than DIM: a window or a lamp makes a picture look well lit that is dark for the most part.
    `centre` and `spread` of the statistics over the training pictures travel with the weights.
    """

    centre: Tensor
    spread: Tensor

    def __init__(self, width: int, *, operations: Any = nn, **factory: Any) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(BRIGHTNESS_STATISTICS, **factory))
        self.register_buffer("spread", torch.ones(BRIGHTNESS_STATISTICS, **factory))
        self.hidden = operations.Linear(BRIGHTNESS_STATISTICS, width, **factory)
        self.dropout = nn.Dropout(0.5)
        self.out = zero_(operations.Linear(width, 2, **factory))

    def forward(self, thumbnail: Tensor) -> Tensor:
        statistics = brightness_statistics(thumbnail)                                # (B, 23) float32
        x = ((statistics - self.centre.to(statistics)) / self.spread.to(statistics)).clamp(-4, 4)
        offset, gate = self.out(self.dropout(F.silu(self.hidden(x.to(thumbnail.dtype))))).float().unbind(1)
        own, wanted = statistics[:, 0], offset + math.log(USUAL_EXPOSURE)            # logarithms
        if not self.training:  # a gate that led to DIM while it learns would open for every picture lit in part
            own = own.clamp_min(math.log(DIM))
        return torch.lerp(wanted, own, (4 * gate - 2).sigmoid()).clamp(max=0).exp()


class AdjustmentNet(nn.Module):
    """RetinexMaps -> RetinexCondition. Computed once per picture: independent of the diffusion step.

    R' = tint * (keep_R * R + residual) and L' = keep_L * gain * L + residual, with gates in (0, 2) per pixel: where R
    is mostly noise, closing a gate is easier than predicting the noise. A U-shape folded by space-to-depth 2. The trunk
    is told the exposure to aim at and the gain that takes the picture there: brightness is a dial, not a guess of the
    trunk. It is told the colour cast of the whole picture, too, and the tint follows from it alone: the darker a
    picture, the more its sensor exaggerates a cast, and a crop or a tile cannot tell a cast from the colour of a wall.
    What else of colour (R') and light (L') only the whole picture tells comes as a grid of gains.
    """

    multiple_of = 16

    def __init__(self, config: AdjustmentConfig, *, operations: Any = nn, **factory: Any) -> None:
        super().__init__()
        kw = {"operations": operations, **factory}
        widths, emb = config.widths, 2 * config.widths[0]
        self.exposure_head = ExposureHead(config.exposure_width, **kw)
        self.gain_grid = GainGrid(config.grid_width, **kw)
        self.embed = ScalarEmbedding(2, emb, **kw)
        self.embed_cast = zero_(operations.Linear(CAST, emb, bias=False, **factory))
        self.tint = zero_(operations.Linear(CAST, 3, bias=False, **factory))
        self.stem = operations.Conv2d(11 * 4, widths[0], 3, padding=1, **factory)
        self.encoders = nn.ModuleList(Stack(w, n, emb, **kw) for w, n in zip(widths, config.encoder, strict=True))
        pairs = list(zip(widths, widths[1:], strict=False))
        self.downs = nn.ModuleList(operations.Conv2d(a, b, 2, stride=2, **factory) for a, b in pairs)
        self.ups = nn.ModuleList(Upsample(b, a, **kw) for a, b in pairs)
        self.decoders = nn.ModuleList(Stack(a, n, emb, **kw) for (a, _), n in zip(pairs, config.decoder, strict=True))
        self.head = zero_(operations.Conv2d(widths[0], 6 * 4, 3, padding=1, **factory))

    def propose_exposure(self, images: Tensor) -> Tensor:
        """Mean luma (B,) that the result should have, from whole pictures (B, 3, H, W)."""
        return self.exposure_head(area_average(images, THUMBNAIL))

    def propose_gains(self, images: Tensor, exposure: Tensor) -> Tensor:
        """Log gains (B, 3, 24, 32), to be spread over whole pictures (B, 3, H, W) that `exposure` (B,) is wanted of."""
        return self.gain_grid(area_average(images, THUMBNAIL), exposure)

    def forward(
        self,
        maps: RetinexMaps,
        exposure: Tensor,
        input_mean: Tensor,
        gains: Tensor | None = None,
        *,
        clamp: bool = True,
    ) -> RetinexCondition:
        """`exposure` (B,): mean luma wanted; `input_mean` (B, 3): mean colour of the WHOLE dark picture, 0..1; `gains`
        (B, 3, h, w): what `propose_gains` says of the place of `maps`, or None for no correction.

        `clamp=False` leaves R' and L' unbounded, so that a loss still has a gradient outside [0, 1].
        """
        r = pad_to_multiple(maps.reflectance, self.multiple_of)            # (B, 3, H, W)
        light = pad_to_multiple(maps.illumination, self.multiple_of)       # (B, 1, H, W)
        gain = exposure_gain(luma_of(input_mean), exposure).to(r.dtype)
        cast = colour_cast(input_mean).to(r.dtype)
        lifted = (light * gain.view(-1, 1, 1, 1)).clamp(0, 1)
        picture = r * light
        bright = (picture * gain.view(-1, 1, 1, 1)).clamp(0, 1.5)
        log = (picture + 1 / 512).log() / 3 + 1
        x = F.pixel_unshuffle(torch.cat([r, light.sqrt(), lifted, bright, log], 1), 2)  # (B, 44, H/2, W/2)
        scalars = torch.stack([exposure.float() * 8, gain.float().log() * 2], 1)
        features, out = self._trunk(x, self.embed(scalars, r.dtype) + self.embed_cast(cast))
        out = F.pixel_shuffle(out, 2)                                      # (B, 6, H, W)
        keep = 2 * out[:, 4:].sigmoid()                                    # 1 at the start; 0 drops what is only noise
        tint = self.tint(cast).exp()[..., None, None]                      # (B, 3, 1, 1)
        colour, brightness = self._spread(gains, r)
        reflectance = crop_to((r * keep[:, :1] + out[:, :3]) * tint * colour, maps.size)
        illumination = crop_to((lifted * keep[:, 1:] + out[:, 3:4]) * brightness, maps.size)
        if clamp:
            reflectance, illumination = reflectance.clamp(0, 1), illumination.clamp(0, 1)
        return RetinexCondition(reflectance, illumination, features, exposure)

    @staticmethod
    def _spread(gains: Tensor | None, like: Tensor) -> tuple[Tensor | float, Tensor | float]:
        """Log gains as factors for R' (B, 3, H, W), which keep its brightness, and for L' (B, 1, H, W)."""
        if gains is None:
            return 1.0, 1.0
        logs = resize_map(gains.float(), like.shape[-2:])
        light = logs.mean(1, keepdim=True)
        return (logs - light).exp().to(like), light.exp().to(like)

    def _trunk(self, x: Tensor, embedding: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        finest, *features = u_shape(self, self.stem(x), embedding)         # 1/2; F^1..F^3 at 1/4, 1/8, 1/16
        return tuple(features), self.head(finest)


def colour_cast(mean: Tensor) -> Tensor:
    """Red and blue against green in mean colours (B, 3): logarithms, and the same saturated; (B, 4) float32."""
    red, green, blue = (mean.float() + DARKEST).log().unbind(1)
    ratios = torch.stack([red - green, blue - green], 1)
    return torch.cat([ratios, (3 * ratios).tanh()], 1)
