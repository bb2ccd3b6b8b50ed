"""What the segmenters know in the dark: the table of the model card.

    python -m tests.benchmarks.semantics PHOTOS MASKS GROUPS.tsv [--every N] [--lights N ...] [--boundaries]

PHOTOS: JPEG files; MASKS: PNG files of their names, whose pixels are numbers of classes; GROUPS.tsv: columns group,
coco_ids, ade20k_names, each a list with commas. Pixels of other classes are left out. Each photograph is darkened to
1/N of its light with a small sensor's noise; the seed is its index. Mean IoU and accuracy over the groups; boundary
F-score within 3 pixels at the picture's size, the mean over the groups of each picture. "Not refined": the map
enlarged as it is, not along the edges of what the segmenter saw.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from jores.checkpoint import FORMER_SEGMENTER, SHIPPED_SEGMENTER, SHIPPED_WEIGHTS, load_bundle
from jores.conditions import SemanticPrior
from jores.pipeline import segment
from jores.semantics import at_full_size, load_segmenter
from jores.training.convert import to_tensor
from jores.training.darkening import Darkening
from jores.training.pairs import read_rgb

SHOWN = ("person", "sky", "tree")
TOLERANCE = 3  # pixels
DISC = np.hypot(*np.mgrid[-TOLERANCE : TOLERANCE + 1, -TOLERANCE : TOLERANCE + 1]) <= TOLERANCE
SHORTEST = 20  # pixels of a boundary that count


@dataclass
class Groups:
    """Names, the group of each number in a mask (-1: none), and the group of each of a segmenter's classes."""

    names: list[str]
    of_mask: np.ndarray
    of_class: list[list[int]]

    @classmethod
    def read(cls, path: Path, labels: tuple[str, ...]) -> Groups:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
        of_mask = np.full(256, -1)
        for i, row in enumerate(rows):
            of_mask[[int(n) for n in row["coco_ids"].split(",")]] = i
        words = [{name.split()[0] for name in row["ade20k_names"].split(",")} for row in rows]
        return cls([r["group"] for r in rows], of_mask, [[i for i, x in enumerate(labels) if x in w] for w in words])

    def maps(self, prior: SemanticPrior) -> Tensor:
        """(groups, H, W)"""
        return at_full_size(prior, torch.stack([prior.probabilities[:, c].sum(1) for c in self.of_class], 1))[0]


@dataclass
class Tally:
    """Confusion of the groups, and boundary F-scores."""

    count: int
    confusion: np.ndarray = field(init=False)
    rims: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.confusion = np.zeros((self.count, self.count), np.int64)

    def add(self, groups: Groups, prior: SemanticPrior, truth: np.ndarray, boundaries: bool) -> None:
        found, known = groups.maps(prior).argmax(0).numpy(), truth >= 0
        counts = np.bincount(truth[known] * self.count + found[known], minlength=self.count**2)
        self.confusion += counts.reshape(self.count, self.count)
        if boundaries:
            self.rims += boundary_scores(found, truth)

    def figures(self, names: list[str]) -> list[float]:
        right, there = np.diag(self.confusion), self.confusion.sum(1)
        iou = right / np.maximum(1, there + self.confusion.sum(0) - right)
        shown = [iou[names.index(name)] for name in SHOWN]
        rims = float(np.mean(self.rims)) if self.rims else float("nan")
        return [float(iou[there > 0].mean()), float(right.sum() / max(1, there.sum())), *map(float, shown), rims]


def boundary(mask: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Pixels next to one on the other side of a mask's rim, both of them known."""
    rim = np.zeros_like(mask)
    for a, b in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        crossing = (mask[a] != mask[b]) & known[a] & known[b]
        rim[a] |= crossing
        rim[b] |= crossing
    return rim


def near(rim: np.ndarray) -> np.ndarray:
    """Pixels within TOLERANCE of a rim."""
    (height, width), padded = rim.shape, np.pad(rim, TOLERANCE)
    found = np.zeros_like(rim)
    for y, x in np.argwhere(DISC):
        found |= padded[y : y + height, x : x + width]
    return found


def boundary_scores(found: np.ndarray, truth: np.ndarray) -> list[float]:
    """F-score of each group that the truth shows with a rim."""
    known, scores = truth >= 0, []
    for group in np.unique(truth[known]):
        wanted, made = boundary(truth == group, known), boundary(found == group, known)
        if wanted.sum() < SHORTEST:
            continue
        hit, covered = (made & near(wanted)).sum(), (wanted & near(made)).sum()
        precision, recall = hit / max(1, made.sum()), covered / wanted.sum()
        scores.append(float(2 * precision * recall / max(1e-9, precision + recall)))
    return scores


@torch.inference_mode()
def measure(
    photos: Path, masks: Path, table: Path, every: int, lights: list[int], boundaries: bool = False
) -> dict[tuple[str, str], list[float]]:
    """The figures by (row, light)."""
    nets, former, shipped = load_bundle(SHIPPED_WEIGHTS), *map(load_segmenter, (FORMER_SEGMENTER, SHIPPED_SEGMENTER))
    groups = Groups.read(table, shipped.labels)
    tallies: dict[tuple[str, str], Tally] = {}

    def add(row: str, light: str, truth: np.ndarray, prior: SemanticPrior) -> None:
        tallies.setdefault((row, light), Tally(len(groups.names))).add(groups, prior, truth, boundaries)

    for i, path in enumerate(sorted(masks.glob("*.png"))):
        if i % every:
            continue
        with Image.open(path) as image:
            truth = groups.of_mask[np.asarray(image)]
        light = to_tensor(read_rgb(photos / f"{path.stem}.jpg"))
        add("shipped, as it is", "full", truth, shipped(light[None]))
        for share in lights:
            darkening = Darkening(1 / share, 0.0008, 0.003, (0.95, 1.0, 1.06))
            dark = darkening(light, torch.Generator().manual_seed(i))[None]
            lit = segment(shipped, dark, nets)
            add("former, brightened", f"1/{share}", truth, former(dark))
            add("shipped, brightened", f"1/{share}", truth, shipped(dark))
            add("shipped, lit by ANet, not refined", f"1/{share}", truth, replace(lit, seen=None))
            add("shipped, lit by ANet", f"1/{share}", truth, lit)
    return {key: tally.figures(groups.names) for key, tally in tallies.items()}


def main(argv: list[str] | None = None, write: Callable[[str], object] = sys.stdout.write) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("photos", "masks", "groups"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only every Nth photograph")
    parser.add_argument("--lights", type=int, nargs="+", default=[20, 50, 100])
    parser.add_argument("--boundaries", action="store_true", help="boundary F-scores, too")
    args = parser.parse_args(argv)
    made = measure(args.photos, args.masks, args.groups, args.every, args.lights, args.boundaries)
    write("| segmenter sees | light | mIoU | accuracy | " + " | ".join(SHOWN) + " | boundary F |\n")
    write("|---" * (5 + len(SHOWN)) + "|\n")
    for row in dict.fromkeys(row for row, _light in made):
        here = {light: figures for (name, light), figures in made.items() if name == row}
        if len(here) > 1:
            here["mean"] = [float(np.mean(values)) for values in zip(*here.values(), strict=True)]
        for light, figures in here.items():
            write(f"| {row} | {light} | " + " | ".join("" if f != f else f"{f:.3f}" for f in figures) + " |\n")


if __name__ == "__main__":
    main()
