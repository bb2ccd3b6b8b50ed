"""Training pictures: read once into memory as uint8, cut and augmented per step from an explicit generator.

Two sources. Pairs: sets of a dark and a light picture each (LOL v1, SICE; tables with a scene split). Photographs: any
folder of well-lit pictures, darkened on the fly (`darkening`), some left as they are, so that the nets also learn to
leave a good picture alone, and some as the pairs were (`camera`).
"""

from __future__ import annotations

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
from .convert import to_tensor
from .darkening import Darkening
from .pairs import Pair, in_threads


def _at_least(photo: Pair, side: int) -> Pair:
    """The photograph, enlarged if a crop of this side would not fit."""
    height, width = photo.high.shape[:2]
    if min(height, width) >= side:
        return photo
    wide, high = (max(side, round(n * side / min(height, width))) for n in (width, height))
    return Pair(photo.name, np.asarray(Image.fromarray(photo.high).resize((wide, high), Image.Resampling.LANCZOS)))


FOLD = 4  # a thumbnail is made of a picture so many times its size where the light is still to be changed


def thumbnail(pixels: np.ndarray) -> Tensor:
    """Area-averaged thumbnail (3, 48, 64) float32, the exposure head's view of the full picture. Not rounded to 8
    bits: that would leave a handful of levels of a dark picture."""
    return area_average(to_tensor(pixels)[None], THUMBNAIL)[0]


def light_thumbnail(pixels: np.ndarray) -> Tensor:
    """The same of FOLD times the size."""
    return area_average(to_tensor(pixels)[None], (FOLD * THUMBNAIL[0], FOLD * THUMBNAIL[1]))[0]


def darkened_thumbnail(light: Tensor, darken: Darkening | Camera, rng: np.random.Generator) -> Tensor:
    """What `thumbnail` would show of a well-lit picture, seen as `light_thumbnail`, after it was darkened."""
    return darken.thumbnail(light, seeded(rng), FOLD)


def seeded(rng: np.random.Generator) -> torch.Generator:
    return torch.Generator().manual_seed(int(rng.integers(2**31)))


class Sampler:
    """Draws batches. `photos` are mixed in with probability `photo_share`; a share `as_pairs` of them is darkened as
    one of the pairs was, half of that share being light pictures of the pairs instead. All crops are `crop` wide
    and high, or as large as the smallest pair allows; photographs below that are enlarged. A share `retouch` of the
    samples asks for another brightness than the light picture's."""

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
    ) -> None:
        if not pairs:
            raise ValueError("no training pairs: is the split empty?")
        self.pairs, self.batch, self.retouch = pairs, batch, retouch
        self.drawn = np.cumsum([pair.weight for pair in pairs])
        self.crop = min(crop, *(min(pair.high.shape[:2]) for pair in pairs))
        self.photos = [_at_least(photo, self.crop) for photo in photos or []]
        self.photo_share = photo_share if self.photos else 0.0
        evenly_dark = [pair for pair in pairs if " " not in pair.kind]  # only of such a picture is a camera to be read
        cameras = in_threads(Camera.of, evenly_dark) if as_pairs and self.photo_share else []
        self.cameras = [camera for camera in cameras if camera]
        self.as_pairs = as_pairs if self.cameras else 0.0

    def __call__(self, rng: np.random.Generator) -> dict[str, Tensor]:
        """low, high (B, 3, c, c); thumbnail (B, 3, 48, 64) of the whole dark picture and input_mean (B, 3), its mean
        colour; exposure (B,), the mean luma of the light one; shadows (B, 2), `shadow_share` of the light and of the
        dark one; place (B, 2, 3), where the crop lies in the thumbnail, as `affine_grid` wants it; semantics (B, 150,
        c/8, c/8) where the pairs carry them."""
        samples = [self._sample(rng) for _ in range(self.batch)]
        return {key: torch.stack([s[key] for s in samples]) for key in samples[0]}

    def _sample(self, rng: np.random.Generator) -> dict[str, Tensor]:
        pair, darken = self._draw(rng)
        crop = self._cut(pair, rng)
        view = crop.within(random_view(pair.high.shape, rng))
        high, whole = to_tensor(_flip(pair.high[crop.slices], crop)), light_thumbnail(_flip(pair.high[view], crop))
        place = crop.place(view)
        if darken:
            darken = darken.fitted(whole)
            low, thumb_low = darken(high, seeded(rng), place), darkened_thumbnail(whole, darken, rng)
        else:
            low, thumb_low = to_tensor(_flip(pair.dark[crop.slices], crop)), thumbnail(_flip(pair.dark[view], crop))
            gain = exposure_jitter(rng)
            low, thumb_low = (low * gain).clamp(0, 1), (thumb_low * gain).clamp(0, 1)
        if rng.random() < self.retouch:
            power = brightness_power(rng)
            high, whole = high.pow(power), whole.pow(power)
        thumb_high = F.avg_pool2d(whole, FOLD)
        sample = {
            "low": low, "high": high, "thumbnail": thumb_low, "place": place,
            "input_mean": mean_colour(thumb_low[None])[0], "exposure": mean_luma(thumb_high[None])[0],
            "shadows": shadows_of(thumb_low, thumb_high),
        }  # fmt: skip
        if pair.semantics is not None:
            sample["semantics"] = _cut_semantics(pair.semantics, pair.high.shape, crop)
        return sample

    def _draw(self, rng: np.random.Generator) -> tuple[Pair, Darkening | Camera | None]:
        """A picture, and how its light one is to be darkened; None: it has a dark one."""
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
    top: int
    left: int
    size: int
    mirror: bool
    upside_down: bool
    transpose: bool

    @property
    def slices(self) -> tuple[slice, slice]:
        return slice(self.top, self.top + self.size), slice(self.left, self.left + self.size)

    def within(self, view: tuple[slice, slice]) -> tuple[slice, slice]:
        """The view, enlarged until it holds the crop."""
        pairs = zip(self.slices, view, strict=True)
        rows, columns = (slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in pairs)
        return rows, columns

    def place(self, view: tuple[slice, slice]) -> Tensor:
        """(2, 3): scale and centre of the crop in the view after both were flipped; the view is -1..1 wide and high."""
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
    """A large part of the picture: brightness is judged from many framings of the few scenes there are."""
    share = rng.uniform(0.7, 1.0, 2) if rng.random() < 0.5 else (1.0, 1.0)
    height, width = (max(8, int(n * s)) for n, s in zip(shape[:2], share, strict=True))
    top, left = int(rng.integers(shape[0] - height + 1)), int(rng.integers(shape[1] - width + 1))
    return slice(top, top + height), slice(left, left + width)


def exposure_jitter(rng: np.random.Generator) -> float:
    return float(np.exp(rng.uniform(-0.5, 0.5))) if rng.random() < 0.3 else 1.0


def brightness_power(rng: np.random.Generator) -> float:
    """The dial must be obeyed for brightnesses that no photographer chose: a picture to this power is brighter or
    darker in its dark parts first, and white stays white."""
    return float(np.exp(rng.uniform(-0.5, 0.5)))


def shadows_of(dark: Tensor, light: Tensor) -> Tensor:
    """`shadow_share` (2,) of the light thumbnail, and of the dark one itself."""
    pair = torch.stack([light, dark])
    return shadow_share(torch.stack([dark, dark]), pair)
