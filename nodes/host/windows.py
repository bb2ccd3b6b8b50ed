"""Big pictures: the choice of the tile, and the host's conditioning cropped to a window."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from typing import Any

import comfy.conds
import comfy.model_management as mm
from torch import Tensor

from ...jores.budget import pipeline_bytes
from ...jores.config import JoReSConfig
from ...jores.tiling.memory import MAIN_MEMORY, auto_tile
from ...jores.tiling.tiler import Tiler
from ...jores.tiling.windows import Window

TILE_KEY = "jores_tile"  # in the conditioning's dictionary: side of the tiles in pixels, when sampling in tiles
MEAN_KEY = "jores_mean"  # in the model's transformer options: x0 is to be R' x L'
CUT_KEY = "jores_cut"  # in the model's transformer options: the input is a tile
TILED_KEY = "jores_tiled"  # in the model's transformer options: the input is a tile, or fits into memory


def tiler_of(tile: int, config: JoReSConfig, size: tuple[int, int], batch: int = 1) -> Tiler:
    """The Tiler for `batch` pictures of `size` (H, W); `tile` as in the nodes: 0 selects the tile that fits.

    The total memory of an accelerator is used, because the host unloads other models.
    """
    device = mm.get_torch_device()
    memory = mm.get_total_memory(device)
    if mm.is_device_cpu(device):
        memory = min(mm.get_free_memory(device), MAIN_MEMORY)
    return Tiler(tile or auto_tile(memory // batch, partial(pipeline_bytes, config), size))


def window_pixels(tiler: Tiler, size: tuple[int, int]) -> int:
    """Pixels of one picture that are processed at a time."""
    return size[0] * size[1] if tiler.covers(size) else tiler.tile**2


@contextlib.contextmanager
def conditioned_on(guider: Any, window: Window, like: Tensor) -> Iterator[None]:
    """Crops the guider's conditioning to a window, on the device of `like`, and restores it on exit."""
    full = guider.conds
    cuts = {name: (_cut(cond, window, like) for cond in conds or []) for name, conds in full.items()}
    guider.conds = {name: [cond for cond in conds if cond is not None] for name, conds in cuts.items()}
    try:
        yield
    finally:
        guider.conds = full


def _cut(cond: dict[str, Any], window: Window, like: Tensor) -> dict[str, Any] | None:
    """A cond cropped to the window; None if its area is outside the window."""
    cut = dict(cond)
    if "area" in cond:
        cut["area"] = _area_within(cond["area"], window)
        if cut["area"] is None:
            return None
    if "mask" in cond:
        cut["mask"] = window.cut(cond["mask"])  # (masks, H, W); the host has resized it to the picture
    area = (*window.size, window.rows.start, window.columns.start)
    maps = {name: c.process_cond(batch_size=len(like), area=area) for name, c in cond["model_conds"].items()}
    cut["model_conds"] = {name: _moved(c, like) for name, c in maps.items()}
    return cut


def _area_within(area: tuple[int, int, int, int], window: Window) -> tuple[int, int, int, int] | None:
    """An area of the host (height, width, top, left), cropped to the window and relative to it; None if outside."""
    sizes, starts = [], []
    for size, start, span in zip(area[:2], area[2:], (window.rows, window.columns), strict=True):
        first, last = max(start, span.start), min(start + size, span.stop)
        if first >= last:
            return None
        sizes.append(last - first)
        starts.append(first - span.start)
    return (*sizes, *starts)


def _moved(cond: comfy.conds.CONDRegular, like: Tensor) -> comfy.conds.CONDRegular:
    values = cond.cond
    if isinstance(values, Tensor):
        return cond._copy_with(values.to(like.device))
    return cond._copy_with([v.to(like.device) for v in values]) if isinstance(values, list) else cond
