"""What stands under the nodes after their run: messages, the chart, the preview of a comparison."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageFont

from tests.graphs import SHIPPED, run

WIDTH = 456  # pixels of a card for its text


def test_a_message_uses_the_width_of_its_card_and_is_never_cut(host):
    cards, font = host.load("nodes.host.cards"), ImageFont.load_default(17)
    text = "these are 1 to 16 of 21 photographs: to go on, set first to 17; left out is " + "x" * 90 + ".jpg"
    lines = cards.wrapped(text, font, WIDTH)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    lengths = [font.getlength(line) for line in lines]
    assert max(lengths) <= WIDTH and lengths[0] > 0.75 * WIDTH


@pytest.mark.parametrize(("level", "said"), [(0.0, "nothing to light: all of it is black"), (0.02, "exposure 0.")])
def test_a_black_picture_has_nothing_to_light(host, level, said):
    dials = {"exposure": 0.0, "strength": 1.0, "steps": 1, "seed": 0, "semantic": True, "model_name": SHIPPED}
    image = torch.full((1, 32, 32, 3), level)
    with torch.inference_mode():
        done = host.nodes["JoReSEnhance"].execute(image=image, quality="draft", **dials)
    assert done.ui["text"][0].startswith(said)


@pytest.mark.parametrize("width", [800, 2500])
def test_the_preview_of_a_big_comparison_is_averaged_and_keeps_its_gap(host, width):
    """Grain has as little contrast as in a reduced picture, and the gap is wide enough to be seen."""
    grain = torch.rand(1, 600, width, 3, generator=torch.Generator().manual_seed(0))
    made = run(host, "JoReSCompare", before=grain, after=grain, mode="side by side", position=0.5)[0]
    preview = host.load("nodes.pictures").preview(made)
    assert max(preview.shape[1:3]) <= 1601 and preview.dtype == made.dtype
    shown = np.asarray(Image.fromarray((made[0].numpy() * 255).round().astype("uint8")).resize(preview.shape[2:0:-1]))
    inside = np.s_[20:-20, 20 : int(0.45 * preview.shape[2])]
    expected = (shown / 255)[inside].std()  # Pillow averages, too
    assert preview[0].numpy()[inside].std() == pytest.approx(expected, rel=0.2)
    white = (preview[0] > 0.99).all(-1).all(0)
    assert int(white.sum()) >= 3
