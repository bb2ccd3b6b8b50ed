"""What a picture shows, in a few numbers, for the proposal of its light. Not in the paper.

From the paper: a frozen, off-the-shelf segmentation model gives the semantic prior. Ours: that its knowledge serves the
light, too. How bright a good picture of snow, a street or a room is, depends on what it shows, and brightness alone
cannot tell a room that is dark from one that was meant so.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn

from ..imaging.exposure import brighten
from .deeplab import CONTEXT, DeepLabEncoder

SCENE_THUMBNAIL = (192, 256)  # height and width in pixels
SPREAD = 0.5  # standard deviation of each value; below 1, so that brightness has more to say than content


class SceneNet(DeepLabEncoder):
    """DeepLabV3+'s encoder, averaged over the picture and projected on principal components.

    A head that learns from a few hundred scenes would recognise them by 256 values; by the 8 that vary most between
    pictures it learns kinds of scenes. The buffers `centre` and `components` are set by `fit`; until then all values
    are 0.
    """

    centre: Tensor
    components: Tensor

    def __init__(self, values: int, *, operations: Any = nn, **factory: Any) -> None:
        super().__init__(functools.partial(operations.Conv2d, **factory))
        self.register_buffer("centre", torch.zeros(CONTEXT, **factory))
        self.register_buffer("components", torch.zeros(CONTEXT, values, **factory))

    def forward(self, thumbnail: Tensor) -> Tensor:
        """Thumbnails (B, 3, 192, 256) of full dark pictures in [0, 1] -> (B, values) float32."""
        return self.projected(self.context(thumbnail))

    def context(self, thumbnail: Tensor) -> Tensor:
        """Thumbnails (B, 3, 192, 256) -> the mean of the encoder's map, (B, CONTEXT) float32.

        As for the segmenter, they are brightened by a gain first.
        """
        x = brighten(thumbnail.clamp(0, 1)) * 2 - 1
        return self.encoded(x)[0].float().mean((2, 3))

    def projected(self, context: Tensor) -> Tensor:
        """(B, CONTEXT) -> (B, values), float32."""
        components = self.components.to(context)
        # no matrix product, which lower precision would round
        return ((context - self.centre.to(context))[:, :, None] * components).sum(1)

    @torch.no_grad()
    def fit(self, context: Tensor) -> None:
        """Sets the projection to the principal components of `context` (N, CONTEXT) of the training pictures.

        It is rounded to float16, as bundles hold it, so that heads learn from the values that they get in use.
        """
        mean, spread = context.mean(0), context.std(0).clamp_min(1e-3)
        axes = torch.linalg.svd((context - mean) / spread, full_matrices=False)[2]
        components = axes[: self.components.shape[1]].T / spread[:, None]
        values = (context - mean) @ components
        self.components.copy_((components * SPREAD / values.std(0)).half())
        self.centre.copy_(mean.half())
