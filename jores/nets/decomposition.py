"""DNet: decomposes a picture into reflectance R and illumination L (METHOD.md, 4).

From the paper: a pre-trained DNet gives initial R and L. Inferred: it is small, and frozen after its pre-training.
Ours: it predicts L alone, between two bounds, and R = I / L; deep shadows of 8 bits are smoothed first.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..conditions import RetinexMaps
from ..config import DecompositionConfig
from ..imaging.deband import debanded
from ..imaging.resize import crop_to, pad_to_multiple
from ..imaging.sliding import sliding_max, sliding_mean
from .blocks import Stack, Upsample, plus, zero_

REACH = 31  # px: L is between the pixel's brightest channel and the brightest one within this window
FLOOR = 1 / 512  # lower bound of L, so that R = I / L is finite for black pixels, also in float16


class DecompositionNet(nn.Module):
    """I (B, 3, H, W) in [0, 1] -> RetinexMaps with R * L == I (if `deband` is set, `debanded` I).

    KinD and RetinexNet predict both maps; their R * L loses faint detail of dark pictures (6 dB). This net predicts
    only L, between the brightest channel of the pixel and that of its neighbourhood, and R is I / L: it is always in
    [0, 1], loses nothing, and works equally at every scale of brightness.
    """

    multiple_of = 4

    def __init__(self, config: DecompositionConfig, *, operations: Any = nn, **factory: Any) -> None:
        super().__init__()
        self.deband = config.deband
        w, kw = config.width, {"operations": operations, **factory}
        self.stem = operations.Conv2d(8 * 4, w, 3, padding=1, **factory)
        self.encoder = Stack(w, config.blocks, **kw)
        self.down = operations.Conv2d(w, 2 * w, 2, stride=2, **factory)
        self.middle = Stack(2 * w, config.blocks, **kw)
        self.up = Upsample(2 * w, w, **kw)
        self.decoder = Stack(w, config.blocks, **kw)
        self.head = zero_(operations.Conv2d(w, 4, 3, padding=1, **factory))

    def forward(self, image: Tensor) -> RetinexMaps:
        if self.deband:
            image = debanded(image)
        # oneDNN returns garbage for a 2x2 convolution of stride 2 in bfloat16 whose input is 2 pixels wide: none here.
        narrow = image.shape[-1] <= self.multiple_of
        x = pad_to_multiple(image, 2 * self.multiple_of if narrow else self.multiple_of)
        brightest = x.amax(1, keepdim=True)  # (B, 1, H, W)
        log = ((x + FLOOR).log() - (brightest + FLOOR).log()).clamp(-4, 0)  # chromaticity, independent of brightness
        features = F.pixel_unshuffle(torch.cat([x, brightest, brightest.sqrt(), log], 1), 2)
        e = self.encoder(self.stem(features))  # (B, w, H/2, W/2)
        m = self.middle(self.down(e))  # (B, 2w, H/4, W/4)
        gate = F.pixel_shuffle(self.head(self.decoder(plus(self.up(m), e))), 2).sigmoid()
        room = (neighbourhood_max(brightest) - brightest).clamp_min(0)
        illumination = (brightest + room * gate.to(x.dtype)).clamp_min(FLOOR)
        illumination = crop_to(illumination, image.shape[-2:])
        return RetinexMaps(image / illumination, illumination)


def neighbourhood_max(x: Tensor) -> Tensor:
    """Smooth upper envelope of (B, 1, H, W): dilation by a REACH x REACH square, then a tent blur.

    The result is never below x, because the dilation window of every blurred pixel contains x.
    """
    x = sliding_max(x, REACH)
    for _ in range(2):
        x = sliding_mean(x, REACH // 2)
    return x
