"""LPIPS with AlexNet (Zhang et al., CVPR 2018): the perceptual distance of two pictures, from a network's features.

The weights are not part of this project: one .safetensors file with torchvision's `features.*` of AlexNet and the heads
`lin0` to `lin4` of LPIPS v0.1. LPIPS is used to score results only, never as a training loss.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

ENVIRONMENT = "JORES_LPIPS"
TAPS = (0, 3, 6, 8, 10)  # indices in AlexNet's `features` of the convolutions whose outputs (after ReLU) are compared
SHAPES = ((3, 64, 11, 4, 2), (64, 192, 5, 1, 2), (192, 384, 3, 1, 1), (384, 256, 3, 1, 1), (256, 256, 3, 1, 1))
SHIFT, SCALE = (
    (-0.030, -0.088, -0.188),
    (0.458, 0.448, 0.450),
)  # mean and standard deviation in LPIPS v0.1, for pictures in [-1, 1]
LEAST = 32  # smallest height and width in pixels


class Lpips(nn.Module):
    """Perceptual distance of two (B, 3, H, W) pictures in [0, 1], as (B,) float32 on the CPU; 0 for equal pictures.

    Raises:
        ValueError: the pictures differ in size, or are smaller than 32x32 pixels.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(nn.Conv2d(a, b, k, stride=s, padding=p) for a, b, k, s, p in SHAPES)
        self.heads = nn.ParameterList(nn.Parameter(torch.zeros(1, shape[1], 1, 1)) for shape in SHAPES)
        self.register_buffer("shift", torch.tensor(SHIFT).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor(SCALE).view(1, 3, 1, 1))

    @torch.inference_mode()
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        if a.shape != b.shape or min(a.shape[-2:]) < LEAST:
            sizes = f"{tuple(a.shape[-2:])} and {tuple(b.shape[-2:])}"
            raise ValueError(f"LPIPS compares pictures of one size, at least {LEAST}x{LEAST} pixels, got {sizes}")
        total = torch.zeros(len(a))
        for head, x, y in zip(self.heads, self._features(a), self._features(b), strict=True):
            total = total + ((x - y).square() * head).sum(1).mean((1, 2)).cpu()
        return total

    def _features(self, picture: Tensor) -> list[Tensor]:
        """The feature map after each ReLU, normalised to unit length over the channels at every position."""
        x, found = (picture.float() * 2 - 1 - self.shift) / self.scale, []
        for i, convolution in enumerate(self.convolutions):
            if i in (1, 2):
                x = F.max_pool2d(x, 3, stride=2)
            x = F.relu(convolution(x))
            found.append(x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10))
        return found


def load_lpips(path: str | Path | None = None) -> Lpips | None:
    """LPIPS with the weights in `path`, by default the file named by the environment variable JORES_LPIPS.

    Returns None if neither names a file.

    Raises:
        ValueError: the file cannot be read, or does not hold the weights of LPIPS with AlexNet.
    """
    path = path or os.environ.get(ENVIRONMENT)
    if not path:
        return None
    net = Lpips().eval()
    try:
        held = load_file(path)
        for convolution, index in zip(net.convolutions, TAPS, strict=True):
            convolution.load_state_dict({key: held[f"features.{index}.{key}"] for key in ("weight", "bias")})
        for i, head in enumerate(net.heads):
            head.data.copy_(held[f"lin{i}.weight"].reshape(head.shape))
    except (OSError, KeyError, RuntimeError, SafetensorError) as error:
        raise ValueError(f"{path}: not the weights of LPIPS with AlexNet: {error}") from error
    return net.requires_grad_(False)
