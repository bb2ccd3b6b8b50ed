"""A distance between pictures in the features of the segmenter, for textures that need not match pixel by pixel.

The squared error of pixels prefers a blur to a texture that is a little off its place. Features of a net that was
trained on many photographs do not (Zhang et al., CVPR 2018; for diffusion: Lin and Yang, 2024). The features are those
of the segmenter's MobileNetV2, because it is at hand; AlexNet's stay out of the training, so LPIPS can judge it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..nets.deeplab import DeepLabPlus
from ..nets.segmentation import Segmenter

LAYERS = (2, 5, 9)  # blocks whose expanded maps are compared, after the stem; strides 4, 8 and 8
JITTER = 8  # px: pictures are shifted by less, so that the strides of the features leave no grid


class FeatureDistance(nn.Module):
    """Mean squared distances of normalised features of pictures (B, 3, H, W) in [-1, 1] to those of a target; scalars.

    Raises:
        ValueError: `segmenter` is no DeepLabV3+ net of this project.
    """

    def __init__(self, segmenter: Segmenter) -> None:
        super().__init__()
        net = getattr(segmenter.model, "net", None)
        if not isinstance(net, DeepLabPlus):
            raise ValueError(
                "the option `perceptual` of the recipe needs the features of jores/weights/deeplab-ade20k, and its "
                "`segmenter` names another model: leave `segmenter` out of the recipe, or write perceptual: null"
            )
        self.stem, self.blocks = net.stem, net.blocks[: max(LAYERS) + 1]

    def forward(self, target: Tensor, *pictures: Tensor) -> list[Tensor]:
        """The distance of each of the pictures to `target`. Without gradients nothing is random."""
        top, left = torch.randint(JITTER, (2,)).tolist() if torch.is_grad_enabled() else (0, 0)
        with torch.no_grad():
            wanted = self.features(target[..., top:, left:])
        return [_apart(self.features(picture[..., top:, left:]), wanted) for picture in pictures]

    def features(self, pictures: Tensor) -> list[Tensor]:
        """Maps (B, C, h, w) of the stem and of LAYERS, each position scaled to length 1."""
        x = F.relu6(self.stem(pictures.contiguous(memory_format=torch.channels_last)))
        maps = [x]
        for i, block in enumerate(self.blocks):
            x, wide = block(x)
            if i in LAYERS:
                maps.append(wide)
        return [F.normalize(m.float(), dim=1, eps=1e-3) for m in maps]


def _apart(found: list[Tensor], wanted: list[Tensor]) -> Tensor:
    return torch.stack([(a - b).square().sum(1).mean() for a, b in zip(found, wanted, strict=True)]).mean()
