"""Loads segmenters from folders, and makes masks from class names."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from .conditions import SemanticPrior
from .imaging.bilateral import joint_upsample
from .imaging.resize import resize_map
from .nets.deeplab import MODEL_TYPE, LabelledDeepLab
from .nets.segmentation import IMAGENET_MEAN, IMAGENET_STD, STRIDE, Segmenter, SegmenterError
from .out_of_memory import is_out_of_memory
from .tiling.windows import size_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TRAINED_SIDE = 512  # pixels; training size of most ADE20K models
SMALLEST_SIDE, LARGEST_SIDE = 128, 640
LARGEST_SIZE = 1 << 16  # largest number that is accepted in a model's config
LEAST_STD = 1e-6  # of the input's normalisation, which divides by it


def load_segmenter(
    folder: str | Path, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
) -> Segmenter:
    """Loads a Hugging Face folder (config.json + model.safetensors) of any ADE20K segmentation model.

    Args:
        folder: a local folder; nothing is downloaded.
        dtype: of the weights (default: float32); class maps are always float32.

    Raises:
        SegmenterError: the folder is missing or damaged, or holds no ADE20K segmentation model.
    """
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise SegmenterError(
            f"{folder}: no config.json in this folder. Choose the folder of an ADE20K segmentation model"
        )
    config = _checked_config(folder / "config.json")
    mean, std, side = _input_settings(folder)
    own = _own_model(folder, config)
    model = own or _foreign_model(folder)
    try:
        # Some models take one size only, so they are tried at their own; ours takes any, and is tried at a quick one.
        tried = side if own is None else SMALLEST_SIDE
        segmenter = Segmenter(model, mean=mean, std=std, resolution=tried).to(dtype or torch.float32)
        segmenter.eval().requires_grad_(False)
        if dtype in (None, torch.float32):  # not every processor supports half precision
            segmenter(torch.zeros(1, 3, STRIDE, STRIDE))
        segmenter.resolution = side
    except SegmenterError as error:
        raise SegmenterError(f"{folder}: {error}") from error
    except Exception as error:
        if is_out_of_memory(error):  # the folder is whole; the host makes room and says so
            raise
        raise SegmenterError(f"{folder}: cannot segment a picture ({error}): its config is damaged") from error
    return segmenter.to(device)


def trainable_model(folder: Path) -> PreTrainedModel:
    """The model of a folder as one of transformers, which can be written to a folder again. Raises SegmenterError."""
    load_segmenter(folder)  # for its checks
    return _foreign_model(folder).float()


def _checked_config(path: Path) -> dict:
    """config.json without huge sizes or foreign code, because transformers would build and run anything."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        largest = max((abs(float(n)) for n in _numbers(config)), default=0)
        key = _foreign_code(config)
    except (ValueError, OverflowError, RecursionError) as error:
        raise SegmenterError(f"{path}: cannot be loaded, not valid JSON ({error})") from error
    if not isinstance(config, dict) or largest > LARGEST_SIZE:
        raise SegmenterError(f"{path}: not the config of a segmentation model (a size of {largest:g}?). Get it again")
    if key:
        raise SegmenterError(f"{path}: {key} refers to code that is not part of transformers; such code is never run")
    return config


def _foreign_code(value: Any) -> str:
    """The key of a config, at any depth, that makes transformers fetch or run foreign code; "" if there is none."""
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


def _own_model(folder: Path, config: dict) -> LabelledDeepLab | None:
    """The model of a folder like that of the shipped segmenter; None for other folders."""
    weights = folder / "model.safetensors"
    if config.get("model_type") != MODEL_TYPE or not weights.is_file():
        return None
    try:
        model = LabelledDeepLab({int(index): str(name) for index, name in config["id2label"].items()})
        model.load_state_dict(load_file(weights))
    except Exception as error:  # a damaged config or file can raise any exception
        if is_out_of_memory(error):
            raise
        raise SegmenterError(f"{folder}: cannot be loaded as a segmentation model ({error}). Get it again") from error
    return model


