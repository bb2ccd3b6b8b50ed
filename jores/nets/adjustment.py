"""ANet: suppresses the noise in R, brightens L, and extracts the multi-scale features F (METHOD.md, 6).

From the paper: what it takes, gives and is for. Inferred: a U-Net with gates, computed once per picture. Ours: a target
exposure as input, proposed by a head of its own; the grid of gains, and the tint by the picture's colour cast.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..conditions import GlobalStatistics, RetinexCondition, RetinexMaps
from ..config import AdjustmentConfig
from ..imaging.exposure import DARKEST, exposure_gain, luma_of
from ..imaging.resize import area_average, crop_to, pad_to_multiple
from .blocks import ScalarEmbedding, Stack, Upsample, u_shape, zero_
from .exposure_head import ExposureHead, LightHead, LightMixture
from .gain_grid import GainGrid
from .lifting import local_lift, relit, uniform_lift
from .scene import SCENE_THUMBNAIL, SceneNet

THUMBNAIL = (48, 64)  # height and width in pixels
CAST = 4  # values that describe a colour cast, see `colour_cast`
SHADOWS = 3  # values that describe the shadows, see `shadow_scalars`
DIMMEST_AIM = 0.9  # least brightness that the net aims at, in means of the picture itself
BRIGHTEST_AIM = 0.8  # largest one, unless the picture itself is brighter: aimed higher, the net gives less


class AdjustmentNet(nn.Module):
    """RetinexMaps -> RetinexCondition. Computed once per picture, independent of the diffusion step.

    R' and L' are gated, as in METHOD.md, 6: where R is mostly noise, closing a gate is easier than predicting the
    noise. The trunk is a U-Net on the picture folded by space-to-depth 2. The target exposure and the gain towards it
    are inputs of the trunk.

    The trunk also gets the colour cast of the full picture, and the tint depends on the cast only: casts are stronger
    in darker pictures, and within a crop or a tile a cast cannot be distinguished from the colour of an object.
    Corrections of colour (R') and illumination (L') that need the full picture are log gains in a grid (`lifting`).
    """

    multiple_of = 16

    def __init__(self, config: AdjustmentConfig, *, operations: Any = nn, **factory: Any) -> None:
        super().__init__()
        kw = {"operations": operations, **factory}
        widths, emb = config.widths, 2 * config.widths[0]
        local = config.light_bins > 0  # False for bundles of release 0.1
        if not local:
            self.exposure_head = ExposureHead(config.exposure_width, **kw)
        elif config.light_experts == 1:
            self.exposure_head = LightHead(config.exposure_width, config.scene, **kw)
        else:
            self.exposure_head = LightMixture(config.light_experts, config.exposure_width, config.scene, **kw)
        self.scene = SceneNet(config.scene, **kw) if config.scene else None
        self.gain_grid = GainGrid(config.grid_width, config.light_bins, **kw)
        self.lift = local_lift if local else uniform_lift
        self.embed_shadows = zero_(operations.Linear(SHADOWS, emb, bias=False, **factory)) if local else None
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

    @property
    def thumbnail_size(self) -> tuple[int, int]:
        """Height and width of the thumbnails of full pictures that tell this net all that it needs of them."""
        return THUMBNAIL if self.scene is None else SCENE_THUMBNAIL

    def seen(self, images: Tensor) -> Tensor | None:
        """What full pictures show: values (B, scene) of the `SceneNet`, or None for a net without one."""
        return None if self.scene is None else self.scene(area_average(images, SCENE_THUMBNAIL))

    def propose_exposure(self, images: Tensor, scene: Tensor | None = None) -> Tensor:
        """Proposed mean luma (B,) of the result, from full pictures (B, 3, H, W) in [0, 1], not crops.

        `scene` is what is `seen` in them, if that is known already.
        """
        return self.exposure_head(area_average(images, THUMBNAIL), self.seen(images) if scene is None else scene)

    def statistics(
        self,
        images: Tensor,
        exposure: Tensor,
        mean: Tensor,
        shadows: Tensor | None = None,
        scene: Tensor | None = None,
    ) -> GlobalStatistics:
        """Global statistics of full pictures.

        Args:
            images: the pictures (B, 3, H, W) in [0, 1], or thumbnails of them.
            exposure: target mean luma (B,) of the result.
            mean: mean colour (B, 3) of the pictures.
            shadows: target and own `shadow_share` (B, 2); None lets the exposure head propose them.
            scene: what is `seen` in the pictures, if that is known already.
        """
        thumbnail, aim = area_average(images, THUMBNAIL), self.aimed_exposure(exposure, mean.to(exposure.device))
        if shadows is None:
            shadows = self.exposure_head.shadows(thumbnail, aim, self.seen(images) if scene is None else scene)
        gains = self.gain_grid(thumbnail, aim, shadow_scalars(shadows))
        return GlobalStatistics(exposure, mean.to(exposure.device), shadows, gains)

    def aimed_exposure(self, exposure: Tensor, mean: Tensor) -> Tensor:
        """The exposure (B,) that the net aims at: near what it has learned for pictures of this `mean` (B, 3).

        It has learned to brighten, and has seen few targets that are nearly white. `relit` makes up the rest.
        """
        if self.embed_shadows is None:  # a bundle of release 0.1
            return exposure
        own = luma_of(mean).to(exposure)
        return exposure.clamp(DIMMEST_AIM * own, own.clamp_min(BRIGHTEST_AIM))

    def forward(
        self, maps: RetinexMaps, statistics: GlobalStatistics, *, clamp: bool = True, denoise: float = 1.0
    ) -> RetinexCondition:
        """R', L' and features for `maps`, which may be those of a window.

        Args:
            statistics: of the full dark picture, with log gains sampled under the window.
            clamp: False leaves R' and L' unbounded, so that a loss has gradients outside [0, 1].
            denoise: share of the cleaning of R, 0..1; the tint and the gains of colour are applied in any case.
        """
        r = pad_to_multiple(maps.reflectance, self.multiple_of)  # (B, 3, H, W)
        illumination = pad_to_multiple(maps.illumination, self.multiple_of)  # (B, 1, H, W)
        aim = self.aimed_exposure(statistics.exposure, statistics.mean)
        gain = exposure_gain(luma_of(statistics.mean), aim).to(r.dtype)
        cast = colour_cast(statistics.mean).to(r.dtype)
        lift = self.lift(r, illumination, gain.view(-1, 1, 1, 1), statistics.gains)
        r, illumination = lift.reflectance, lift.illumination
        log = (r * illumination + 1 / 512).log() / 3 + 1
        x = F.pixel_unshuffle(
            torch.cat([r, illumination.sqrt(), lift.lifted, lift.bright, log], 1), 2
        )  # (B, 44, H/2, W/2)
        scalars = torch.stack([aim.float() * 8, gain.float().log() * 2], 1)
        embedding = self.embed(scalars, r.dtype) + self.embed_cast(cast)
        if self.embed_shadows is not None:
            embedding = embedding + self.embed_shadows(shadow_scalars(statistics.shadows).to(r.dtype))
        features, out = self._trunk(x, embedding)
        out = F.pixel_shuffle(out, 2)  # (B, 6, H, W)
        keep = 2 * out[:, 4:].sigmoid()  # initially 1; 0 removes noise
        tint = self.tint(cast).exp()[..., None, None]  # (B, 3, 1, 1)
        clean = r * keep[:, :1] + out[:, :3]
        if denoise != 1:
            clean = torch.lerp(r, clean, denoise)  # of the R that goes with L'
        reflectance = crop_to(clean * tint * lift.colour, maps.size)
        illumination = crop_to((lift.lifted * keep[:, 1:] + out[:, 3:4]) * lift.brightness, maps.size)
        if clamp:
            reflectance, illumination = reflectance.clamp(0, 1), illumination.clamp(0, 1)
        illumination = relit(illumination, (statistics.exposure / aim).view(-1, 1, 1, 1))
        return RetinexCondition(reflectance, illumination, features, statistics.exposure)

    def _trunk(self, x: Tensor, embedding: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        finest, *features = u_shape(self, self.stem(x), embedding)  # 1/2; F^1..F^3 at 1/4, 1/8, 1/16
        return tuple(features), self.head(finest)


def colour_cast(mean: Tensor) -> Tensor:
    """Colour cast of mean colours (B, 3): log(red / green), log(blue / green), and both saturated; (B, 4) float32."""
    red, green, blue = (mean.float() + DARKEST).log().unbind(1)
    ratios = torch.stack([red - green, blue - green], 1)
    return torch.cat([ratios, (3 * ratios).tanh()], 1)


def shadow_scalars(shadows: Tensor) -> Tensor:
    """Logarithms of target and own `shadow_share` (B, 2), and their difference; (B, 3) float32."""
    wanted, own = shadows.float().clamp_min(1e-3).log().unbind(1)
    return torch.stack([wanted, own, wanted - own], 1)
