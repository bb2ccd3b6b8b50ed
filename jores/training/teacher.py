"""The ADE20K teacher for training the segmenter, and scores of a map against the teacher's."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from ..config import SEMANTIC_CLASSES
from ..files.saving import write_atomically
from ..imaging.resize import resize_map
from .convert import to_tensor
from .pretrained import read_labels

WEIGHTS, LABELS = "ade20k_teacher_fp16.safetensors", "ade20k_labels.txt"
STAMP = "stamp"  # key of a cached file: what its content was made of (see `Teacher.stamp`)


class Teacher:
    """Teacher for ADE20K with 151 classes, "others" first. Its soft maps are cached in files.

    Args:
        folder: holds `ade20k_teacher.py`, a module with `load_teacher`.
        data: folder of pairs; the weights are in `folder`, or in `segmentation` beside `data`.
        cache: folder for the cached maps.
        side: long side in pixels that pictures are resized to.

    Raises:
        ValueError: the module or the weights are missing.
    """

    def __init__(self, folder: Path, data: Path, cache: Path, side: int) -> None:
        code = folder / "ade20k_teacher.py"
        home = next((p for p in (data.parent / "segmentation", folder) if (p / WEIGHTS).is_file()), None)
        spec = importlib.util.spec_from_file_location("ade20k_teacher", code)
        if not code.is_file() or home is None or spec is None or spec.loader is None:
            raise ValueError(f"--teacher {folder}: needs ade20k_teacher.py, and {WEIGHTS} there or beside the data")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        self.net = module.load_teacher(home / WEIGHTS).to(memory_format=torch.channels_last)
        self.home, self.cache, self.side = home, cache, side

    def labels(self) -> list[str]:
        """Names of the 151 classes in their order."""
        return read_labels(self.home / LABELS)

    def __call__(self, picture: Tensor) -> Tensor:
        """(3, H, W) in [0, 1] -> probabilities (151, h, w) as uint8 (255 is 1); h, w: 1/4 of the resized sides."""
        scale = self.side / max(picture.shape[1:])
        rows, columns = (8 * max(1, round(n * scale / 8)) for n in picture.shape[1:])
        x = F.interpolate(picture[None], (rows + 1, columns + 1), mode="bilinear", antialias=True)
        with torch.inference_mode():
            x = x.clamp(0, 1).contiguous(memory_format=torch.channels_last)
            logits = self.net.cls(self.net.features(x))  # (1, 151, rows/4+1, columns/4+1)
            logits = F.interpolate(logits, (rows // 4, columns // 4), mode="bilinear", align_corners=False)
        return (logits[0].softmax(0) * 255).round().to(torch.uint8).clone()

    def remember(self, key: str, pictures: dict[str, np.ndarray]) -> dict[str, Tensor]:
        """Maps of named pictures (H, W, 3) uint8, from the cached file for `key` if it was made of exactly these."""
        path = self.cache / f"teacher-{key}-{self.side}.safetensors"
        stamp = self.stamp(pictures.items())
        if path.is_file() and _stamp_of(path) == stamp:
            return load_file(path)
        todo = tqdm(pictures.items(), f"teacher: {key}", mininterval=10)
        maps = {name: self(to_tensor(pixels)) for name, pixels in todo}
        path.parent.mkdir(parents=True, exist_ok=True)
        # Several processes may write it at once, all with the same content.
        write_atomically(path, save(maps, {STAMP: stamp}))
        return maps

    def stamp(self, pictures: Iterable[tuple[str, np.ndarray]]) -> str:
        """A text that is another one for other names, pixels (uint8) or weights of the teacher."""
        weights = (self.home / WEIGHTS).stat()
        digest = hashlib.sha256(f"{weights.st_size} {weights.st_mtime_ns}".encode())
        for name, pixels in pictures:
            digest.update(f"\0{name}\0{pixels.shape}".encode())
            digest.update(pixels.tobytes())
        return digest.hexdigest()


def _stamp_of(path: Path) -> str | None:
    """The stamp that cached maps were written with; None for those of earlier versions."""
    with safe_open(path, framework="pt") as file:
        return (file.metadata() or {}).get(STAMP)


class Agreement:
    """Pixel accuracy and mean IoU against a reference map, over ADE20K's 150 classes."""

    def __init__(self) -> None:
        self.confusion = torch.zeros(SEMANTIC_CLASSES, SEMANTIC_CLASSES, dtype=torch.long)

    def add(self, probabilities: Tensor, target: Tensor) -> None:
        """Adds one picture: probabilities (1, 150, h, w), and the uint8 target (151, H, W).

        Pixels where the target is "others" are ignored.
        """
        found = resize_map(probabilities.float(), target.shape[1:])[0].argmax(0)
        truth = target.argmax(0) - 1
        known = truth >= 0
        pairs = truth[known] * SEMANTIC_CLASSES + found[known]
        self.confusion += torch.bincount(pairs, minlength=self.confusion.numel()).view_as(self.confusion)

    def scores(self, prefix: str) -> dict[str, float]:
        """{prefix_agreement: pixel accuracy, prefix_miou: mean IoU}, both 0..1."""
        hits, truth = self.confusion.diagonal().double(), self.confusion.sum(1).double()
        union = truth + self.confusion.sum(0) - hits
        present = truth > 0
        iou = (hits[present] / union[present]).mean()
        agreement = hits.sum() / truth.sum()
        return {f"{prefix}_agreement": round(float(agreement), 4), f"{prefix}_miou": round(float(iou), 4)}
