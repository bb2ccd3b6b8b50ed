"""The segmenter behind the semantic prior c_seg (Eq. 8): any ADE20K model that transformers loads.

The paper takes its prior from the input picture. Off-the-shelf models fall apart on dark input, so one global gain
lifts the picture first. The shipped SegFormer was distilled for exactly this input and loads like any other folder.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..conditions import SemanticPrior
from ..imaging.exposure import brighten
from ..imaging.resize import area_average
from ..tiling.windows import size_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CLASSES = 150
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
FIRST_LABELS = ("wall", "building", "sky")
OTHERS = ("other", "others", "background")
STRIDE = 32
"""Working sides are multiples of the deepest stride: no architecture then meets a picture that it cannot fold."""


class SegmenterError(ValueError):
    """A model folder that cannot give ADE20K classes. The message names the folder and says what to do."""


class Segmenter(nn.Module):
    """Pictures -> soft ADE20K class map.

    Args:
        model: a transformers semantic segmentation model with ADE20K's 150 classes, or 151 with "others" first.
        mean, std: of the RGB input that `model` was trained on.
        resolution: working size of the long side in pixels; short sides follow, both in multiples of 32.
    """

    def __init__(
        self,
        model: PreTrainedModel,
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
        """images (B, 3, H, W) in [0, 1], any size and brightness -> float32 map, a quarter of the working size."""
        size = size_of(images)
        weight = next(self.model.parameters())
        rows, columns = working_size(size, self.resolution)
        x = prepare(images, (rows, columns), self.mean, self.std, weight.device)  # (B, 3, rows, columns)
        logits = self.model(pixel_values=x.to(weight.dtype)).logits.float()  # (B, 150 | 151, h, w)
        probabilities = logits.softmax(1)[:, self.first :]  # (B, 150, h, w)
        if logits.shape[-2] > rows // 4:  # UPerNet scales its map up to the input: more pixels, no more detail
            probabilities = area_average(probabilities, (rows // 4, columns // 4))
        return SemanticPrior(probabilities.to(images.device), self.labels, size)


def working_size(size: tuple[int, int], resolution: int) -> tuple[int, int]:
    """(H, W) scaled so that the long side is about `resolution`, both sides in multiples of 32 and never 0."""
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
    """What the model sees of (B, 3, H, W) pictures in [0, 1]: resized, brightened, normalised, in float32.

    Resizing comes first: it averages the noise away before the gain clips it. It is done where the pictures lie, so
    that a big one in main memory needs no room on `device`, where the result is (None: there, too).
    """
    x = F.interpolate(images.float(), size=size, mode="bilinear", align_corners=False, antialias=True)
    x = brighten(x.to(device or images.device).clamp(0, 1))
    return (x - x.new_tensor(mean).view(1, 3, 1, 1)) / x.new_tensor(std).view(1, 3, 1, 1)


def ade20k_labels(id2label: dict[int, str]) -> tuple[tuple[str, ...], int]:
    """ADE20K's 150 names and the index of the first, 0 or 1 ("others" in front). Raises SegmenterError."""
    names = tuple(id2label[i].strip() for i in range(len(id2label)))
    first = 1 if len(names) == CLASSES + 1 and names[0].lower() in OTHERS else 0
    labels = names[first:]
    if len(labels) != CLASSES or not all(n.lower().startswith(f) for n, f in zip(labels, FIRST_LABELS, strict=False)):
        shown = ", ".join(names[:4])
        raise SegmenterError(
            f"{len(names)} classes ({shown}, ...) are not ADE20K's: expected 150 in its order (wall, building, sky, "
            "...), or 151 with 'others' first. Use a model that was trained on ADE20K-150"
        )
    return labels, first
