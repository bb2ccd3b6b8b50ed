"""Bundles of release 0.1 load, and give the pictures that release 0.1 made of them."""

from __future__ import annotations

import pytest
import torch

from jores.checkpoint import load_bundle
from jores.options import SampleOptions
from jores.pipeline import enhance
from tests.tiny import bundle_of_0_1

FIGURES = {  # measured with the code of release 0.1: means of red, green and blue, standard deviation, three pixels
    (1, 0): (0.39710, 0.39654, 0.40921, 0.20160, 0.65602, 0.62250, 0.22951),
    (3, 0): (0.39707, 0.39648, 0.40917, 0.20112, 0.64909, 0.62016, 0.22536),
    (2, 64): (0.39707, 0.39649, 0.40916, 0.20139, 0.65284, 0.62220, 0.22733),
}


def picture() -> torch.Tensor:
    rows, columns = torch.meshgrid(torch.arange(72.0), torch.arange(100.0), indexing="ij")
    waves = [(rows * a).sin() * (columns * b).cos() for a, b in ((0.11, 0.07), (0.05, 0.13), (0.21, 0.03))]
    return 0.06 + 0.05 * torch.stack(waves)[None]


def figures(made: torch.Tensor) -> tuple[float, ...]:
    places = (made[0, 0, 5, 7], made[0, 1, 40, 50], made[0, 2, 71, 99])
    return (*made.mean((0, 2, 3)).tolist(), made.std().item(), *(float(value) for value in places))


@pytest.mark.parametrize(("steps", "tile"), FIGURES)
def test_a_bundle_of_release_0_1_gives_its_pictures(tmp_path, steps, tile):
    nets = load_bundle(bundle_of_0_1(tmp_path / "old.safetensors"))
    made = enhance(picture(), nets, None, SampleOptions(steps, seed=3, tile=tile))
    assert figures(made) == pytest.approx(FIGURES[steps, tile], abs=2e-4)
    assert made.std() > 0.02
