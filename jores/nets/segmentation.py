"""The segmenter for the semantic prior c_seg (METHOD.md, 8): any ADE20K model that transformers can load.

Common models fail on dark input, so the picture is first brightened by a global gain. (The pipeline can also give the
segmenter the picture that ANet brightened, and does.)

From the paper: an off-the-shelf model, on the input picture. Inferred: nothing. Ours: which model, that it sees a
brightened picture, and that probabilities of classes are taken, not features.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..conditions import SemanticPrior
from ..config import SEMANTIC_CLASSES
from ..imaging.exposure import brighten
from ..imaging.metal import detour
from ..imaging.resize import area_average
from ..tiling.windows import size_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from .deeplab import LabelledDeepLab

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
FIRST_LABELS = ("wall", "building", "sky")
OTHERS = ("other", "others", "background")
STRIDE = 32
"""Working sides are multiples of this stride, the largest one of common architectures."""


class SegmenterError(ValueError):
    """A model folder that cannot be used as a segmenter. The message says what to do."""


class Segmenter(nn.Module):
    """Computes soft class maps with ADE20K's 150 classes.

    Args:
        model: a semantic segmentation model of transformers, or one called like it, with ADE20K's 150 classes, or 151
            with "others" first.
        mean, std: normalisation of the RGB input that `model` was trained with.
        resolution: long side in pixels that pictures are resized to; both sides become multiples of 32.

    Raises:
        SegmenterError: the classes of `model` are not those of ADE20K.
    """

    def __init__(
        self,
        model: PreTrainedModel | LabelledDeepLab,
        *,
        mean: tuple[float, ...] = IMAGENET_MEAN,
        std: tuple[float, ...] = IMAGENET_STD,
        resolution: int = 320,
    ) -> None:
        super().__init__()
        self.model, self.resolution = model, resolution
        self.mean, self.std = tuple(mean), tuple(std)
        self.labels, self.first = ade20k_labels({int(i): name for i, name in (model.config.id2label or {}).items()})

    def forward(self, images: Tensor) -> SemanticPrior:
        """images (B, 3, H, W) in [0, 1], any size and brightness -> float32 map, at most 1/4 of the working size."""
        size = size_of(images)
        weight = next(self.model.parameters())
        rows, columns = working_size(size, self.resolution)
        x = prepare(images, (rows, columns), self.mean, self.std, weight.device)  # (B, 3, rows, columns)
        logits = self.model(pixel_values=x.to(weight.dtype)).logits.float()  # (B, 150 | 151, h, w)
        probabilities = logits.softmax(1)[:, self.first :]  # (B, 150, h, w)
        if logits.shape[-2] > rows // 4:  # UPerNet enlarges its map to the input size, which adds no detail
            probabilities = area_average(probabilities, (rows // 4, columns // 4))
        return SemanticPrior(probabilities.to(images.device), self.labels, size)


def working_size(size: tuple[int, int], resolution: int) -> tuple[int, int]:
    """(H, W) scaled to a long side of about `resolution` pixels; both sides are positive multiples of 32."""
    scale = resolution / max(size)
    rows, columns = (STRIDE * max(1, round(side * scale / STRIDE)) for side in size)
    return rows, columns


def prepare(
    images: Tensor,
    size: tuple[int, int],
    mean: tuple[float, ...] = IMAGENET_MEAN,
    std: tuple[float, ...] = IMAGENET_STD,
    device: torch.device | None = None,
) -> Tensor:
    """Input of the model from (B, 3, H, W) pictures in [0, 1]: resized to `size`, brightened, normalised, in float32.

    Resizing comes first, because it averages noise before the gain clips it. It runs on the device of the pictures, so
    that a big picture needs no memory on `device`, where the result is (None: the device of the pictures); Metal leaves
    it to the processor.
    """
    x = F.interpolate(detour(images).float(), size=size, mode="bilinear", align_corners=False, antialias=True)
    x = brighten(x.to(device or images.device).clamp(0, 1))
    return (x - x.new_tensor(mean).view(1, 3, 1, 1)) / x.new_tensor(std).view(1, 3, 1, 1)


def ade20k_labels(id2label: dict[int, str]) -> tuple[tuple[str, ...], int]:
    """ADE20K's 150 class names, and the index of the first one: 1 if "others" precedes it, otherwise 0.

    Raises:
        SegmenterError: these are not ADE20K's classes.
    """
    names = tuple(id2label[i].strip() for i in range(len(id2label)))
    first = 1 if len(names) == SEMANTIC_CLASSES + 1 and names[0].lower() in OTHERS else 0
    labels = names[first:]
    if len(labels) != SEMANTIC_CLASSES or not all(
        n.lower().startswith(f) for n, f in zip(labels, FIRST_LABELS, strict=False)
    ):
        shown = ", ".join(names[:4])
        raise SegmenterError(
            f"{len(names)} classes ({shown}, ...) are not ADE20K's: expected 150 in its order (wall, building, sky, "
            "...), or 151 with 'others' first. Use a model that was trained on ADE20K-150"
        )
    return labels, first
