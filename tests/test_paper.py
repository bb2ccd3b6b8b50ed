"""Sheets of paper, laid over photographs to train the proposal of light, and what the shipped one makes of pages."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from jores.imaging.exposure import luma
from jores.training.expose import Expose
from jores.training.pairs import Pair
from jores.training.paper import Paper
from jores.training.views import FOR_ALL
from tests.tiny import TINY, shaken

SIZE = (192, 256)


def sheet(**changes) -> Paper:
    paper = Paper((0.95, 0.94, 0.9), 0.5, 12 / 192, 0.0, (0.0, 0.0), (0.8, 0.6), 1.0, 3)
    return replace(paper, **changes)


def dim_photos(count: int) -> list[Pair]:
    rng = np.random.default_rng(0)
    blocks = (np.kron(rng.integers(0, 90, (8, 9, 3)), np.ones((8, 8, 1))) for _ in range(count))
    return [Pair(str(i), pixels.astype(np.uint8)) for i, pixels in enumerate(blocks)]


def test_the_sheet_covers_its_place_alone_and_is_bright_between_its_lines():
    picture = torch.full((3, *SIZE), 0.3)
    made = sheet()(picture)
    covered = (made != picture).all(0)
    rows, columns = covered.nonzero().unbind(1)
    assert rows.min() == pytest.approx(0.4 * 96, abs=2) and rows.max() == pytest.approx(1.6 * 96, abs=2)
    assert columns.min() == pytest.approx(128 - 0.8 * 96, abs=2)  # lengths along the lines are half heights, too
    assert torch.equal(made[:, ~covered], picture[:, ~covered])
    inside = luma(made[None])[0, 0][covered]
    assert 0.6 < (inside > 0.9).float().mean() < 0.8 and (inside < 0.5).float().mean() > 0.2


def test_lines_are_as_far_apart_as_told_and_a_blank_sheet_has_none():
    made = luma(sheet(radii=(4.0, 4.0))(torch.zeros(3, *SIZE))[None])[0, 0]
    rows = made.mean(1)
    assert (rows[24:-24] - rows[12:-36]).abs().mean() < (rows[24:-24] - rows[18:-30]).abs().mean() / 2
    assert sheet(ink=0.0, radii=(4.0, 4.0))(torch.zeros(3, *SIZE)).std((1, 2)).max() < 1e-6


def test_the_light_falls_off_to_the_far_end():
    made = luma(sheet(ink=0.0, radii=(2.0, 2.0), dimmed=0.5)(torch.zeros(3, *SIZE))[None])[0, 0].mean(0)
    assert (made.diff() <= 1e-6).all() and 0.5 < made[-1] / made[0] < 0.8


def test_settings_are_drawn_within_their_bounds_and_the_same_for_the_same_seed():
    drawn = [Paper.draw(np.random.default_rng(seed)) for seed in range(60)]
    assert drawn[7] == Paper.draw(np.random.default_rng(7))
    assert min(min(one.tone) for one in drawn) > 0.75 and any(one.ink == 0 for one in drawn)
    for one in drawn:
        made = one(torch.rand(3, *SIZE, generator=torch.Generator().manual_seed(1)))
        assert made.shape == (3, *SIZE) and made.min() >= 0 and made.max() <= 1


def test_a_share_of_the_batch_is_paper_some_of_it_well_lit():
    photos = dim_photos(24)
    pairs = [Pair("pair", photos[0].high, photos[0].high // 3)]
    tiny = shaken(replace(TINY, adjustment=replace(TINY.adjustment, light_bins=2, light_experts=2)))
    data = {"views": 1, "batch": 64, "lit": 0.0, "photos": 0.0, "own": 0.0}
    plain, written = (Expose(tiny, pairs, photos, pairs[:1], {**data, "paper": share}) for share in (0.0, 0.5))
    assert len(plain.pools) == len(written.pools) - 1
    bright = written.batch(np.random.default_rng(1))["exposure"] > 0.4  # no photograph is
    assert 0.3 < bright.float().mean() < 0.6 and not (plain.batch(np.random.default_rng(1))["exposure"] > 0.4).any()
    samples = written.pools[-1].samples
    own = samples["known"][:, 0].exp()
    assert 0.1 < ((own - samples["exposure"]).abs() < 1e-3).float().mean() < 0.7
    assert (own < 0.5 * samples["exposure"]).any()


def test_the_expert_of_paper_learns_from_it_alone_and_the_others_from_photographs_alone():
    photos = dim_photos(8)
    pairs = [Pair("pair", photos[0].high, photos[0].high // 3)]
    tiny = shaken(replace(TINY, adjustment=replace(TINY.adjustment, light_bins=2, light_experts=3)))
    data = {"views": 1, "batch": 16, "lit": 0.0, "photos": 0.3, "own": 0.0, "experts": [0], "paper_expert": 2}
    stage = Expose(tiny, pairs, photos, pairs[:1], {**data, "paper": 0.4})
    objective, batch = stage.objective, stage.batch(np.random.default_rng(0))
    assert objective.common == [0, 1] and {FOR_ALL, 2} <= set(batch["expert"].tolist())
    for number, alone in ((FOR_ALL, [0, 1]), (2, [2])):
        objective.zero_grad()
        objective({key: values[batch["expert"] == number] for key, values in batch.items()})["loss"].backward()
        assert [i for i, head in enumerate(objective.net.heads) if head.out.weight.grad.abs().sum() > 0] == alone
        assert objective.net.sorter.out.weight.grad.abs().sum() > 0
    with pytest.raises(ValueError, match="paper_expert: 3 is not one of the 3 experts"):
        Expose(tiny, pairs, photos, pairs[:1], {**data, "paper": 0.4, "paper_expert": 3})


@pytest.mark.parametrize("stops", [3, 4, 5])
def test_a_dark_page_is_proposed_white(nets, stops):
    """It came out grey, at a mean of .6: the head knew rooms alone."""
    rng = np.random.default_rng(4)
    page = torch.full((1, 3, *SIZE), 0.93)
    for row in range(14, 180, 9):
        words = torch.from_numpy(rng.random(56) < 0.75).float().repeat_interleave(4)
        page[..., row : row + 4, 16:240] -= 0.7 * words
    page = F.avg_pool2d(page, 3, 1, 1, count_include_pad=False)
    dark = ((page**2.2 / 2**stops) ** (1 / 2.2) * 255).round() / 255
    thumbnail = F.avg_pool2d(dark, 4)
    proposed = nets.anet.exposure_head(thumbnail, nets.anet.seen(dark)).item()
    assert 0.85 < proposed / luma(page).mean().item() < 1.15
