"""Stage "segmenter": distils a small SegFormer from a teacher that sees the same scene well lit.

The teacher labels every well-lit picture once. The student gets the dark picture, prepared as at inference, and learns
the teacher's soft map. So its maps depend little on the brightness.
"""

from __future__ import annotations

import argparse
import copy
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from ..config import SEMANTIC_CLASSES
from ..files.records import without_nan
from ..files.saving import swap_folder, write_atomically
from ..imaging.exposure import brighten
from ..nets.layout import in_layout
from ..nets.segmentation import Segmenter, prepare
from ..semantics import trainable_model
from .convert import to_pixels, to_tensor
from .darkening import Darkening
from .data import seeded
from .pairs import Pair, load_pairs, load_photos
from .teacher import STAMP, Agreement, Teacher

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PALETTE_SEED = 7


@dataclass
class Scene:
    """A pair, and the teacher's map of its well-lit picture: probabilities (151, h, w) as uint8 (255 is 1)."""

    pair: Pair
    target: Tensor


class DistillationObjective(nn.Module):
    """Cross-entropy with the teacher's soft map over 151 classes: ADE20K's 150 and "others"."""

    def __init__(self, net: PreTrainedModel) -> None:
        super().__init__()
        self.net = net

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        logits = self.net(pixel_values=batch["picture"]).logits.float()  # (B, 151, h, w)
        target = batch["target"]
        loss = -(target * logits.log_softmax(1)).sum(1).mean()
        agreement = (logits.argmax(1) == target.argmax(1)).float().mean()
        return {"loss": loss, "agreement": agreement}


