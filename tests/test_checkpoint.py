"""Bundles: round trip, and a clear word that names the file for everything that is not one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from jores import pipeline
from jores.checkpoint import FORMAT_VERSION, CheckpointError, build, load_bundle, read_header, save_bundle
from tests.tiny import TINY, shaken


@pytest.fixture
def bundle(tmp_path):
    path = tmp_path / "model.safetensors"
    save_bundle(path, shaken(TINY), {"license": "MIT"}, dtype=None)
    return path


def test_round_trip_gives_the_same_picture(bundle):
    images = torch.rand(1, 3, 20, 30) * 0.1
    loaded = load_bundle(bundle)
    assert loaded.config == TINY and loaded.metadata["license"] == "MIT"
    before = shaken(TINY)
    for name, net in before.parts().items():
        weights = loaded.parts()[name].state_dict()
        assert all(torch.equal(weights[key], value) for key, value in net.state_dict().items())
    apart = (pipeline.enhance(images, loaded) - pipeline.enhance(images, before)).abs().max()
    assert apart < 1e-4  # convolutions of loaded weights sum in another order
    assert not any(p.requires_grad for p in loaded.denoiser.parameters())
    assert [p.name for p in bundle.parent.iterdir()] == ["model.safetensors"]


class LazyLinear(torch.nn.Linear):
    """As newer hosts build it where they stream weights to the device: none before a file is loaded, and then the
    file's own tensor."""

    def __init__(self, in_features, out_features, bias=True, **_factory):
        torch.nn.Module.__init__(self)
        self.in_features, self.out_features, self.weight, self.bias = in_features, out_features, None, None

    def _load_from_state_dict(self, state_dict, prefix, *_args):
        for name in ("weight", "bias"):
            if (value := state_dict.get(prefix + name)) is not None:
                setattr(self, name, torch.nn.Parameter(value, requires_grad=False))


def test_layers_that_have_no_weights_before_they_are_loaded(tmp_path):
    path = tmp_path / "half.safetensors"
    save_bundle(path, shaken(TINY), dtype=torch.float16)
    operations = SimpleNamespace(**{name: getattr(torch.nn, name) for name in dir(torch.nn)})
    operations.Linear = LazyLinear
    lazy, usual = load_bundle(path, operations=operations), load_bundle(path)
    for name, net in lazy.parts().items():
        assert {p.dtype for p in net.parameters()} == {torch.float32}, name
    images = torch.rand(1, 3, 20, 30) * 0.1
    assert torch.equal(pipeline.enhance(images, lazy), pipeline.enhance(images, usual))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="nowhere.safetensors: no such file"):
        load_bundle(tmp_path / "nowhere.safetensors")


@pytest.mark.parametrize("keep", [0, 5, 400, -10])
def test_a_truncated_file_is_named(bundle, keep):
    bundle.write_bytes(bundle.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match="model.safetensors"):
        load_bundle(bundle)


def test_a_bundle_may_be_read_by_whom_any_new_file_may(tmp_path):
    save_bundle(tmp_path / "model.safetensors", build(TINY))
    (tmp_path / "other").touch()
    assert (tmp_path / "model.safetensors").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_noise_and_foreign_models_are_refused(tmp_path):
    noise, foreign = tmp_path / "noise.safetensors", tmp_path / "sdxl.safetensors"
    noise.write_bytes(bytes(range(256)) * 8)
    save_file({"weight": torch.zeros(3)}, foreign, metadata={"format": "pt"})
    for path in (noise, foreign):
        with pytest.raises(CheckpointError, match=path.name):
            load_bundle(path)


@pytest.mark.parametrize("harm", ["drop", "add", "reshape"])
def test_weights_that_do_not_fit_are_counted_and_named(bundle, harm):
    tensors, header = load_file(bundle), {"format": "jores-diff", "config": json.dumps(TINY.to_dict())}
    key = "denoiser.stem.weight"
    if harm == "drop":
        del tensors[key]
    elif harm == "add":
        tensors["denoiser.surplus"] = torch.zeros(1)
    else:
        tensors[key] = tensors[key][:1].contiguous()
    save_file(tensors, bundle, metadata=header)
    with pytest.raises(CheckpointError, match=r"model.safetensors: its denoiser weights do not fit its config: 1 "):
        load_bundle(bundle)


def test_a_config_nobody_knows_is_refused(bundle):
    config = TINY.to_dict()
    config["denoiser"]["colour"] = "red"
    save_file(load_file(bundle), bundle, metadata={"format": "jores-diff", "config": json.dumps(config)})
    with pytest.raises(CheckpointError, match="colour"):
        read_header(bundle)


def test_a_bundle_of_a_newer_format_is_refused_by_name_and_an_older_one_loads(bundle):
    tensors, header = load_file(bundle), {"format": "jores-diff", "config": json.dumps(TINY.to_dict())}
    with safe_open(bundle, framework="pt") as file:
        assert file.metadata()["format_version"] == str(FORMAT_VERSION)
    for version in (str(FORMAT_VERSION + 1), "", "one"):
        save_file(tensors, bundle, metadata={**header, "format_version": version})
        with pytest.raises(CheckpointError, match=f"model.safetensors: a bundle of format {version}, .* Update"):
            load_bundle(bundle)
    save_file(tensors, bundle, metadata=header)  # as they were written before there was a version
    assert load_bundle(bundle).config == TINY


def test_an_interrupted_write_leaves_the_old_file(bundle, monkeypatch):
    before = bundle.read_bytes()
    monkeypatch.setattr(Path, "write_bytes", _full_disk)
    with pytest.raises(OSError, match="No space left"):
        save_bundle(bundle, build(TINY))
    assert bundle.read_bytes() == before
    assert [p.name for p in bundle.parent.iterdir()] == ["model.safetensors"]


def _full_disk(path, data):
    with path.open("wb") as file:
        file.write(data[: len(data) // 2])
    raise OSError("No space left on device")


@pytest.mark.slow
def test_the_library_runs_where_the_host_is_absent():
    code = (
        "import sys; sys.modules['comfy'] = None; sys.modules['comfy_api'] = None; sys.modules['folder_paths'] = None\n"
        "import torch; from jores import pipeline; from jores.checkpoint import build\n"
        "from jores.options import SampleOptions; options = SampleOptions(steps=1)\n"
        "from tests.tiny import TINY\n"
        "assert pipeline.enhance(torch.zeros(1, 3, 5, 5), build(TINY), options=options).shape == (1, 3, 5, 5)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])
