"""Fixtures of more than one file of tests. A file may have others of these names, which it then gets instead."""

from __future__ import annotations

import importlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from jores.checkpoint import save_bundle
from tests.graphs import SEGMENTER, SHIPPED, conditioned, run, scene
from tests.tiny import TINY, shaken


@pytest.fixture(scope="module")
def pack(jores_pack_nodes, comfy_inprocess):
    """The pack's nodes by id, its own copy of the library, and nodes of the host."""
    load = lambda name: importlib.import_module(f"jores_pack.{name}")  # noqa: E731
    return SimpleNamespace(
        nodes=jores_pack_nodes, stock=comfy_inprocess.nodes, base=comfy_inprocess.base, pipeline=load("jores.pipeline"),
        custom=importlib.import_module("comfy_extras.nodes_custom_sampler"), checkpoint=load("jores.checkpoint"),
        config=load("jores.config"), native=load("nodes.host.model"), load=load,
    )  # fmt: skip


@pytest.fixture(scope="module")
def host(pack):
    """`pack`, with the host's nodes that patch models."""
    advanced = importlib.import_module("comfy_extras.nodes_model_advanced")
    return SimpleNamespace(**vars(pack), model_advanced=advanced)


@pytest.fixture(scope="module")
def graph(host):
    """The shipped model, and what was made with it of one picture, another one and a batch."""
    model, nets, _vae = run(host, "JoReSLoadModel", model_name=SHIPPED)
    segmenter = run(host, "JoReSLoadSegmenter", segmenter_name=SEGMENTER)[0]
    one, batch = (conditioned(host, model, nets, scene(seed, count)) for seed, count in ((0, 1), (1, 3)))
    other = conditioned(host, model, nets, scene(7))
    return SimpleNamespace(plain=model, nets=nets, segmenter=segmenter, one=one, other=other, batch=batch)


@pytest.fixture(scope="module", params=["compact", "eps"])
def model(pack, request):
    """A bundle with random weights in models/jores, loaded by the node; nothing in it is left at zero.

    "eps" has the schedule and the prediction of the preset "paper".
    """
    config = pack.config.PRESETS["compact"]
    if request.param == "eps":
        values = {**config.to_dict(), "schedule": pack.config.PRESETS["paper"].to_dict()["schedule"]}
        values["denoiser"] = {**values["denoiser"], "picture_std": 0.0}
        config = pack.config.JoReSConfig.from_dict(values)
    torch.manual_seed(0)
    nets = pack.checkpoint.build(config)
    for part in nets.parts().values():
        for layer in part.modules():
            if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear) and not layer.weight.any():
                torch.nn.init.normal_(layer.weight, std=0.03)
    folder = pack.base / "models" / "jores"
    folder.mkdir(exist_ok=True)
    pack.checkpoint.save_bundle(folder / f"{request.param}.safetensors", nets)
    loaded = pack.checkpoint.load_bundle(folder / f"{request.param}.safetensors")
    diffusion, patchers, vae = run(pack, "JoReSLoadModel", model_name=f"{request.param}.safetensors")
    segmenter = run(pack, "JoReSLoadSegmenter", segmenter_name=SEGMENTER)[0]
    # An eps prediction divides by sqrt(alpha_bar) = 0.0067 at the first step: roundings grow 150-fold with it.
    tolerance = {"compact": 1e-4, "eps": 2e-3}[request.param]
    return SimpleNamespace(
        model=diffusion, nets=patchers, vae=vae, segmenter=segmenter, library=loaded, name=request.param,
        tolerance=tolerance,
    )  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Eight tiny pairs in the layout of LOL v1: smooth colours, and a noisy tenth of them."""
    root, rng = tmp_path_factory.mktemp("pairs"), np.random.default_rng(0)
    (root / "low").mkdir()
    (root / "high").mkdir()
    rows = ["id\tsplit\tlow\thigh"]
    for i in range(8):
        small = Image.fromarray(rng.integers(40, 250, (5, 7, 3), dtype=np.uint8))
        high = np.asarray(small.resize((72, 56), Image.Resampling.BICUBIC))
        low = (high * 0.1 + rng.normal(0, 2, high.shape)).clip(0, 255).astype(np.uint8)
        Image.fromarray(high).save(root / f"high/{i}.png")
        Image.fromarray(low).save(root / f"low/{i}.png")
        rows.append(f"{i}\t{'val' if i > 5 else 'train'}\tlow/{i}.png\thigh/{i}.png")
    (root / "pairs.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return root


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    """Options of the command line for a tiny bundle and a quick run."""
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_bundle(path, shaken(TINY))
    return ["--weights", str(path), "--segmenter", "none", "--device", "cpu", "--steps", "1"]
