"""What costs a test nothing: nets and bundles of toy size, names for a segmenter, a keeper that remembers."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch.nn import functional as F

from jores.checkpoint import build, save_bundle
from jores.conditions import Keeper
from jores.config import PRESETS, AdjustmentConfig, DecompositionConfig, DenoiserConfig, JoReSConfig, RefinementConfig

F_WIDTHS = (16, 16, 24)
TINY = JoReSConfig(
    "tiny",
    DecompositionConfig(8, 1),
    AdjustmentConfig((8, *F_WIDTHS), (1, 1, 1, 1), (1, 1, 1), 4, 8, light_bins=4),
    DenoiserConfig(4, (16, 16, 16), (1, 1, 1), 2, 32, 8, feature_widths=F_WIDTHS),
    RefinementConfig(4, (16, 16), 1, 16, feature_widths=F_WIDTHS),
)
TINY_0_1 = dataclasses.replace(TINY, adjustment=dataclasses.replace(TINY.adjustment, light_bins=0))
C = 0.12
FLOW = replace(
    TINY,
    denoiser=replace(TINY.denoiser, fold=2, picture_std=0.0, detail_std=C),
    schedule=replace(PRESETS["texture"].schedule, detail_std=C),
)


def shaken(config, dtype=torch.float32):
    """Nets whose zero-initialised layers have been moved, so that every path has a say."""
    torch.manual_seed(0)
    nets = build(config)
    for part in nets.parts().values():
        for p in part.parameters():
            torch.nn.init.normal_(p, std=0.1) if not p.any() else None
        part.to(dtype)
    return nets


def seeded(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def batch_of(count=4, side=32):
    gen = torch.Generator().manual_seed(7)
    high = torch.rand(count, 3, side, side, generator=gen)
    place = torch.tensor([[1.0, 0, 0], [0, 1.0, 0]]).expand(count, 2, 3)
    thumbnail = F.interpolate(high * 0.1, (48, 64))
    return {
        "low": high * 0.1, "high": high, "thumbnail": thumbnail, "place": place,
        "input_mean": thumbnail.mean((2, 3)), "exposure": torch.full((count,), 0.5), "shadows": torch.ones(count, 2),
    }  # fmt: skip


def flow_nets():
    torch.manual_seed(3)
    nets = build(FLOW)
    torch.nn.init.normal_(nets.unet.head.weight, std=0.05)
    return nets


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


NAMES = ("wall", "building", "sky", *(f"class {i}" for i in range(3, 150)))
"""Of a segmenter, in ADE20K's order."""


class Memory(Keeper):
    """Keeps everything, and writes down what it had to have made."""

    keeps = True

    def __init__(self):
        self.values, self.made = {}, []

    def __call__(self, what, make):
        if what not in self.values:
            self.values[what] = make()
            self.made.append(what[0])
        return self.values[what]