def _foreign_model(folder: Path) -> PreTrainedModel:
    from transformers import AutoModelForSemanticSegmentation

    from .nets.deeplab_folder import register

    register()
    try:
        model, report = AutoModelForSemanticSegmentation.from_pretrained(
            str(folder), local_files_only=True, use_safetensors=True, output_loading_info=True,
            trust_remote_code=False,  # the default asks at a terminal, and runs code in the folder after a "y"
        )  # fmt: skip
    except Exception as error:  # a damaged config can raise any exception in transformers
        if is_out_of_memory(error):
            raise
        raise SegmenterError(
            f"{folder}: cannot be loaded as a segmentation model ({error}). It needs config.json and model.safetensors "
            "as transformers writes them; older .bin weights must be converted first"
        ) from error
    # A classifier's folder can be loaded, too, but its decoder is random.
    if report["missing_keys"]:
        example = sorted(report["missing_keys"])[0]
        raise SegmenterError(f"{folder}: its weights lack {example}: not a complete segmentation model")
    return model


def _input_settings(folder: Path) -> tuple[tuple[float, ...], tuple[float, ...], int]:
    """Mean, standard deviation and size in pixels of the model's training input, from preprocessor_config.json.

    Without that file: those of ImageNet, and 512. Raises SegmenterError.
    """
    path = folder / "preprocessor_config.json"
    if not path.is_file():
        return IMAGENET_MEAN, IMAGENET_STD, TRAINED_SIDE
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(settings, dict):
            raise ValueError("no settings")
        largest = max((side for side in _numbers(settings.get("size")) if side > 0), default=TRAINED_SIDE)
        side = int(min(max(largest, SMALLEST_SIDE), LARGEST_SIDE))
        if not settings.get("do_normalize", True):
            return (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), side
        mean, std = settings.get("image_mean", IMAGENET_MEAN), settings.get("image_std", IMAGENET_STD)
        return _per_channel(mean, -LARGEST_SIZE), _per_channel(std, LEAST_STD), side
    except (ValueError, TypeError, RecursionError) as error:
        raise SegmenterError(f"{path}: not valid JSON settings ({error}). Get it again, or remove it") from error


def _per_channel(values: Iterable[float], least: float) -> tuple[float, ...]:
    """The three numbers of a list, for red, green and blue. Raises ValueError or TypeError for others."""
    numbers = tuple(values)
    if len(numbers) != 3 or not all(least <= n <= LARGEST_SIZE for n in numbers):  # in particular no NaN
        raise ValueError(f"{list(numbers)} for red, green and blue")
    return numbers


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
"""Groups of ADE20K classes by everyday names. Classes are listed by the first word of their names."""
ALL = " (all)"


def everyday_names() -> list[str]:
    """Names of the groups for menus: "sky (all)", to distinguish the group from the class "sky"."""
    return [f"{name}{ALL}" for name in EVERYDAY]


def find_classes(text: str, labels: Sequence[str]) -> list[int]:
    """Indices of the classes in a comma-separated list such as "sky, tree, plants"; case is ignored.

    A name can stand for several classes. Groups of `EVERYDAY` are allowed, too: "water (all)", or just "plants" if
    there is no class of that name.

    Raises:
        ValueError: a name is neither a class nor a group; the message lists similar names.
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
    """Indices of a group's classes, by their first words: full names differ ("coffee table", "door;double door")."""
    words = EVERYDAY.get(name, "").split(", ")
    return [i for i, label in enumerate(labels) if re.split(r"[ ,;]", label)[0] in words]


def class_mask(
    prior: SemanticPrior,
    classes: Sequence[int],
    *,
    threshold: float = 0.0,
    inverted: bool = False,
) -> Tensor:
    """Mask (B, 1, H, W) in [0, 1] of these classes at the picture's size: their summed probability.

    The rims follow the edges of what the segmenter saw, where that is known, and stay soft.

    Args:
        classes: indices of the classes.
        threshold: 0 returns probabilities; otherwise the mask is 1 where they are at least this high, and 0 elsewhere.
        inverted: True returns 1 minus the mask.
    """
    likely = at_full_size(prior, prior.probabilities[:, list(classes)].sum(1, keepdim=True))
    if threshold > 0:
        likely = (likely >= threshold).to(likely)
    return 1 - likely if inverted else likely


def at_full_size(prior: SemanticPrior, maps: Tensor) -> Tensor:
    """Maps (B, C, h, w) of a prior's size, in [0, 1], at the size of its picture: (B, C, H, W)."""
    seen = prior.seen
    # A small picture is enlarged for the segmenter: its map has no fewer cells than the picture has pixels.
    if seen is not None and all(n > m for n, m in zip(size_of(seen), size_of(maps), strict=True)):
        maps = joint_upsample(maps, seen)
    return resize_map(maps, prior.size).clamp(0, 1)
