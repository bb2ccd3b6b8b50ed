"""A small camera raw file for the tests: a DNG of a plain field, as a sensor behind a Bayer filter sees it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile

BLACK, WHITE = 64, 16383
NEUTRAL = (0.5, 1.0, 0.6)  # what the sensor counts of a grey object, red, green and blue


def write_dng(
    path: Path, light: float, *, size: tuple[int, int] = (48, 64), orientation: int = 1, order: str = "<",
    extra: tuple[tuple, ...] = (),
) -> None:  # fmt: skip
    """`light` in 0..1 of a grey object, linear, in every pixel. `extra`: further tags, as tifffile takes them."""
    counts = np.empty(size, np.uint16)
    for row, column, channel in ((0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 2)):
        counts[row::2, column::2] = round(BLACK + (WHITE - BLACK) * light * NEUTRAL[channel])
    neutral = [number for n in NEUTRAL for number in (round(n * 1000), 1000)]
    # XYZ to camera: that of sRGB, so that the camera's colours are those of the screen
    matrix = (3.2406, -1.5372, -0.4986, -0.9689, 1.8758, 0.0415, 0.0557, -0.2040, 1.0570)
    rational = [number for m in matrix for number in (round(m * 10000), 10000)]
    tags = [
        (33421, "H", 2, (2, 2), True), (33422, "B", 4, bytes((0, 1, 1, 2)), True),
        (50706, "B", 4, bytes((1, 4, 0, 0)), True), (50708, "s", 0, "Test Camera", True),
        (271, "s", 0, "Test", True), (272, "s", 0, "Camera", True), (274, "H", 1, orientation, True),
        (50714, "H", 1, BLACK, True), (50717, "H", 1, WHITE, True), (50721, "2i", 9, rational, True),
        (50728, "2I", 3, neutral, True), (50778, "H", 1, 21, True),
        *extra,
    ]  # fmt: skip
    tifffile.imwrite(
        path, counts, photometric=32803, extratags=tags, software=False, metadata=None, byteorder=order
    )  # fmt: skip
