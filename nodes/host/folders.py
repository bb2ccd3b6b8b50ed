"""Model files, segmenter folders and example pictures that the menus offer, and their paths."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import folder_paths

from ...jores.checkpoint import FORMER_SEGMENTER, SHIPPED_SEGMENTER, SHIPPED_WEIGHTS
from ...jores.nets.segmentation import ade20k_labels

_PICTURES = Path(__file__).resolve().parents[2] / "workflows"
EXAMPLES = {
    "coffee": "enhance_low_light.input.png",
    "portrait": "jores_five_stages.input.png",
    "region": "only_this_region.input.png",
    "clip": "video_without_flicker.input.mp4",
}
"""The shipped pictures by the names that graphs use; the files are beside the workflows."""

SHIPPED_FOLDER = "examples (shipped)"
PHOTOGRAPHS = ("coffee", "portrait")  # names in EXAMPLES that SHIPPED_FOLDER offers

BUNDLES, SEGMENTERS = "jores", "jores_segmenters"
SHIPPED_BUNDLE_NAME = f"{SHIPPED_WEIGHTS.name} (shipped)"
SHIPPED_SEGMENTERS = {f"{folder.name} (shipped)": folder for folder in (SHIPPED_SEGMENTER, FORMER_SEGMENTER)}
"""Shipped segmenters by the names that graphs store; the first is the default."""
SHIPPED_SEGMENTER_NAME = next(iter(SHIPPED_SEGMENTERS))


def register_folders() -> None:
    """Registers models/jores and models/jores_segmenters, in addition to folders of extra_model_paths.yaml."""
    for category in (BUNDLES, SEGMENTERS):
        folder_paths.add_model_folder_path(category, str(Path(folder_paths.models_dir) / category))
    # A new category has no extensions, which would list every file in the folder.
    folder_paths.folder_names_and_paths[BUNDLES] = (folder_paths.get_folder_paths(BUNDLES), {".safetensors"})


def bundle_names() -> list[str]:
    """Names of bundles for the menu, the shipped one first."""
    return [SHIPPED_BUNDLE_NAME, *folder_paths.get_filename_list(BUNDLES)]


def bundle_path(name: str) -> Path:
    """The file of one of `bundle_names`. Raises ValueError if there is none."""
    if name == SHIPPED_BUNDLE_NAME:
        return SHIPPED_WEIGHTS
    path = folder_paths.get_full_path(BUNDLES, name)  # also None for names that lead outside the folders
    if path is None:
        raise ValueError(f"model_name: there is no file '{name}' in models/{BUNDLES}: put it there, or choose another")
    return Path(path)


def example_path(name: str) -> Path:
    """The file of one of EXAMPLES. Raises ValueError for other names."""
    if name not in EXAMPLES:
        raise ValueError(f"picture: there is no example '{name}', only {', '.join(EXAMPLES)}")
    return _PICTURES / EXAMPLES[name]


def folder_names() -> list[str]:
    """The shipped examples, and the folders directly in the host's input folder."""
    root = Path(folder_paths.get_input_directory())
    found = (p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith(".")) if root.is_dir() else ()
    return [SHIPPED_FOLDER, *sorted(found)]


def folder_pictures(name: str) -> list[tuple[str, Path]]:
    """Pairs of "folder/name without suffix" and file for one of `folder_names`, sorted by name.

    Raises:
        ValueError: there is no such folder, or no picture in it.
    """
    from ...jores.files.pictures import find_images  # imported late, because Pillow slows down the host's start

    if name == SHIPPED_FOLDER:
        return [(f"examples/{example}", example_path(example)) for example in PHOTOGRAPHS]
    if name not in folder_names():  # untrusted input: only folders in the menu are opened
        raise ValueError(f"folder: there is no folder '{name}' in ComfyUI's input folder: make it, or choose another")
    files = find_images([Path(folder_paths.get_input_directory()) / name])
    return [(f"{name}/{file.stem}", file) for file in files]


def segmenter_names() -> list[str]:
    """Names of segmenters for the menu, the shipped ones first."""
    return [*SHIPPED_SEGMENTERS, *sorted(_segmenter_folders())]


def segmenter_path(name: str) -> Path:
    """The folder of one of `segmenter_names`. Raises ValueError if there is none."""
    if name in SHIPPED_SEGMENTERS:
        return SHIPPED_SEGMENTERS[name]
    folders = _segmenter_folders()
    if name not in folders:  # untrusted input: only folders in the menu are opened
        raise ValueError(f"segmenter_name: there is no folder '{name}' with a config.json in models/{SEGMENTERS}")
    return folders[name]


@functools.lru_cache(maxsize=1)
def class_names() -> tuple[str, ...]:
    """ADE20K's 150 class names, as the shipped segmenter spells them."""
    id2label = json.loads((SHIPPED_SEGMENTER / "config.json").read_text("utf-8"))["id2label"]
    return ade20k_labels({int(index): name for index, name in id2label.items()})[0]


def file_stamp(path: Path | None) -> str:
    """A text that changes when a file, or weights or settings in a folder, are replaced, so that the host reloads them.

    `path` is None when the name comes from another node that has not run yet; the result is then "".
    """
    if path is None:
        return ""
    files = sorted([*path.glob("*.safetensors"), *path.glob("*.json")]) if path.is_dir() else [path]
    return "|".join(f"{f}:{f.stat().st_mtime_ns}:{f.stat().st_size}" for f in files if f.exists())


def _segmenter_folders() -> dict[str, Path]:
    """Folders with a config.json, up to two levels deep, as Hugging Face repositories (owner/name) are stored."""
    found = {}
    for root in map(Path, folder_paths.get_folder_paths(SEGMENTERS)):
        for pattern in ("*/config.json", "*/*/config.json"):
            found |= {path.parent.relative_to(root).as_posix(): path.parent for path in root.glob(pattern)}
    return found
