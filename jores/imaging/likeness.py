"""Whether two pictures are the same one, told by their thumbnails."""

from __future__ import annotations

from torch import Tensor

from .exposure import luma
from .resize import reduced

THUMBNAIL_SIDE = 24  # pixels, longer side of the thumbnails that are compared
ALIKE = 0.6  # smallest correlation of two thumbnails of one picture, even after edits
FLAT = 0.5 / 255  # a thumbnail with a smaller standard deviation has no structure to compare


def thumbnails(pictures: Tensor) -> Tensor:
    """(B, 3, H, W) -> (B, 3, h, w) with a longer side of at most THUMBNAIL_SIDE pixels, float32 on the CPU."""
    return reduced(pictures, THUMBNAIL_SIDE).float().cpu()


def alike(a: Tensor, b: Tensor) -> bool:
    """Whether two thumbnails (3, h, w) show the same picture, even if it was edited or saved again.

    Only the structure is compared, not brightness, contrast and colours.
    """
    if a.shape != b.shape:
        return False
    a, b = (luma(x[None].clamp_min(0).sqrt()).flatten().double() for x in (a, b))
    a, b = a - a.mean(), b - b.mean()
    spreads = [float(x.square().mean().sqrt()) for x in (a, b)]
    if min(spreads) < FLAT:
        return max(spreads) < 4 * FLAT
    return float(a @ b) >= ALIKE * float(a.norm() * b.norm())
