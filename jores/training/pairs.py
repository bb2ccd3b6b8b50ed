"""Pairs of training pictures, read once into memory as uint8."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from ..files.pictures import read_image
from ..files.tables import NoPairError, rows_of_table
from .convert import to_pixels, to_tensor


@dataclass
class Pair:
    """The well-lit picture `high` and the dark picture `low` of one scene, (H, W, 3) uint8 each.

    `low` is None for a photograph that is darkened on the fly. `kind` is the name of the set, followed by "lit in part"
    or "dark" where the table says how much of the dark picture is lit (see `kind_of`). `weight` is proportional to the
    probability of drawing the pair. `group` is the place of its set among those of --data.
    """

    name: str
    high: np.ndarray
    low: np.ndarray | None = None
    semantics: np.ndarray | Callable[[], np.ndarray] | None = None  # see `class_map`
    kind: str = ""
    scene: str = ""
    weight: float = 1.0
    group: int = 0

    @property
    def dark(self) -> np.ndarray:
        """`low`. Raises ValueError for a photograph, which has none."""
        if self.low is None:
            raise ValueError(f"{self.name} has no dark picture")
        return self.low

    def class_map(self) -> np.ndarray | None:
        """(150, h, w) uint8 class map of the full picture for stage "diffuse", computed at the first call; or None."""
        if callable(self.semantics):
            self.semantics = self.semantics()
        return self.semantics


def read_rgb(path: Path) -> np.ndarray:
    """(H, W, 3) uint8, read and rounded from any file that `read_image` reads. Raises ValueError, as it does."""
    return np.ascontiguousarray(to_pixels(read_image(path).pixels[:3]))


def in_threads(function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
    """`function` of each item, in their order, computed by a thread pool.

    Useful for functions that release the GIL, as Pillow's and PyTorch's do.
    """
    with ThreadPoolExecutor() as threads:
        return list(threads.map(function, items))


MAX_SHIFT = 2.0  # px
LIT_IN_PART = 0.05  # lit_share (pixels with a luma above 115) above which a dark picture counts as lit in part


def load_pairs(source: Path, split: str, max_shift: float = MAX_SHIFT) -> list[Pair]:
    """The pairs of one split: "train", "val" or "all".

    Unless the split is "val", pairs that are misaligned by more than `max_shift` pixels are left out. `source` is a
    table, or a folder with a `pairs.tsv`.

    Raises:
        ValueError: there is no table, it cannot be used (see `rows_of_table`), a picture cannot be read, the two of a
            pair differ in size, or all pairs are left out.
        OSError: the table cannot be read.
    """
    source = Path(source)
    table = source / "pairs.tsv" if source.is_dir() else source
    if not table.is_file():
        raise ValueError(f"{table} not found: --data must name tables, or folders with pairs.tsv, low/ and high/")
    rows = rows_of_table(table, split)
    if split != "val":
        rows = _aligned(table, rows, max_shift)
    paths = {key: sorted({row[key] for row in rows}) for key in ("low", "high")}
    read = {
        key: dict(zip(names, in_threads(read_rgb, [table.parent / name for name in names]), strict=True))
        for key, names in paths.items()
    }
    for row in rows:
        low, high = (read[key][row[key]] for key in ("low", "high"))
        if low.shape != high.shape:
            sizes = " and ".join(f"{x.shape[1]}x{x.shape[0]}" for x in (low, high))
            raise ValueError(f"{table}: {row['low']} and {row['high']} differ in size: {sizes}")
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
    """The pairs of several sets, weighted so that each set is drawn as often as its entry in `shares` says.

    None: every pair has the same probability. `split` and `max_shift`: see `load_pairs`.

    Raises:
        ValueError: `shares` has another length than `sources`; see also `load_pairs`.
    """
    sets = [load_pairs(source, split, max_shift) for source in sources]
    shares = shares if shares is not None else [len(pairs) for pairs in sets]
    if len(shares) != len(sets):
        raise ValueError(
            f"the recipe has set_shares for {len(shares)} sets, --data names {len(sets)}: name as many, or write a "
            "recipe with set_shares: null"
        )
    for group, (pairs, share) in enumerate(zip(sets, shares, strict=True)):
        for pair in pairs:
            pair.weight, pair.group = share / len(pairs), group
    return [pair for pairs in sets for pair in pairs]


def validation_pairs(sources: list[Path]) -> list[Pair]:
    """The pairs with split=val of all sets. A set may have none, but not every set. Raises ValueError."""
    found = []
    for source in sources:
        with suppress(NoPairError):
            found += load_pairs(source, "val")
    if not found:
        raise ValueError("no set of --data has pairs with split=val: name one that does, to validate on")
    return found


def kind_of(table: Path, row: dict[str, str]) -> str:
    """Kind of a row's pair: the folder's name, then a suffix.

    The suffix is the table's name unless that is `pairs`; otherwise "lit in part" or "dark" if the row has a
    `lit_share`, or nothing.
    """
    name = table.resolve().parent.name
    if table.stem != "pairs":
        return f"{name} {table.stem}"
    if not row.get("lit_share"):
        return name
    return f"{name} {'lit in part' if _number(table, row, 'lit_share') > LIT_IN_PART else 'dark'}"


def half_by_scene(pairs: list[Pair], which: int) -> list[Pair]:
    """Every second scene: half 0 selects the best weights during training, half 1 is for reported scores.

    The scenes of all sets are counted together, so one set alone is halved otherwise than beside others.
    """
    scenes = sorted({pair.scene or pair.name for pair in pairs})
    return [pair for pair in pairs if scenes.index(pair.scene or pair.name) % 2 == which]


def _aligned(table: Path, rows: list[dict[str, str]], max_shift: float) -> list[dict[str, str]]:
    """The rows whose pictures are off each other by no more than `max_shift`. Raises ValueError if that is none."""
    kept = [row for row in rows if _shift(table, row) <= max_shift]
    if not kept:
        raise ValueError(
            f"{table}: all {len(rows)} of {len(rows)} pairs are off by more than max_shift, {max_shift:g} pixels, and "
            "left out: leave this set out of --data, or write a larger max_shift into the recipe's data"
        )
    return kept


def _shift(table: Path, row: dict[str, str]) -> float:
    """Misalignment of the two pictures in pixels; 0 if the table does not have it."""
    return max(abs(_number(table, row, key)) for key in ("shift_dx", "shift_dy"))


def _number(table: Path, row: dict[str, str], column: str) -> float:
    """The number in a cell; 0 for an empty one. Raises ValueError that names table, row and column."""
    try:
        value = float(row.get(column) or 0)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{table}: the row of {row['id']!r} has {row[column]!r} in {column}, which is no number")
    return value


def load_photos(folder: Path) -> list[Pair]:
    """All photographs directly in a folder (no subfolders). Raises ValueError if there are none."""
    paths = sorted(p for p in Path(folder).iterdir() if p.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp"))
    if not paths:
        raise ValueError(
            f"--photos {folder}: no photograph (JPEG, PNG or WebP) directly in this folder; subfolders are not read"
        )
    return [Pair(path.stem, pixels) for path, pixels in zip(paths, in_threads(read_rgb, paths), strict=True)]


def both_pictures(pair: Pair, net: nn.Module) -> tuple[Tensor, Tensor]:
    """The dark and the well-lit picture, (1, 3, H, W) in [0, 1] each, on the device of the net."""
    device = next(net.parameters()).device
    return to_tensor(pair.dark)[None].to(device), to_tensor(pair.high)[None].to(device)
