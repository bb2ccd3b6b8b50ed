"""What stands under a node after its run: the chosen exposure with histograms before and after, or a message."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import numpy as np
import torch
from comfy_api.latest import ui
from torch import Tensor

from ...jores.imaging.exposure import luma

if TYPE_CHECKING:
    from PIL import Image, ImageFont

SIZE = (480, 176)
BINS = 60
SAMPLES = 256  # the histogram uses at most this many rows and columns
GROUND, INK = (24, 24, 24), (238, 238, 238)
BEFORE, AFTER = (86, 180, 233), (230, 159, 0)
"""Sky blue and orange of Okabe and Ito's palette for colour-blind people."""


def exposure_card(before: Tensor, after: Tensor, text: str) -> dict[str, tuple]:
    """UI output of a node: `text`, and a chart with it and the luma histograms of two IMAGEs (B, H, W, C)."""
    return {**_preview(drawn(tones(before), tones(after), text)), "text": (text,)}


def text_card(text: str) -> dict[str, tuple]:
    """UI output of a node: `text`, and a picture of it, because hosts show text under few nodes."""
    from PIL import Image, ImageDraw, ImageFont  # imported late, because Pillow slows down the host's start

    font = ImageFont.load_default(17)
    lines = [part for line in text.splitlines() for part in wrapped(line, font, SIZE[0] - 24)]
    card = Image.new("RGB", (SIZE[0], 22 * len(lines) + 16), GROUND)
    for i, line in enumerate(lines):
        ImageDraw.Draw(card).text((12, 6 + 22 * i), line, AFTER, font)
    return {**_preview(card), "text": (text,)}


def wrapped(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: float) -> list[str]:
    """A line of text in lines of at most `width` pixels, broken between words, and inside of those that are longer."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    surely = max(1, int(width / font.getlength("M")))  # letters of any word that fit
    return [
        part for line in lines for part in ([line] if font.getlength(line) <= width else textwrap.wrap(line, surely))
    ]


def _preview(card: Image.Image) -> dict[str, tuple]:
    picture = torch.from_numpy(np.array(card)).float() / 255
    return ui.PreviewImage(picture[None]).as_dict()


def tones(image: Tensor) -> Tensor:
    """Luma histogram (BINS,) of an IMAGE (B, H, W, C), from black to white, normalised to a sum of 1."""
    step = [max(1, -(-side // SAMPLES)) for side in image.shape[1:3]]
    some = image[:, :: step[0], :: step[1], :3].float().movedim(-1, 1)
    some = some.expand(-1, 3, -1, -1)
    counts = torch.histc(luma(some).clamp(0, 1).cpu(), BINS, 0, 1)
    return counts / counts.sum()


def drawn(before: Tensor, after: Tensor, text: str) -> Image.Image:
    """The chart with both histograms. Heights are square roots; otherwise the peak of a dark picture would dominate."""
    from PIL import Image, ImageDraw, ImageFont  # imported late, because Pillow slows down the host's start

    card, (width, height), top = Image.new("RGB", SIZE, GROUND), SIZE, 62
    pen, small = ImageDraw.Draw(card), ImageFont.load_default(17)
    fonts = (ImageFont.load_default(points) for points in range(21, 9, -1))
    pen.text(
        (12, 6), text, INK, next((f for f in fonts if f.getlength(text) <= width - 24), ImageFont.load_default(10))
    )
    pen.text((12, 34), "before", BEFORE, small)
    pen.text((84, 34), "after", AFTER, small)
    highest = float(torch.maximum(before, after).max()) ** 0.5 or 1.0
    for curve, colour, filled in ((before, BEFORE, True), (after, AFTER, False)):
        ys = (height - 8 - (height - 8 - top) * curve.sqrt() / highest).tolist()
        points = [(12 + (width - 24) * (i + 0.5) / BINS, y) for i, y in enumerate(ys)]
        if filled:
            corners = [(points[0][0], height - 8), *points, (points[-1][0], height - 8)]
            pen.polygon(corners, tuple(c // 2 for c in colour))
        pen.line(points, colour, 3, "curve")
    return card
