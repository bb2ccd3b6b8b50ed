"""Pairs of a dark and a well-lit picture: from a table, or from two folders by file name."""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from pathlib import Path
from typing import NamedTuple

from .pictures import find_images


class PairFiles(NamedTuple):
    """Name and paths of a pair; `high`, the ground truth, may be missing."""

    name: str
    low: Path
    high: Path | None = None


class NoPairError(ValueError):
    """A table has no pair in a split."""


def pairs_of_table(table: Path, split: str) -> list[PairFiles]:
    """The pairs of `rows_of_table`, with paths relative to the table resolved. Raises ValueError, as it does."""
    rows = rows_of_table(table, split)
    return [PairFiles(row["id"], table.parent / row["low"], table.parent / row["high"]) for row in rows]


def rows_of_table(table: Path, split: str) -> list[dict[str, str]]:
    """Rows of a tab-separated table with the columns id, split, low and high (paths relative to the table).

    Args:
        split: name of a split, or "all".

    Raises:
        ValueError: a column is missing, in all rows or in one.
        NoPairError: the split has no pair.
        OSError: the table cannot be read.
    """
    with table.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, delimiter="\t")
        if not {"id", "split", "low", "high"} <= set(reader.fieldnames or ()):
            raise ValueError(f"{table}: needs the columns id, split, low and high, separated by tabs")
        rows = list(reader)
    short = next((row for row in rows if None in (row["id"], row["split"], row["low"], row["high"])), None)
    if short is not None:
        raise ValueError(f"{table}: the row of {short['id']!r} ends before the columns split, low and high")
    rows = [row for row in rows if split in ("all", row["split"])]
    if not rows:
        raise NoPairError(f"{table}: no pair in split {split!r}")
    return rows


def pairs_of_folders(low: Path, high: Path | None = None) -> list[PairFiles]:
    """Pairs by file name: every picture in `low` needs one in `high` with the same name, apart from the suffix.

    One with the same suffix, too, goes before others. Without `high` the pairs have no ground truth.

    Raises:
        ValueError: a folder holds no picture, or a dark picture has no ground truth, or several.
    """
    dark = find_images([low])
    if high is None:
        return [PairFiles(path.stem, path) for path in dark]
    references, by_stem = find_images([high]), defaultdict(list)
    for path in references:
        by_stem[path.stem].append(path)
    by_name = {path.name: [path] for path in references}
    fits = [by_name.get(path.name) or by_stem[path.stem] for path in dark]
    for wrong, number in ((0, "no"), (2, "more than one")):
        lonely = [path.name for path, found in zip(dark, fits, strict=True) if min(len(found), 2) == wrong]
        if lonely:
            raise ValueError(f"{high}: holds {number} ground truth for {', '.join(lonely[:5])} of {low}")
    alike = Counter(path.stem for path in dark)
    return [
        PairFiles(path.stem if alike[path.stem] == 1 else path.name, path, found[0])
        for path, found in zip(dark, fits, strict=True)
    ]
