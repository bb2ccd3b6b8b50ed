"""A page of words, and how many of its letters can be read: character recognition that needs no program for it.

Every letter is compared with all 26 in its place, by normalised cross-correlation of the luma: the word is drawn 26
times with another letter there, and the letter whose drawing fits best is what is read. The share of letters that are
read right is the reading rate. A reader that knows the neighbours and the font reads more than a person or Tesseract,
but it is the same for all pictures that are compared, and a letter that turns into another is misread.
"""

from __future__ import annotations

from collections.abc import Iterator
from string import ascii_lowercase
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from jores.imaging.exposure import luma

PANGRAM = "the quick brown fox jumps over the lazy dog"
PAPER, INK = 205, 30
WIDTH, EDGE = 256, 6


class Word(NamedTuple):
    """A word of `size` pixels whose first letter starts at (left, top); its letters start at `starts` from there."""

    text: str
    size: int
    left: int
    top: int
    starts: tuple[int, ...]


def words_on_a_page(sizes: tuple[int, ...]) -> list[Word]:
    """The pangram at every size, one below the other."""
    words, top = [], EDGE
    for size in sizes:
        font, left = ImageFont.load_default(size), EDGE
        for text in PANGRAM.split():
            ends = np.cumsum([round(font.getlength(letter)) for letter in text])
            if left + int(ends[-1]) > WIDTH - EDGE:
                left, top = EDGE, top + round(1.4 * size)
            words.append(Word(text, size, left, top, (0, *map(int, ends[:-1]))))
            left += int(ends[-1]) + round(0.8 * size)  # wider than what a drawing shows beside the last letter
        top += round(1.7 * size)
    return words


def page(words: list[Word]) -> Tensor:
    """(3, H, WIDTH) in [0, 1]."""
    image = Image.new("L", (WIDTH, words[-1].top + 2 * words[-1].size), PAPER)
    draw = ImageDraw.Draw(image)
    for word in words:
        for letter, start in zip(word.text, word.starts, strict=True):
            draw.text((word.left + start, word.top), letter, INK, ImageFont.load_default(word.size))
    return torch.from_numpy(np.array(image)).float().div(255).expand(3, -1, -1).contiguous()


def candidates(words: list[Word]) -> Iterator[tuple[int, tuple[slice, slice], Tensor]]:
    """For every letter: its number in the alphabet, its place on the page, and the 26 drawings there, (26, h, w)."""
    for word in words:
        font, width, height = ImageFont.load_default(word.size), round(1.1 * word.size), round(1.4 * word.size)
        for i, start in enumerate(word.starts):
            drawn = np.empty((26, height, width), np.float32)
            for number, letter in enumerate(ascii_lowercase):
                image = Image.new("L", (width, height), PAPER)
                draw = ImageDraw.Draw(image)
                for j, other in enumerate(word.starts):
                    draw.text((1 + other - start, 0), letter if j == i else word.text[j], INK, font)
                drawn[number] = image
            left = word.left + start - 1
            place = slice(word.top, word.top + height), slice(left, min(left + width, WIDTH))
            yield ascii_lowercase.index(word.text[i]), place, torch.from_numpy(drawn)[..., : place[1].stop - left]


def reading_rate(pictures: Tensor, words: list[Word]) -> Tensor:
    """Share of the letters that are read right in pictures (B, 3, H, WIDTH) of the page, (B,)."""
    right, grey = torch.zeros(len(pictures)), luma(pictures)[:, 0]
    letters = list(candidates(words))
    for number, (rows, columns), drawn in letters:
        seen, known = grey[:, rows, columns].flatten(1), drawn.flatten(1)
        seen, known = (v - v.mean(1, keepdim=True) for v in (seen, known))
        fit = torch.nn.functional.normalize(seen) @ torch.nn.functional.normalize(known).T
        right += fit.argmax(1) == number
    return right / len(letters)
