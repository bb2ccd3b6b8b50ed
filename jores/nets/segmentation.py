"""The segmenter behind the semantic prior c_seg (Eq. 8): any ADE20K model that transformers loads.

The paper takes its prior from the input picture. Off-the-shelf models fall apart on dark input, so one global gain
lifts the picture first. The shipped SegFormer was distilled for exactly this input and loads like any other folder.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..conditions import SemanticPrior
from ..imaging.exposure import brighten
from ..imaging.reduction import area_average

CLASSES = 150
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
FIRST_LABELS = ("wall", "building", "sky")
OTHERS = ("other", "others", "background")
LARGEST_SIZE = 1 << 16  # of anything that a model's config counts
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
        model: nn.Module,
        *,
        mean: tuple[float, ...] = IMAGENET_MEAN,
        std: tuple[float, ...] = IMAGENET_STD,
        resolution: int = 320,
    ) -> None:
        super().__init__()
        self.model, self.resolution = model, resolution
        self.mean, self.std = tuple(mean), tuple(std)
        self.labels, self.first = ade20k_labels(model.config.id2label)

    def forward(self, images: Tensor) -> SemanticPrior:
        """images (B, 3, H, W) in [0, 1], any size and brightness -> float32 map, a quarter of the working size."""
        size = tuple(images.shape[-2:])
        weight = next(self.model.parameters())
        rows, columns = working_size(size, self.resolution)
        x = prepare(images.to(weight.device), (rows, columns), self.mean, self.std)  # (B, 3, rows, columns)
        logits = self.model(pixel_values=x.to(weight.dtype)).logits.float()  # (B, 150 | 151, h, w)
        probabilities = logits.softmax(1)[:, self.first :]  # (B, 150, h, w)
        if logits.shape[-2] > rows // 4:  # UPerNet scales its map up to the input: more pixels, no more detail
            probabilities = area_average(probabilities, (rows // 4, columns // 4))
        return SemanticPrior(probabilities.to(images.device), self.labels, size)


def working_size(size: tuple[int, int], resolution: int) -> tuple[int, int]:
    """(H, W) scaled so that the long side is about `resolution`, both sides in multiples of 32 and never 0."""
    scale = resolution / max(size)
    return tuple(STRIDE * max(1, round(side * scale / STRIDE)) for side in size)


def prepare(
    images: Tensor,
    size: tuple[int, int],
    mean: tuple[float, ...] = IMAGENET_MEAN,
    std: tuple[float, ...] = IMAGENET_STD,
) -> Tensor:
    """What the model sees of (B, 3, H, W) pictures in [0, 1]: resized, brightened, normalised, in float32.

    Resizing comes first: it averages the noise away before the gain clips it.
    """
    x = F.interpolate(images.float(), size=size, mode="bilinear", align_corners=False, antialias=True)
    x = brighten(x.clamp(0, 1))
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


def load_segmenter(
    folder: str | Path, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
) -> Segmenter:
    """Loads a Hugging Face folder (config.json + model.safetensors) of any ADE20K segmentation model.

    Args:
        folder: local folder; nothing is ever downloaded.
        dtype: of the weights, float32 by default; the map is float32 in any case.

    Raises:
        SegmenterError: the folder is missing or damaged, or holds no ADE20K segmentation model.
    """
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise SegmenterError(f"{folder}: no config.json there. Choose the folder of an ADE20K segmentation model")
    _check_sizes(folder / "config.json")
    model = _load_model(folder, dtype or torch.float32)
    mean, std = _statistics(folder)
    try:
        segmenter = Segmenter(model, mean=mean, std=std).eval().requires_grad_(False)
        if dtype in (None, torch.float32):  # half precision is not for every processor
            segmenter(torch.zeros(1, 3, STRIDE, STRIDE))
    except SegmenterError as error:
        raise SegmenterError(f"{folder}: {error}") from error
    except Exception as error:
        raise SegmenterError(f"{folder}: cannot segment a picture ({error}): its config is damaged") from error
    return segmenter.to(device)


def _check_sizes(path: Path) -> None:
    """transformers builds whatever a config asks for, of any size and depth."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        largest = max((abs(n) for n in _numbers(config)), default=0)
    except (ValueError, RecursionError) as error:
        raise SegmenterError(f"{path}: cannot be loaded, not valid JSON ({error})") from error
    if not isinstance(config, dict) or largest > LARGEST_SIZE:
        raise SegmenterError(f"{path}: no segmentation model's config (a size of {largest:g}?). Get it again")
    if key := _foreign_code(config):
        raise SegmenterError(f"{path}: {key} asks for code that does not ship with transformers; it is never run")


def _foreign_code(value: Any) -> str:
    """The key of a config, at any depth, that has transformers fetch or run code from elsewhere; "" for none."""
    if isinstance(value, list):
        return next(filter(None, map(_foreign_code, value)), "")
    if not isinstance(value, dict):
        return ""
    for key, item in value.items():
        if str(key).endswith("attn_implementation"):  # "owner/name" is a kernel of a model hub
            items = item.values() if isinstance(item, dict) else (item,)
            if any("/" in str(name) for name in items):
                return str(key)
        if found := _foreign_code(item):
            return found
    return ""


def _numbers(value: Any) -> Iterator[int | float]:
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _numbers(item)
    elif isinstance(value, int | float):
        yield value


def _load_model(folder: Path, dtype: torch.dtype) -> nn.Module:
    from transformers import AutoModelForSemanticSegmentation

    try:
        model, report = AutoModelForSemanticSegmentation.from_pretrained(
            str(folder), local_files_only=True, use_safetensors=True, output_loading_info=True,
            trust_remote_code=False,  # unset, it asks at a terminal, and runs the folder's own code on a "y"
        )  # fmt: skip
    except Exception as error:  # whatever transformers and a model's own code make of a damaged config
        raise SegmenterError(
            f"{folder}: cannot be loaded as a segmentation model ({error}). It needs config.json and model.safetensors "
            "as transformers writes them; older .bin weights must be converted first"
        ) from error
    # A classifier's folder loads too, with a freshly drawn decoder: its maps would be noise.
    if report["missing_keys"]:
        example = sorted(report["missing_keys"])[0]
        raise SegmenterError(f"{folder}: its weights lack {example}: not a complete segmentation model")
    return model.to(dtype)  # here, because the loader's own argument for it has changed its name over the years


def _statistics(folder: Path) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of the model's input, from preprocessor_config.json; ImageNet's without one."""
    path = folder / "preprocessor_config.json"
    if not path.is_file():
        return IMAGENET_MEAN, IMAGENET_STD
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise SegmenterError(f"{path}: not valid JSON ({error})") from error
    if not settings.get("do_normalize", True):
        return (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    return tuple(settings.get("image_mean", IMAGENET_MEAN)), tuple(settings.get("image_std", IMAGENET_STD))
