"""Fingerprints of pictures, to detect when objects of different pictures are combined by mistake.

A digest of the pixels is passed on with R and L, conditions and priors, and in an entry of the latent's dictionary,
which stock nodes pass on. Objects without a fingerprint, such as latents of stock nodes, are accepted.
"""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor

from ...jores.imaging.alpha import opaque
from ...jores.imaging.likeness import alike, thumbnails

LATENT_KEY = "jores_pictures"  # in a latent's dictionary: {"source": (B, 2) int64, "thumbnails": (B, 3, h, w)}


def fingerprints(image: Tensor) -> Tensor:
    """Digests (B, 2) int64 of the colours of an IMAGE (B, H, W, C). Grey counts as RGB; alpha is ignored."""
    grey = image.shape[-1] == 1
    rows = []
    for one in image[..., :3].float().cpu():
        pixels = (one.expand(-1, -1, 3) if grey else one).contiguous()
        data = pixels.numpy().tobytes()
        digest = hashlib.blake2b(data, digest_size=16, salt=str(tuple(pixels.shape[:2])).encode()[:16])
        rows.append([int.from_bytes(digest.digest()[i : i + 8], "little", signed=True) for i in (0, 8)])
    return torch.tensor(rows, dtype=torch.int64)


def same_pictures(a: Tensor | None, b: Tensor | None) -> bool:
    """Whether two lists of fingerprints are equal; a single fingerprint is compared with all of the other list.

    None means unknown, and is accepted.
    """
    if a is None or b is None:
        return True
    a, b = a.cpu(), b.cpu()
    return (len(a) == len(b) or 1 in (len(a), len(b))) and bool((a == b).all())


def among_pictures(one: Tensor | None, many: Tensor | None) -> bool:
    """`same_pictures`, or a single picture that is one of `many`, such as the frame of a clip for a prior."""
    if one is None or many is None or len(one) != 1:
        return same_pictures(one, many)
    return bool((one.cpu() == many.cpu()).all(1).any())


def known_pictures(source: Tensor | None, pictures: Tensor, count: int) -> dict[str, Any]:
    """Entry for the dictionary of `count` latents made from these dark `pictures` (B, 3, H, W); empty if unknown."""
    if source is None:
        return {}
    source, small = source.cpu(), thumbnails(pictures)
    if len(source) == 1:
        source, small = source.expand(count, -1), small.expand(count, -1, -1, -1)
    return {LATENT_KEY: {"source": source, "thumbnails": small}}


def latent_pictures(latent: dict[str, Any]) -> dict[str, Tensor] | None:
    """The entry of `known_pictures`, reduced to the pictures that are still in a latent; None if these are unknown.

    Stock nodes select and repeat pictures of a batch without changing our entry. LatentFromBatch stores the selected
    indices in `batch_index`, but RepeatLatentBatch continues to count from there, so only a single index is reliable.
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


def other_original(latent: dict[str, Any], original: Tensor) -> str | None:
    """A warning if an original (B or 1, 3 or 4, H, W) differs from the picture of the latent; otherwise None."""
    if not isinstance(latent.get(LATENT_KEY), dict):
        return None
    known = latent_pictures(latent)
    wanted = (known or latent[LATENT_KEY])["thumbnails"]
    given = thumbnails(opaque(original))
    if known is not None and len(given) in (1, len(wanted)):
        fits = [alike(given[i % len(given)], one) for i, one in enumerate(wanted)]
    else:  # unknown which pictures are still in the latent
        fits = [any(alike(one, other) for other in wanted) for one in given]
        if len(latent["samples"]) > len(wanted):  # repeated, or joined: LatentBatch keeps one entry
            fits = [any(fits)]
    if all(fits):
        return None
    which = "" if len(fits) == 1 else f" {fits.index(False) + 1}"
    return (
        f"picture{which} of image does not look like the one that was enhanced: strength, mask, shadows and "
        "colour_fidelity blend the result with the picture that is connected to image"
    )
