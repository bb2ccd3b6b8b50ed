"""Pairs of training pictures, read once into memory as uint8."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor, nn

from ..files.tables import rows_of_table
from .convert import to_tensor


@dataclass
class Pair:
    """One scene, (H, W, 3) uint8 each; `low` is None for a photograph that is darkened on the fly."""

    name: str
    high: np.ndarray
    low: np.ndarray | None = None
    semantics: np.ndarray | None = None  # (150, h, w) uint8 class map of the whole picture, for the diffusion stage

    @property
    def dark(self) -> np.ndarray:
        """`low`. Raises ValueError for a photograph, which has none."""
        if self.low is None:
            raise ValueError(f"{self.name} has no dark picture")
        return self.low


def read_rgb(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def in_threads(function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
    """What `function` makes of each item, in their order; for work that lets other threads run, as Pillow's and
    PyTorch's does."""
    with ThreadPoolExecutor() as threads:
        return list(threads.map(function, items))


def load_pairs(root: Path, split: str, max_shift: float = 2.0) -> list[Pair]:
    """LOL pairs of one split ("train", "val"; "all"), without training pairs misaligned by over `max_shift` px."""
    table = Path(root) / "pairs.tsv"
    if not table.is_file():
        raise ValueError(f"{table} not found: --data must name a folder with pairs.tsv, low/ and high/")
    rows = rows_of_table(table, split)
    if split != "val":
        rows = [r for r in rows if _shift(r) <= max_shift]
    low, high = (in_threads(read_rgb, [table.parent / row[key] for row in rows]) for key in ("low", "high"))
    return [Pair(row["id"], light, dark) for row, light, dark in zip(rows, high, low, strict=True)]


def _shift(row: dict[str, str]) -> float:
    """By how many pixels the two pictures are off each other; 0 where the table does not say."""
    return max(abs(float(row.get(key) or 0)) for key in ("shift_dx", "shift_dy"))


def load_photos(folder: Path) -> list[Pair]:
    paths = sorted(p for p in Path(folder).iterdir() if p.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp"))
    return [Pair(path.stem, pixels) for path, pixels in zip(paths, in_threads(read_rgb, paths), strict=True)]


def both_pictures(pair: Pair, net: nn.Module) -> tuple[Tensor, Tensor]:
    """The dark and the light one, (1, 3, H, W) each, where the net's weights are."""
    device = next(net.parameters()).device
    return to_tensor(pair.dark)[None].to(device), to_tensor(pair.high)[None].to(device)
