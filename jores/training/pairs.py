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
    """One scene, (H, W, 3) uint8 each; `low` is None for a photograph that is darkened on the fly.

    `kind` names the set, and in sets that say how much of a picture is lit, whether it is "lit in part" or "dark".
    `weight` is how often the pair is drawn beside others.
    """

    name: str
    high: np.ndarray
    low: np.ndarray | None = None
    semantics: np.ndarray | None = None  # (150, h, w) uint8 class map of the whole picture, for the diffusion stage
    kind: str = ""
    scene: str = ""
    weight: float = 1.0

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


MAX_SHIFT = 2.0  # px
LIT_IN_PART = 0.05  # share of a dark picture above luma 115 from which it counts as lit in part


def load_pairs(source: Path, split: str, max_shift: float = MAX_SHIFT) -> list[Pair]:
    """The pairs of one split ("train", "val"; "all"), without training pairs misaligned by over `max_shift` px.

    `source` is a table, or a folder whose `pairs.tsv` is meant.
    """
    source = Path(source)
    table = source / "pairs.tsv" if source.is_dir() else source
    if not table.is_file():
        raise ValueError(f"{table} not found: --data must name tables, or folders with pairs.tsv, low/ and high/")
    rows = rows_of_table(table, split)
    if split != "val":
        rows = [r for r in rows if _shift(r) <= max_shift]
    paths = {key: sorted({row[key] for row in rows}) for key in ("low", "high")}
    read = {
        key: dict(zip(names, in_threads(read_rgb, [table.parent / name for name in names]), strict=True))
        for key, names in paths.items()
    }
    return [
        Pair(
            row["id"],
            read["high"][row["high"]],
            read["low"][row["low"]],
            kind=kind_of(table, row),
            scene=row.get("scene") or "",
        )
        for row in rows
    ]


def load_sets(
    sources: list[Path], split: str, shares: list[float] | None = None, max_shift: float = MAX_SHIFT
) -> list[Pair]:
    """The pairs of several sets, each weighted so that its set is drawn as often as `shares` says (None: all alike).
    `max_shift` as in `load_pairs`."""
    sets = [load_pairs(source, split, max_shift) for source in sources]
    shares = shares if shares is not None else [len(pairs) for pairs in sets]
    if len(shares) != len(sets):
        raise ValueError(
            f"the recipe has set_shares for {len(shares)} sets, --data names {len(sets)}: name as many, or write a "
            "recipe with set_shares: null"
        )
    for pairs, share in zip(sets, shares, strict=True):
        for pair in pairs:
            pair.weight = share / len(pairs)
    return [pair for pairs in sets for pair in pairs]


def kind_of(table: Path, row: dict[str, str]) -> str:
    """The name of the set; with the table's own where that is not `pairs`, or else with how the picture is lit, where
    the table says it."""
    name = table.resolve().parent.name
    if table.stem != "pairs":
        return f"{name} {table.stem}"
    if not row.get("lit_share"):
        return name
    return f"{name} {'lit in part' if float(row['lit_share']) > LIT_IN_PART else 'dark'}"


def half_by_scene(pairs: list[Pair], which: int) -> list[Pair]:
    """Every other scene of each kind's: 0 for the half that weights are chosen by, 1 for the half that is reported."""
    scenes = sorted({pair.scene or pair.name for pair in pairs})
    return [pair for pair in pairs if scenes.index(pair.scene or pair.name) % 2 == which]


def _shift(row: dict[str, str]) -> float:
    """By how many pixels the two pictures are off each other; 0 where the table does not say."""
    return max(abs(float(row.get(key) or 0)) for key in ("shift_dx", "shift_dy"))


def load_photos(folder: Path) -> list[Pair]:
    """Every photograph right inside a folder. Raises ValueError where there is none: training would go on without."""
    paths = sorted(p for p in Path(folder).iterdir() if p.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp"))
    if not paths:
        raise ValueError(f"--photos {folder}: no photograph right inside this folder (JPEG, PNG or WebP)")
    return [Pair(path.stem, pixels) for path, pixels in zip(paths, in_threads(read_rgb, paths), strict=True)]


def both_pictures(pair: Pair, net: nn.Module) -> tuple[Tensor, Tensor]:
    """The dark and the light one, (1, 3, H, W) each, where the net's weights are."""
    device = next(net.parameters()).device
    return to_tensor(pair.dark)[None].to(device), to_tensor(pair.high)[None].to(device)
