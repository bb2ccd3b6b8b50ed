"""Averages of bundles: the mean of all weights, with a record; what does not fit together is refused by name."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from jores.checkpoint import load_bundle, save_bundle
from jores.training import average
from tests.tiny import TINY, shaken

pytestmark = pytest.mark.slow


@pytest.fixture
def bundles(tmp_path):
    paths = [tmp_path / f"{i}.safetensors" for i in range(2)]
    for i, path in enumerate(paths):
        nets = shaken(TINY)
        with torch.no_grad():
            for part in nets.parts().values():
                for weight in part.parameters():
                    weight.mul_(1 + 2 * i)
        stages = [{"stage": "decompose"}, {"stage": "adjust", "step": i}]
        save_bundle(path, nets, {"licence": f"of {i}", "training": json.dumps(stages)})
    return paths


def test_three_quarters_of_one_and_a_quarter_of_the_other(bundles, tmp_path):
    out = tmp_path / "mean.safetensors"
    assert average.main([str(out), *map(str, bundles), "--weights", "3", "1"]) == 0
    a, b, mean = (load_bundle(path) for path in (*bundles, out))
    for name, part in mean.parts().items():
        for key, value in part.state_dict().items():
            old, new = (getattr(nets, name).state_dict()[key] for nets in (a, b))
            assert torch.allclose(value, 0.75 * old + 0.25 * new, atol=2e-3), (name, key)
    assert not torch.equal(a.adjustment.stem.weight, b.adjustment.stem.weight)
    assert mean.metadata["licence"] == "of 1"
    assert json.loads(mean.metadata["training"]) == [
        {"stage": "decompose"}, {"stage": "adjust", "step": 1},
        {"stage": "average", "weights": [0.75, 0.25], "others": [[{"stage": "adjust", "step": 0}]]},
    ]  # fmt: skip


def test_what_cannot_be_averaged_is_refused_and_leaves_no_file(bundles, tmp_path, capsys):
    out, other = tmp_path / "mean.safetensors", tmp_path / "other.safetensors"
    nets = shaken(TINY)
    nets.config = replace(nets.config, name="another")
    save_bundle(other, nets)
    for arguments, complaint in (
        ([*bundles, "--weights", "1"], "1 weights for 2 bundles"),
        ([bundles[0], other, "--weights", "1", "1"], "differ in their config"),
        ([*bundles, "--weights", "0", "0"], "the weights 0.0 0.0 must be finite, with a sum above 0"),
        ([*bundles, "--weights", "1", "nan"], "must be finite"),
        ([bundles[0], tmp_path / "none.safetensors", "--weights", "1", "1"], "none.safetensors"),
    ):
        with pytest.raises(SystemExit):
            average.main([str(out), *map(str, arguments)])
        assert complaint in capsys.readouterr().err and not out.exists()


def test_no_bundle_is_replaced_unasked(bundles, tmp_path, capsys):
    command = [*map(str, bundles), "--weights", "1", "1"]
    before = bundles[0].read_bytes()
    with pytest.raises(SystemExit):
        average.main([str(bundles[0]), *command, "--overwrite"])
    assert "would replace" in capsys.readouterr().err and bundles[0].read_bytes() == before
    present = tmp_path / "mean.safetensors"
    present.write_text("mine")
    with pytest.raises(SystemExit):
        average.main([str(present), *command])
    assert "add --overwrite" in capsys.readouterr().err and present.read_text() == "mine"
    assert average.main([str(present), *command, "--overwrite"]) == 0 and load_bundle(present)
