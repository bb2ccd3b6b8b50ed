"""Put two pictures side by side: python before_after.py before.jpg after.png out.png"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from PIL import Image, ImageOps

GAP = 8


def side_by_side(before: Path, after: Path, out: Path) -> None:
    """Write `out` (PNG): `before`, turned as its EXIF says and brought to the size of `after`, a gap, `after`."""
    with Image.open(before) as picture:
        left = ImageOps.exif_transpose(picture).convert("RGB")
    with Image.open(after) as picture:
        right = picture.convert("RGB")
    sheet = Image.new("RGB", (2 * right.width + GAP, right.height), "white")
    sheet.paste(left if left.size == right.size else left.resize(right.size, Image.Resampling.LANCZOS), (0, 0))
    sheet.paste(right, (right.width + GAP, 0))
    part = out.with_name(out.name + ".part")
    sheet.save(part, "PNG")
    os.replace(part, out)


if __name__ == "__main__":
    side_by_side(*map(Path, sys.argv[1:4]))
