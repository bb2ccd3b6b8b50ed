"""Training batches: crops and augmentations of pictures in memory (uint8), drawn with an explicit generator.

There are two sources. Pairs: a dark and a well-lit picture of one scene (LOL v1, SICE; tables with a split by scene).
Photographs: any folder of well-lit pictures, which are darkened on the fly, either randomly (`darkening`) or as a pair
was (`camera`). Some stay unchanged, so that the nets learn to leave well-lit pictures alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ..imaging.exposure import mean_colour, mean_luma, shadow_share
from ..imaging.resize import area_average
from ..nets.adjustment import THUMBNAIL
from .camera import Camera
from .cloth import Cloth, Planes
from .convert import to_tensor
from .darkening import Darkening
from .pairs import Pair, in_threads


def _at_least(photo: Pair, side: int) -> Pair:
    """The photograph, enlarged (Lanczos) if its shorter side is below `side` pixels."""
    height, width = photo.high.shape[:2]
    if min(height, width) >= side:
        return photo
    wide, high = (max(side, round(n * side / min(height, width))) for n in (width, height))
    return Pair(photo.name, np.asarray(Image.fromarray(photo.high).resize((wide, high), Image.Resampling.LANCZOS)))


PLANES = 0.4  # share of the samples with cloth that are plain planes instead
OVERSAMPLING = 4  # size of `fine_thumbnail` in sizes of `coarse_thumbnail`: darkening comes before the last averaging


def coarse_thumbnail(pixels: np.ndarray) -> Tensor:
    """Area-averaged thumbnail (3, 48, 64) of (H, W, 3) uint8, float32 in [0, 1], as the exposure head gets it.

    It is not rounded to 8 bits, which would leave only a few levels in a dark picture.
    """
    return area_average(to_tensor(pixels)[None], THUMBNAIL)[0]


def fine_thumbnail(pixels: np.ndarray) -> Tensor:
    """As `coarse_thumbnail`, but OVERSAMPLING times as large: (3, 192, 256)."""
    return area_average(to_tensor(pixels)[None], (OVERSAMPLING * THUMBNAIL[0], OVERSAMPLING * THUMBNAIL[1]))[0]


def darkened_thumbnail(
    bright: Tensor, darken: Darkening | Camera, rng: np.random.Generator, factor: int = OVERSAMPLING
) -> Tensor:
    """Thumbnail (3, 48, 64) of the darkened picture, from the `fine_thumbnail` of the well-lit one, or a finer one.

    `factor`: how much smaller it is than `bright`.
    """
    return darken.thumbnail(bright, seeded(rng), factor)


def seeded(rng: np.random.Generator) -> torch.Generator:
    """A torch generator whose seed is drawn from `rng`."""
    return torch.Generator().manual_seed(int(rng.integers(2**31)))


class CropSampler:
    """Draws training batches of crops from pairs and photographs.

    Args:
        pairs: drawn in proportion to their `weight`.
        photos: well-lit photographs, darkened on the fly.
        crop: height and width of the crops in pixels. Smaller if the smallest pair is smaller; photographs are enlarged
            if they are smaller.
        batch: samples per batch.
        photo_share: probability that a sample is darkened on the fly; 0 without `photos`.
        as_pairs: share of these samples that is darkened by the `Camera` of a random pair. Half of them use the
            well-lit picture of a pair instead of a photograph.
        retouch: share of the samples whose target brightness differs from that of the well-lit picture.
        cloth: share of the samples darkened on the fly that get a piece of patterned `Cloth` before. It takes its light
            from the picture, so thumbnail and statistics stay those of the picture without it.

    Raises:
        ValueError: `pairs` is empty.
    """

    def __init__(
        self,
        pairs: list[Pair],
        photos: list[Pair] | None = None,
        *,
        crop: int,
        batch: int,
        photo_share: float = 0.0,
        as_pairs: float = 0.0,
        retouch: float = 0.0,
        cloth: float = 0.0,
    ) -> None:
        if not pairs:
            raise ValueError("no training pairs: is the split empty?")
        self.pairs, self.batch, self.retouch, self.cloth = pairs, batch, retouch, cloth
        self.drawn = np.cumsum([pair.weight for pair in pairs])
        self.crop = min(crop, *(min(pair.high.shape[:2]) for pair in pairs))
        self.photos = [_at_least(photo, self.crop) for photo in photos or []]
        self.photo_share = photo_share if self.photos else 0.0
        # A camera can only be estimated from evenly lit pictures: those of sets whose kind has no suffix (`kind_of`).
        evenly_dark = [pair for pair in pairs if " " not in pair.kind]
        cameras = in_threads(Camera.of, evenly_dark) if as_pairs and self.photo_share else []
        self.cameras = [camera for camera in cameras if camera]
        self.as_pairs = as_pairs if self.cameras else 0.0

    def __call__(self, rng: np.random.Generator) -> dict[str, Tensor]:
        """One batch, float32; pictures are in [0, 1].

        low, high (B, 3, c, c): crops of the dark and the well-lit picture. thumbnail (B, 3, 48, 64): the full dark
        picture; input_mean (B, 3): its mean colour. exposure (B,): mean luma of the well-lit picture. shadows (B, 2):
        `shadow_share` of the well-lit and of the dark picture. place (B, 2, 3): affine transform of the crop within the
        thumbnail, as `affine_grid` takes it. semantics (B, 150, c/8, c/8): only if the pairs have class maps.
        """
        samples = [self._sample(rng) for _ in range(self.batch)]
        return {key: torch.stack([s[key] for s in samples]) for key in samples[0]}

    def _sample(self, rng: np.random.Generator) -> dict[str, Tensor]:
        pair, darken = self._draw(rng)
        crop = self._cut(pair, rng)
        view = crop.within(random_view(pair.high.shape, rng))
        high, bright = to_tensor(_flip(pair.high[crop.slices], crop)), fine_thumbnail(_flip(pair.high[view], crop))
        place = crop.place(view)
        if darken:
            if self.cloth and rng.random() < self.cloth:
                if rng.random() < PLANES:
                    high, darken = Planes.draw(rng)(high), Darkening.draw_in_part(rng)
                else:
                    high = Cloth.draw(rng)(high)
            darken = darken.fitted(bright)
            low, thumb_low = darken(high, seeded(rng), place), darkened_thumbnail(bright, darken, rng)
        else:
            low = to_tensor(_flip(pair.dark[crop.slices], crop))
            thumb_low = coarse_thumbnail(_flip(pair.dark[view], crop))
            gain = exposure_jitter(rng)
            low, thumb_low = (low * gain).clamp(0, 1), (thumb_low * gain).clamp(0, 1)
        if rng.random() < self.retouch:
            power = brightness_power(rng)
            high, bright = high.pow(power), bright.pow(power)
        thumb_high = F.avg_pool2d(bright, OVERSAMPLING)
        sample = {
            "low": low, "high": high, "thumbnail": thumb_low, "place": place,
            "input_mean": mean_colour(thumb_low[None])[0], "exposure": mean_luma(thumb_high[None])[0],
            "shadows": shadows_of(thumb_low, thumb_high),
        }  # fmt: skip
        if (semantics := pair.class_map()) is not None:
            sample["semantics"] = _cut_semantics(semantics, pair.high.shape, crop)
        return sample

    def _draw(self, rng: np.random.Generator) -> tuple[Pair, Darkening | Camera | None]:
        """A pair or photograph, and how to darken its well-lit picture; None: use the dark picture of the pair."""
        if rng.random() >= self.photo_share:
            return self._pair(rng), None
        if rng.random() >= self.as_pairs:
            return _any(self.photos, rng), Darkening.draw(rng)
        camera = _any(self.cameras, rng).at(exposure_jitter(rng))
        return _any(self.photos, rng) if rng.random() < 0.5 else self._pair(rng), camera

    def _pair(self, rng: np.random.Generator) -> Pair:
        return self.pairs[int(np.searchsorted(self.drawn, rng.random() * self.drawn[-1], side="right"))]

    def _cut(self, pair: Pair, rng: np.random.Generator) -> Crop:
        height, width = pair.high.shape[:2]
        top = 8 * int(rng.integers((height - self.crop) // 8 + 1))
        left = 8 * int(rng.integers((width - self.crop) // 8 + 1))
        return Crop(top, left, self.crop, *(bool(v) for v in rng.integers(0, 2, 3)))


def _any(items: list, rng: np.random.Generator) -> Any:
    return items[rng.integers(len(items))]


@dataclass(frozen=True)
class Crop:
    """A square crop of `size` pixels and its augmentation: flips, then a transposition."""

    top: int
    left: int
    size: int
    mirror: bool
    upside_down: bool
    transpose: bool

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns of the crop."""
        return slice(self.top, self.top + self.size), slice(self.left, self.left + self.size)

    def within(self, view: tuple[slice, slice]) -> tuple[slice, slice]:
        """`view` (rows, columns), enlarged until it contains the crop."""
        pairs = zip(self.slices, view, strict=True)
        rows, columns = (slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in pairs)
        return rows, columns

    def place(self, view: tuple[slice, slice]) -> Tensor:
        """Affine transform (2, 3) of the crop within `view` for `affine_grid`, both after the augmentation."""
        halves, centres = [], []
        for cut, seen, mirrored in zip(self.slices, view, (self.upside_down, self.mirror), strict=True):
            length = seen.stop - seen.start
            centre = (cut.start + cut.stop - 2 * seen.start) / length - 1
            halves.append((cut.stop - cut.start) / length)
            centres.append(-centre if mirrored else centre)
        (y, x) = (1, 0) if self.transpose else (0, 1)
        return torch.tensor([[halves[x], 0, centres[x]], [0, halves[y], centres[y]]])


