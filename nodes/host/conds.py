"""Conditions with a larger stride than the picture: the host crops and repeats them together with the picture."""

from __future__ import annotations

import math
from typing import Any

import comfy.conds
import comfy.utils
from torch import Tensor

from ...jores.conditions import SEMANTIC_STRIDE
from ...jores.tiling.windows import Span, Window


class CoarseMaps(comfy.conds.CONDList):
    """Maps of a picture of `size` (H, W) at larger strides. If the conditioning has an area, they are cropped to it."""

    def __init__(self, cond: list[Tensor], size: tuple[int, int]) -> None:
        super().__init__(cond)
        self.of_size = size

    def _copy_with(self, cond: list[Tensor]) -> CoarseMaps:
        return self.__class__(cond, self.of_size)

    def process_cond(self, batch_size: int, area: Any = None, **_kwargs: Any) -> CoarseMaps:
        return self._copy_with([_part(m, self.of_size, area, batch_size) for m in self.cond])


class CoarseMap(comfy.conds.CONDRegular):
    """One map whose size is not a divisor of the picture's: under an area it is sampled (see `Window.sample`)."""

    def __init__(self, cond: Tensor, size: tuple[int, int]) -> None:
        super().__init__(cond)
        self.of_size = size

    def _copy_with(self, cond: Tensor) -> CoarseMap:
        return self.__class__(cond, self.of_size)

    def process_cond(self, batch_size: int, area: Any = None, **_kwargs: Any) -> CoarseMap:
        coarse = self.cond
        if area is not None:
            window = Window(*(Span(area[i + 2], area[i + 2] + area[i]) for i in (0, 1)))
            coarse = window.sample(coarse, self.of_size, SEMANTIC_STRIDE)
        return self._copy_with(comfy.utils.repeat_to_batch_size(coarse, batch_size))


def _part(coarse: Tensor, size: tuple[int, int], area: Any, batch_size: int) -> Tensor:
    """Crops (B, C, h, w) to area = (height, width, top, left) of a picture of `size` (H, W)."""
    if area is not None:
        for dim in (0, 1):
            scale = coarse.shape[dim + 2] / size[dim]
            start = math.floor(area[dim + 2] * scale)
            stop = max(start + 1, math.ceil((area[dim + 2] + area[dim]) * scale))
            coarse = coarse.narrow(dim + 2, start, min(stop, coarse.shape[dim + 2]) - start)
    return comfy.utils.repeat_to_batch_size(coarse, batch_size)
