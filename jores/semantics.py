"""Segmenters from folders, and masks by the names of classes."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .conditions import SemanticPrior
from .imaging.resize import resize_map
from .nets.segmentation import IMAGENET_MEAN, IMAGENET_STD, STRIDE, Segmenter, SegmenterError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TRAINED_SIDE = 512  # pixels; of most models for ADE20K
SMALLEST_SIDE, LARGEST_SIDE = 128, 640
LARGEST_SIZE = 1 << 16  # of anything that a model's config counts


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
    mean, std, side = _input_settings(folder)
    try:
        segmenter = Segmenter(model, mean=mean, std=std, resolution=side).eval().requires_grad_(False)
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
    """Every number of a config, at any depth."""
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _numbers(item)
    elif isinstance(value, int | float):
        yield value


def _load_model(folder: Path, dtype: torch.dtype) -> PreTrainedModel:
    from transformers import AutoModelForSemanticSegmentation

    from .nets.deeplab_folder import register

    register()
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


def _input_settings(folder: Path) -> tuple[tuple[float, ...], tuple[float, ...], int]:
    """Mean, standard deviation and side in pixels of what the model was trained on, from preprocessor_config.json;
    ImageNet's and 512 without one."""
    path = folder / "preprocessor_config.json"
    if not path.is_file():
        return IMAGENET_MEAN, IMAGENET_STD, TRAINED_SIDE
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise SegmenterError(f"{path}: not valid JSON ({error})") from error
    if not isinstance(settings, dict):
        raise SegmenterError(f"{path}: not valid JSON settings. Get it again, or remove it")
    sides = [side for side in _numbers(settings.get("size", TRAINED_SIDE)) if side > 0]
    side = min(max(int(max(sides, default=TRAINED_SIDE)), SMALLEST_SIDE), LARGEST_SIDE)
    if not settings.get("do_normalize", True):
        return (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), side
    return tuple(settings.get("image_mean", IMAGENET_MEAN)), tuple(settings.get("image_std", IMAGENET_STD)), side


EVERYDAY = {
    "sky": "sky",
    "person": "person",
    "plants": "tree, grass, plant, field, flower, palm",
    "building": "building, house, skyscraper, hovel, tower, grandstand, booth, bridge, pier, tent",
    "water": "water, sea, river, pool, waterfall, lake, swimming, fountain",
    "ground": "floor, road, grass, sidewalk, earth, rug, field, sand, path, runway, dirt, land",
    "furniture": "bed, cabinet, table, chair, sofa, shelf, armchair, seat, desk, wardrobe, chest, counter, bookcase, "
    "coffee, bench, countertop, swivel, bar, ottoman, buffet, stool, cradle",
    "vehicle": "car, boat, bus, truck, airplane, van, ship, minibike, bicycle",
}
"""Everyday names, and the classes of ADE20K that they stand for, by the first word of each class's name."""
ALL = " (all)"


def everyday_names() -> list[str]:
    """The groups' names as a menu shows them: "sky (all)" beside the class "sky"."""
    return [f"{name}{ALL}" for name in EVERYDAY]


def find_classes(text: str, labels: Sequence[str]) -> list[int]:
    """Indices of the classes in a list such as "sky, tree, plants", whatever the case; a name may stand for several
    classes. The groups of `EVERYDAY` may be named, too: "water (all)", and just "plants" where no class is called so.

    Raises:
        ValueError: a name that is neither, with those that look like it.
    """
    lower, found = [label.lower() for label in labels], []
    for name in filter(None, (part.strip().lower() for part in text.split(","))):
        indices = [i for i, label in enumerate(lower) if label == name] or _group(name.removesuffix(ALL), lower)
        if not indices:
            known = [*lower, *EVERYDAY]
            alike = ", ".join(difflib.get_close_matches(name, known, 4, 0.5)) or ", ".join(lower[:8]) + ", ..."
            raise ValueError(f"there is no class {name!r}; did you mean one of these: {alike}?")
        found += indices
    return found


def _group(name: str, labels: Sequence[str]) -> list[int]:
    """Indices of a group's classes; a segmenter may spell more of their names ("coffee table", "door;double door")."""
    words = EVERYDAY.get(name, "").split(", ")
    return [i for i, label in enumerate(labels) if re.split(r"[ ,;]", label)[0] in words]


def class_mask(
    prior: SemanticPrior,
    classes: Sequence[int],
    *,
    threshold: float = 0.0,
    inverted: bool = False,
) -> Tensor:
    """How likely each place shows any of these classes: (B, 1, H, W) in [0, 1], at the picture's size.

    Args:
        threshold: 0 leaves the probabilities as they are; above, the mask is 1 where they reach it and 0 elsewhere.
        inverted: everything but these classes.
    """
    likely = prior.probabilities[:, list(classes)].sum(1, keepdim=True)
    likely = resize_map(likely, prior.size).clamp(0, 1)
    if threshold > 0:
        likely = (likely >= threshold).to(likely)
    return 1 - likely if inverted else likely
