"""Bundles of release 0.1 load, and give the pictures that release 0.1 made of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from jores.checkpoint import build, load_bundle, save_bundle
from jores.options import SampleOptions
from jores.pipeline import enhance
from tests.test_nets import TINY_0_1

FIGURES = {  # measured with the code of release 0.1: means of red, green and blue, standard deviation, three pixels
    (1, 0): (0.39710, 0.39654, 0.40921, 0.20160, 0.65602, 0.62250, 0.22951),
    (3, 0): (0.39707, 0.39648, 0.40917, 0.20112, 0.64909, 0.62016, 0.22536),
    (2, 64): (0.39707, 0.39649, 0.40916, 0.20139, 0.65284, 0.62220, 0.22733),
}


def bundle_of_0_1(path: Path) -> Path:
    """As release 0.1 wrote it: without a format version, and without what later configs hold. The weights are waves."""
    nets = build(TINY_0_1)
    with torch.no_grad():
        for part in nets.parts().values():
            for number, (name, weight) in enumerate(sorted(part.named_parameters())):
                wave = (torch.arange(weight.numel()) * 0.7 + number).sin().view_as(weight)
                weight.copy_(1 + 0.1 * wave if name.endswith("norm.weight") else 0.05 * wave)
    save_bundle(path, nets, dtype=None)
    with safe_open(path, framework="pt") as file:
        header, weights = dict(file.metadata()), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    config = json.loads(header["config"])
    del header["format_version"], config["adjustment"]["light_bins"]
    save_file(weights, path, metadata={**header, "config": json.dumps(config)})
    return path


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