class DistillSegmenter:
    """Stage "segmenter".

    Parts of the recipe: `student` holds fields of SegformerConfig. `data` holds `height` and `width` of the student's
    input, `batch`, `photo_share`, `teacher_side` (long side of the teacher's input in pixels) and `val_photos` (how
    many photographs of the "val" folder are used for scores; the student is trained on the rest). `--init` is the
    folder of an earlier student to continue from.

    Raises:
        ValueError: --teacher is missing, or --init, --photos and the teacher cannot be used.
    """

    name, best_score = "segmenter", "agreement"

    def __init__(self, args: argparse.Namespace, recipe: dict[str, Any]) -> None:
        if not args.teacher:
            raise ValueError("--stage segmenter needs --teacher: the folder with ade20k_teacher.py")
        self.data = recipe["data"]
        self.teacher = Teacher(args.teacher, args.data[0], args.out, self.data["teacher_side"])
        labels = self.teacher.labels()
        student = load_student(args.init, len(labels)) if args.init else build_student(labels, recipe["student"])
        self.objective = DistillationObjective(student)
        self.pairs, self.photos = self._scenes("pairs", load_pairs(args.data[0], args.split)), []
        val = {"lol": load_pairs(args.data[0], "val")}
        if args.photos:
            others, kept = load_photos(_validation_folder(args.photos)), self.data["val_photos"]
            val["photos"] = darkened(others[:kept])
            self.photos = self._scenes("photos", load_photos(args.photos))
            self.photos += self._scenes("more-photos", others[kept:])
        self.val = {key: self._scenes(f"val-{key}", pairs) for key, pairs in val.items()}
        self.reference: dict[str, float] = {}
        for key, scenes in self.val.items():
            self.reference.update(self._teacher_in_the_dark(key, scenes))

    def _scenes(self, key: str, pairs: list[Pair]) -> list[Scene]:
        """Runs the teacher once per distinct well-lit picture, because many pairs share one."""
        first: dict[bytes, str] = {}
        names = [first.setdefault(pair.high.tobytes(), pair.name) for pair in pairs]
        distinct = {pair.name: pair.high for pair, name in zip(pairs, names, strict=True) if pair.name == name}
        maps = self.teacher.remember(key, distinct)
        return [Scene(pair, maps[name]) for pair, name in zip(pairs, names, strict=True)]

    def batch(self, rng: np.random.Generator) -> dict[str, Tensor]:
        """One batch: picture (B, 3, H, W), normalised (see `prepare`); target (B, 151, H/4, W/4), probabilities."""
        samples = [self._sample(rng) for _ in range(self.data["batch"])]
        return {key: torch.cat([s[key] for s in samples]) for key in samples[0]}

    def _sample(self, rng: np.random.Generator) -> dict[str, Tensor]:
        share = self.data["photo_share"] if self.photos else 0.0
        source = self.photos if rng.random() < share else self.pairs
        scene = source[rng.integers(len(source))]
        height, width = self.data["height"], self.data["width"]
        top, left, rows, columns = _box(scene.pair.high.shape, height / width, rng)
        window = slice(top, top + rows), slice(left, left + columns)
        if scene.pair.low is not None and rng.random() < 0.7:
            picture = to_tensor(scene.pair.low[window])
        else:
            noise = seeded(rng)
            picture = Darkening.draw(rng)(to_tensor(scene.pair.high[window]), noise)
        picture = prepare(picture[None], (height, width))
        target = _cut(scene.target, (top, left, rows, columns), scene.pair.high.shape, (height // 4, width // 4))
        if rng.random() < 0.5:
            picture, target = picture.flip(3), target.flip(3)
        return {"picture": picture, "target": target}

    def validate(self, objective: DistillationObjective) -> tuple[dict[str, float], list[Tensor]]:
        """Scores against the teacher's maps of the well-lit pictures: of the student and, for comparison, of the
        teacher on the dark pictures."""
        segmenter, scores, rows = Segmenter(objective.net), {}, []
        for key, scenes in self.val.items():
            tally = Agreement()
            for i, scene in enumerate(scenes):
                low = to_tensor(scene.pair.dark)[None]
                found = segmenter(low).probabilities
                tally.add(found, scene.target)
                if i % 9 == 0:
                    rows.append(_row(low, found[0], scene.target[1:]))
            scores.update(tally.scores(f"{key}_student"))
        scores["agreement"] = float(np.mean([scores[f"{key}_student_agreement"] for key in self.val]))
        return {**scores, **self.reference}, rows

    def _teacher_in_the_dark(self, key: str, scenes: list[Scene]) -> dict[str, float]:
        """Scores of the teacher on the dark pictures, unchanged and brightened. Computed once and cached in a file."""
        path = self.teacher.cache / f"teacher-{key}-{self.teacher.side}-dark.json"
        seen = [(scene.pair.name, pixels) for scene in scenes for pixels in (scene.pair.high, scene.pair.dark)]
        stamp = self.teacher.stamp(seen)
        if path.is_file():
            cached = json.loads(path.read_text(encoding="utf-8"))
            if cached.pop(STAMP, None) == stamp:
                return cached
        raw, bright = Agreement(), Agreement()
        for scene in tqdm(scenes, f"teacher in the dark: {key}", mininterval=10):
            low = to_tensor(scene.pair.dark)
            raw.add(self.teacher(low)[None, 1:], scene.target)
            bright.add(self.teacher(brighten(low[None])[0])[None, 1:], scene.target)
        scores = {**raw.scores(f"{key}_teacher_dark"), **bright.scores(f"{key}_teacher_brightened")}
        write_atomically(path, json.dumps(without_nan({**scores, STAMP: stamp})).encode())
        return scores

    def export(self, objective: DistillationObjective, path: Path, record: dict[str, Any]) -> None:
        """Writes a Hugging Face folder in float16. An older one is replaced only when the new one is complete."""
        net = in_layout(copy.deepcopy(objective.net).half(), torch.contiguous_format)
        net.config.training = json.dumps(without_nan(record))
        folder = path.with_suffix("")
        new = folder.with_name(f"{folder.name}.new")
        shutil.rmtree(new, ignore_errors=True)
        net.save_pretrained(new, safe_serialization=True)
        swap_folder(new, folder)


def load_student(folder: Path, classes: int) -> PreTrainedModel:
    """An exported student, to continue its training. Raises ValueError that names the folder."""
    net = trainable_model(folder).requires_grad_(True)
    if net.config.num_labels != classes:
        raise ValueError(f"--init {folder}: {net.config.num_labels} classes, the teacher has {classes}")
    return net


def build_student(labels: list[str], options: dict[str, Any]) -> PreTrainedModel:
    """A SegFormer with newly initialised weights and the teacher's classes."""
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    names = dict(enumerate(labels))
    config = SegformerConfig(id2label=names, label2id={v: k for k, v in names.items()}, **options)
    net = SegformerForSemanticSegmentation(config)
    net.apply(_scale_weights)
    return net


def _scale_weights(module: nn.Module) -> None:
    """Variance-preserving initial weights: transformers' default, 0.02 everywhere, trains slowly from scratch."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        module.weight.data.mul_(module.groups**0.5)  # fan_out counts the outputs of all groups
    elif isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)


def darkened(photos: list[Pair]) -> list[Pair]:
    """Adds a dark picture to each photograph, the same one in every run. Changes and returns `photos`."""
    for i, photo in enumerate(photos):
        rng, noise = np.random.default_rng(i), torch.Generator().manual_seed(i)
        dark = Darkening.draw(rng)(to_tensor(photo.high), noise)
        photo.low = to_pixels(dark)
    return photos


def _validation_folder(photos: Path) -> Path:
    """coco_val128 for coco_train128: a "train" folder has a "val" folder beside it."""
    folder = photos.with_name(photos.name.replace("train", "val"))
    if folder == photos or not folder.is_dir():
        raise ValueError(f"--photos {photos}: expected a folder with 'train' in its name and one with 'val' beside it")
    return folder


def _box(shape: tuple[int, ...], aspect: float, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """(top, left, rows, columns) of a random crop whose rows / columns are within 10 % of `aspect`."""
    height, width = shape[:2]
    columns = min(width, height / aspect) * rng.uniform(0.6, 1.0)
    rows = min(height, columns * aspect * rng.uniform(0.9, 1.1))
    rows, columns = max(8, int(rows)), max(8, int(columns))
    return int(rng.integers(height - rows + 1)), int(rng.integers(width - columns + 1)), rows, columns


def _cut(target: Tensor, box: tuple[int, int, int, int], shape: tuple[int, ...], size: tuple[int, int]) -> Tensor:
    """The part of a uint8 map (151, h, w) under a crop of the picture, resized to (1, 151, *size); classes sum to 1."""
    top, left, rows, columns = box
    height, width = shape[:2]
    x, y = (2 * left + columns) / width - 1, (2 * top + rows) / height - 1  # centre of the crop, in -1..1
    transform = torch.tensor([[columns / width, 0, x], [0, rows / height, y]])
    grid = F.affine_grid(transform[None], [1, 1, *size], align_corners=False)
    cut = F.grid_sample(target[None].float(), grid, mode="bilinear", padding_mode="border", align_corners=False)
    return cut / cut.sum(1, keepdim=True).clamp_min(1)


def _row(low: Tensor, found: Tensor, target: Tensor) -> Tensor:
    """Brightened input, student's map and teacher's map side by side, 96x128 pixels each (height x width)."""
    colours = torch.rand(SEMANTIC_CLASSES, 3, generator=torch.Generator().manual_seed(PALETTE_SEED))
    shown = [brighten(low)[0]] + [colours[m.argmax(0)].permute(2, 0, 1) for m in (found, target)]
    return torch.cat([F.interpolate(s[None], (96, 128), mode="nearest")[0] for s in shown], 2)
