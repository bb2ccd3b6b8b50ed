"""A coarse grid of log gains for colour and illumination, predicted from the thumbnail of the full picture.

From the paper: nothing. Inferred: nothing. Ours: all of it, after HDRNet (METHOD.md, 6).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..imaging.exposure import exposure_gain, mean_luma
from .blocks import Stack, Upsample, zero_

LEVELS = 4
FOLD = 2  # the grid has half the resolution of the thumbnail
RANGE = 0.3  # log gain at an output of 1
LIMIT = 0.7  # largest |log gain|, a factor of 2: limits errors on pictures unlike the training data
LOCAL_LIMIT = 2.0  # the same for a bilateral grid, a factor of 7, for shadows beside a bright sky


class GainGrid(nn.Module):
    """Thumbnail of the full dark picture (B, 3, 48, 64), target exposure (B,) and shadows (B, 3) -> log gains.

    The low-resolution stream of HDRNet (Gharbi et al., SIGGRAPH 2017) with one gain per channel. Most of the remaining
    error of R' x L' is low-frequency colour and illumination. A crop or a tile does not show enough of the picture to
    predict it; a thumbnail does, at a hundredth of the cost. With `bins` the result is a bilateral grid (B, 3 * bins,
    24, 32), which is sliced by brightness; without, as in release 0.1, it is (B, 3, 24, 32). The initial log
    gains are zero.
    """

    def __init__(self, width: int, bins: int = 0, *, operations: Any = nn, **factory: Any) -> None:
        super().__init__()
        kw = {"operations": operations, **factory}
        self.stem = operations.Conv2d(9 * FOLD**2, width, 3, padding=1, **factory)
        self.encoders = nn.ModuleList(Stack(width, 2, **kw) for _ in range(LEVELS))
        self.downs = nn.ModuleList(operations.Conv2d(width, width, 2, stride=2, **factory) for _ in range(LEVELS - 1))
        self.ups = nn.ModuleList(Upsample(width, width, **kw) for _ in range(LEVELS - 1))
        self.decoders = nn.ModuleList(Stack(width, 1, **kw) for _ in range(LEVELS - 1))
        self.dropout = nn.Dropout2d(0.1)  # against overfitting to a few hundred scenes
        self.head = zero_(operations.Conv2d(width, 3 * max(1, bins), 3, padding=1, **factory))
        self.told = zero_(operations.Linear(3, width, bias=False, **factory)) if bins else None
        self.limit = LOCAL_LIMIT if bins else LIMIT

    def forward(self, thumbnail: Tensor, exposure: Tensor, shadows: Tensor) -> Tensor:
        """Log gains, float32, within the limit. `shadows` (B, 3): see `shadow_scalars`."""
        gain = exposure_gain(mean_luma(thumbnail), exposure).to(thumbnail).view(-1, 1, 1, 1)
        bright = (thumbnail * gain).clamp(0, 1.5)
        dark_log, bright_log = (thumbnail + 1 / 512).log() / 2 + 1.5, (bright + 0.02).log() / 2 + 0.5
        h = self.stem(F.pixel_unshuffle(torch.cat([dark_log, bright, bright_log], 1), FOLD))  # (B, W, 24, 32)
        if self.told is not None:
            h = h + self.told(shadows.to(h.dtype))[..., None, None]
        skips = []
        for encoder, down in zip(self.encoders, self.downs, strict=False):
            h = encoder(h)
            skips.append(h)
            h = down(h)
        h = self.dropout(self.encoders[-1](h))  # (B, W, 3, 4)
        for decoder, up, skip in zip(self.decoders, self.ups, reversed(skips), strict=True):
            h = decoder(up(h) + self.dropout(skip))
        return (self.head(h).float() * RANGE).clamp(-self.limit, self.limit)