def _flip(pixels: np.ndarray, crop: Crop) -> np.ndarray:
    pixels = pixels[:, ::-1] if crop.mirror else pixels
    pixels = pixels[::-1] if crop.upside_down else pixels
    return pixels.swapaxes(0, 1) if crop.transpose else pixels


def _cut_semantics(semantics: np.ndarray, shape: tuple[int, ...], crop: Crop) -> Tensor:
    (_, rows, columns), (height, width) = semantics.shape, shape[:2]
    side = max(1, crop.size // 8)
    y = ((crop.top + (np.arange(side) + 0.5) * 8) * rows / height).astype(int).clip(0, rows - 1)
    x = ((crop.left + (np.arange(side) + 0.5) * 8) * columns / width).astype(int).clip(0, columns - 1)
    cut = _flip(semantics[:, y][:, :, x].transpose(1, 2, 0), crop)
    return to_tensor(cut)


def random_view(shape: tuple[int, ...], rng: np.random.Generator) -> tuple[slice, slice]:
    """A random large part of a picture (rows, columns), so that the few scenes give many different thumbnails."""
    share = rng.uniform(0.7, 1.0, 2) if rng.random() < 0.5 else (1.0, 1.0)
    return view_of(shape, share, rng)


def view_of(shape: tuple[int, ...], share: Iterable[float], rng: np.random.Generator) -> tuple[slice, slice]:
    """A part of a picture (rows, columns) at a random place, with these shares of its height and width."""
    height, width = (max(8, int(n * s)) for n, s in zip(shape[:2], share, strict=True))
    top, left = int(rng.integers(shape[0] - height + 1)), int(rng.integers(shape[1] - width + 1))
    return slice(top, top + height), slice(left, left + width)


def exposure_jitter(rng: np.random.Generator) -> float:
    """Random gain for a dark picture: 1 in 70 % of the draws, otherwise between exp(-0.5) and exp(0.5)."""
    return float(np.exp(rng.uniform(-0.5, 0.5))) if rng.random() < 0.3 else 1.0


def brightness_power(rng: np.random.Generator) -> float:
    """Random exponent, exp(-0.5) to exp(0.5), that makes a target brighter or darker; white stays white.

    The nets thus learn to follow a requested brightness that differs from the one of the photograph.
    """
    return float(np.exp(rng.uniform(-0.5, 0.5)))


def shadows_of(dark: Tensor, bright: Tensor) -> Tensor:
    """`shadow_share` (2,) of the well-lit and of the dark thumbnail, (3, h, w) each."""
    pair = torch.stack([bright, dark])
    return shadow_share(torch.stack([dark, dark]), pair)
