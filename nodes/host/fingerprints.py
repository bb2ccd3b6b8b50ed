"""Which picture an object on a wire was made from, so that what belongs to two pictures is not mixed unseen.

The pixels' digest travels with R and L, conditions and priors, and as an entry of its own in the latent's dictionary,
where stock nodes hand it on. What has none, such as a latent of a stock node, is taken as it is.
"""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor

from ...jores.imaging.alpha import opaque
from ...jores.imaging.exposure import luma
from ...jores.imaging.resize import area_average

LATENT_KEY = "jores_pictures"  # in a latent's dictionary: {"source": (B, 2) int64, "thumbnails": (B, 3, h, w)}
GLANCE = 24  # pixels, longer side of the thumbnails that originals are told apart by
ALIKE = 0.6  # correlation of two thumbnails of one picture, at least, however it was edited
FLAT = 0.5 / 255  # deviation below which a thumbnail has no structure to compare


def fingerprints(image: Tensor) -> Tensor:
    """IMAGE (B, H, W, C) -> (B, 2) int64 of its colours' pixels; grey counts as RGB, alpha does not."""
    grey = image.shape[-1] == 1
    rows = []
    for one in image[..., :3].float().cpu():
        pixels = (one.expand(-1, -1, 3) if grey else one).contiguous()
        data = pixels.numpy().tobytes()
        digest = hashlib.blake2b(data, digest_size=16, salt=str(tuple(pixels.shape[:2])).encode()[:16])
        rows.append([int.from_bytes(digest.digest()[i : i + 8], "little", signed=True) for i in (0, 8)])
    return torch.tensor(rows, dtype=torch.int64)


def same_pictures(a: Tensor | None, b: Tensor | None) -> bool:
    """Whether two lists of fingerprints may belong together: equal one by one, where a single one stands for all.

    None: not known, which is taken.
    """
    if a is None or b is None:
        return True
    a, b = a.cpu(), b.cpu()
    return (len(a) == len(b) or 1 in (len(a), len(b))) and bool((a == b).all())


def among_pictures(one: Tensor | None, many: Tensor | None) -> bool:
    """`same_pictures`, or a single picture that is one of many, such as the frame of a clip that its prior is from."""
    if one is None or many is None or len(one) != 1:
        return same_pictures(one, many)
    return bool((one.cpu() == many.cpu()).all(1).any())


def thumbnails(pictures: Tensor) -> Tensor:
    """(B, 3, H, W) -> (B, 3, h, w) of at most GLANCE pixels a side."""
    height, width = pictures.shape[-2:]
    scale = min(1.0, GLANCE / max(height, width))
    return area_average(pictures, (max(1, round(height * scale)), max(1, round(width * scale)))).float().cpu()


def known_pictures(source: Tensor | None, pictures: Tensor, count: int) -> dict[str, Any]:
    """What to add to a latent's dictionary of `count` latents that was made for these dark `pictures` (B, 3, H, W)."""
    if source is None:
        return {}
    source, small = source.cpu(), thumbnails(pictures)
    if len(source) == 1:
        source, small = source.expand(count, -1), small.expand(count, -1, -1, -1)
    return {LATENT_KEY: {"source": source, "thumbnails": small}}


def latent_pictures(latent: dict[str, Any]) -> dict[str, Tensor] | None:
    """The entry of `known_pictures` for the pictures that are left in a latent; None where that cannot be told.

    Stock nodes take pictures out of a batch and repeat them, and leave our entry alone; LatentFromBatch says which it
    took in `batch_index`, but RepeatLatentBatch counts on from there, so that only a single number is certain.
    """
    known, count = latent.get(LATENT_KEY), len(latent["samples"])
    if not isinstance(known, dict) or not {"source", "thumbnails"} <= known.keys():
        return None
    total, index = len(known["source"]), latent.get("batch_index")
    if count == 1 and index is not None and len(index) == 1 and 0 <= index[0] < total:
        return {name: value[index[0] : index[0] + 1] for name, value in known.items()}
    if count == total and (total == 1 or index is None or list(index) == list(range(total))):
        return known
    return None


def alike(a: Tensor, b: Tensor) -> bool:
    """Whether two thumbnails (3, h, w) show one picture, which may have been edited or saved again in between.

    Brightness, contrast and colours do not count, only what is where.
    """
    if a.shape != b.shape:
        return False
    a, b = (luma(x[None].clamp_min(0).sqrt()).flatten().double() for x in (a, b))
    a, b = a - a.mean(), b - b.mean()
    spreads = [float(x.square().mean().sqrt()) for x in (a, b)]
    if min(spreads) < FLAT:
        return max(spreads) < 4 * FLAT
    return float(a @ b) >= ALIKE * float(a.norm() * b.norm())


def other_original(latent: dict[str, Any], original: Tensor) -> str | None:
    """A warning if an original (B or 1, 3 or 4, H, W) does not show what its latent was made from; None: it does."""
    if not isinstance(latent.get(LATENT_KEY), dict):
        return None
    known = latent_pictures(latent)
    wanted = (known or latent[LATENT_KEY])["thumbnails"]
    given = thumbnails(opaque(original))
    if known is not None and len(given) in (1, len(wanted)):
        fits = [alike(given[i % len(given)], one) for i, one in enumerate(wanted)]
    else:  # which of the pictures are left is not known
        fits = [any(alike(one, other) for other in wanted) for one in given]
    if all(fits):
        return None
    which = "" if len(fits) == 1 else f" {fits.index(False) + 1}"
    return (
        f"picture{which} of image does not look like the one that was enhanced: strength, mask, shadows and "
        "colour_fidelity mix the result with what is connected to image"
    )
