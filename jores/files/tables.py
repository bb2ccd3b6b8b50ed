"""Pairs of a dark and a well-lit picture: from a table, or from two folders by file name."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import NamedTuple

from .pictures import find_images


class Pair(NamedTuple):
    """Name and paths of a pair; `high`, the ground truth, may be missing."""

    name: str
    low: Path
    high: Path | None = None


class NoPairError(ValueError):
    """A table has no pair in a split."""


def pairs_of_table(table: Path, split: str) -> list[Pair]:
    """The pairs of `rows_of_table`, with paths relative to the table resolved. Raises ValueError, as it does."""
    rows = rows_of_table(table, split)
    return [Pair(row["id"], table.parent / row["low"], table.parent / row["high"]) for row in rows]


def rows_of_table(table: Path, split: str) -> list[dict[str, str]]:
    """Rows of a tab-separated table with the columns id, split, low and high (paths relative to the table).

    Args:
        split: name of a split, or "all".

    Raises:
        ValueError: a column is missing.
        NoPairError: the split has no pair.
        OSError: the table cannot be read.
    """
    with table.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file, delimiter="\t")
        if not {"id", "split", "low", "high"} <= set(reader.fieldnames or ()):
            raise ValueError(f"{table}: needs the columns id, split, low and high, separated by tabs")
        rows = [row for row in reader if split in ("all", row["split"])]
    if not rows:
        raise NoPairError(f"{table}: no pair in split {split!r}")
    return rows


def pairs_of_folders(low: Path, high: Path | None = None) -> list[Pair]:
    """Pairs by file name: every picture in `low` needs one in `high` with the same name, apart from the suffix.

    Without `high` the pairs have no ground truth.

    Raises:
        ValueError: a folder holds no picture, or a dark picture has no ground truth.
    """
    dark = find_images([low])
    if high is None:
        return [Pair(path.stem, path) for path in dark]
    references = {path.stem: path for path in find_images([high])}
    lonely = [path.name for path in dark if path.stem not in references]
    if lonely:
        raise ValueError(f"{high}: holds no ground truth for {', '.join(lonely[:5])} of {low}")
    return [Pair(path.stem, path, references[path.stem]) for path in dark]
