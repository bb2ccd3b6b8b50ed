"""DeepLabV3+ on MobileNetV2 (Chen et al., ECCV 2018; Sandler et al., CVPR 2018), as trained on ADE20K by its authors.

transformers has this backbone only with a head of stride 8. This net adds the decoder, which uses the detail of an
early layer at stride 4.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# expansion, channels, blocks, stride of the first block, dilation; the total stride is 8
STAGES = (
    (1, 16, 1, 1, 1), (6, 24, 2, 2, 1), (6, 32, 3, 2, 1), (6, 64, 4, 1, 2), (6, 96, 3, 1, 2), (6, 160, 3, 1, 4),
    (6, 320, 1, 1, 4),
)  # fmt: skip
MODEL_TYPE = "jores-deeplab-plus"  # in the config.json of a Hugging Face folder
EARLY = 2  # index of the block whose expanded map the decoder uses for detail
CONTEXT = 256  # channels of the encoder's map
Conv = Callable[..., nn.Conv2d]
NODE, CENTRE = 4, 1.5  # stride of the map in pixels; offset of the centre of a stride-4 block from its first pixel


class InvertedResidual(nn.Module):
    """1x1 expansion, 3x3 depthwise, 1x1 projection. Returns the result and the expanded map before the projection."""

    def __init__(
        self, channels: tuple[int, int], expansion: int, stride: int, dilation: int, conv: Conv = nn.Conv2d
    ) -> None:
        super().__init__()
        before, after = channels
        wide = before * expansion
        self.exp = conv(before, wide, 1) if expansion > 1 else None
        self.dw = conv(wide, wide, 3, stride, dilation, dilation, groups=wide)
        self.prj = conv(wide, after, 1)
        self.residual = stride == 1 and before == after

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = x if self.exp is None else F.relu6(self.exp(x))
        h = F.relu6(self.dw(h))
        out = self.prj(h)
        return (x + out if self.residual else out), h


class DeepLabEncoder(nn.Module):
    """MobileNetV2 at stride 8, and what DeepLabV3+ adds to see the picture as a whole; of convolutions by `conv`."""

    def __init__(self, conv: Conv = nn.Conv2d) -> None:
        super().__init__()
        self.stem = conv(3, 32, 3, 2, 1)
        blocks: list[nn.Module] = []
        before, rate = 32, 1
        for expansion, channels, count, stride, dilation in STAGES:
            for i in range(count):
                # The first block of a stage has the dilation of the previous stage.
                shape = ((before, channels), expansion, 1 if i else stride, dilation if i else rate)
                blocks.append(InvertedResidual(*shape, conv))
                before = channels
            rate = dilation
        self.blocks = nn.ModuleList(blocks)
        self.pool, self.aspp, self.proj = (conv(c, CONTEXT, 1) for c in (320, 320, 2 * CONTEXT))

    def encoded(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) in [-1, 1], H and W multiples of 8 -> (B, CONTEXT, H / 8 + 1, W / 8 + 1), and an early map."""
        # Convolutions of stride 2 sample the map at pixels 0, 4, 8, ...; one more row and column of padding add a last
        # sample.
        x = F.pad(pictures, (0, 1, 0, 1), mode="replicate")
        x = x.contiguous(memory_format=torch.channels_last)  # a quarter quicker: convolutions per channel like it
        x, early = F.relu6(self.stem(x)), pictures
        for i, block in enumerate(self.blocks):
            x, wide = block(x)
            early = wide if i == EARLY else early
        return self._context(x), early

    def _context(self, x: Tensor) -> Tensor:
        """(B, 320, h, w) -> (B, CONTEXT, h, w): each position combined with the mean of the full map."""
        whole = F.relu(self.pool(x.mean((2, 3), keepdim=True))).expand(-1, -1, *x.shape[2:])
        return F.relu(self.proj(torch.cat([whole, F.relu(self.aspp(x))], 1)))


class DeepLabPlus(DeepLabEncoder):
    """(B, 3, H, W) in [-1, 1], H and W multiples of 8 -> logits (B, classes, H / 4, W / 4)."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.low = nn.Conv2d(144, 48, 1)
        self.dw1, self.pw1 = nn.Conv2d(304, 304, 3, 1, 1, groups=304), nn.Conv2d(304, 256, 1)
        self.dw2, self.pw2 = nn.Conv2d(256, 256, 3, 1, 1, groups=256), nn.Conv2d(256, 256, 1)
        self.cls = nn.Conv2d(256, classes, 1)

    def forward(self, pictures: Tensor) -> Tensor:
        x = self._decode(*self.encoded(pictures))
        # The map is interpolated to the centres of 4x4 blocks, as resizing functions assume.
        return _at_centres(_at_centres(self.cls(x), 2), 3).contiguous()

    def _decode(self, x: Tensor, early: Tensor) -> Tensor:
        """(B, 256, h, w) and (B, 144, 2h - 1, 2w - 1) -> (B, 256, 2h - 1, 2w - 1)."""
        x = F.interpolate(x, size=early.shape[2:], mode="bilinear", align_corners=True)
        x = torch.cat([x, F.relu(self.low(early))], 1)
        x = F.relu(self.pw1(F.relu(self.dw1(x))))
        return F.relu(self.pw2(F.relu(self.dw2(x))))


@dataclass(frozen=True)
class Labels:
    """The part of transformers' configs that a `Segmenter` reads."""

    id2label: dict[int, str]


class Logits(NamedTuple):
    logits: Tensor


class LabelledDeepLab(nn.Module):
    """`DeepLabPlus` with class names, called like a model of transformers, which it does not need.

    transformers takes seconds to import, and this net is only evaluated. Its weights have the same names as those of
    `deeplab_folder.DeepLabPlusForSemanticSegmentation`.
    """

    def __init__(self, id2label: dict[int, str]) -> None:
        super().__init__()
        self.config = Labels(id2label)
        self.net = DeepLabPlus(len(id2label))

    def forward(self, pixel_values: Tensor) -> Logits:
        """pixel_values: (B, 3, H, W) in [-1, 1], H and W multiples of 8."""
        return Logits(self.net(pixel_values))


def _at_centres(nodes: Tensor, axis: int) -> Tensor:
    """Interpolates n + 1 samples along `axis` to the n block centres between them."""
    count = nodes.shape[axis] - 1
    return torch.lerp(nodes.narrow(axis, 0, count), nodes.narrow(axis, 1, count), CENTRE / NODE)
