"""Deep shadows of 8 bits are smoothed before they are lifted; noise, detail and what more bits describe stay."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from jores.conditions import Keeper
from jores.config import PRESETS
from jores.imaging.deband import debanded
from jores.nets.decomposition import DecompositionNet
from jores.options import ClipOptions, SampleOptions
from jores.pipeline import decompose, enhance
from jores.tiling.tiler import Tiler
from jores.video import enhance_frames
from tests.tiny import TINY, shaken


def levels(*values: float) -> torch.Tensor:
    return torch.tensor(values).view(1, -1, 1, 1) / 255


def blocks(low: int, high: int, seed: int = 0) -> torch.Tensor:
    """Blocks of 8 pixels of a single colour each, as JPEG leaves them in the dark; whole levels."""
    drawn = torch.randint(low, high + 1, (1, 3, 12, 16), generator=torch.Generator().manual_seed(seed))
    return drawn.repeat_interleave(8, 2).repeat_interleave(8, 3) / 255


def spread(x: torch.Tensor) -> float:
    return x.std((2, 3)).mean().item() * 255


def test_blocks_of_the_darkest_levels_become_smooth_and_keep_their_mean():
    picture = blocks(0, 1)
    made = debanded(picture)
    assert spread(made) < 0.4 * spread(picture)
    assert (made - picture).mean((2, 3)).abs().max() * 255 < 0.05
    steps = [(x[..., 8::8] - x[..., 7:-1:8]).abs().mean() for x in (picture, made)]
    assert steps[1] < 0.15 * steps[0]


@pytest.mark.parametrize("kind", ["noise", "bright", "detail", "more bits"])
def test_everything_else_stays(kind):
    generator = torch.Generator().manual_seed(1)
    picture = {
        "noise": torch.randint(0, 7, (1, 3, 96, 128), generator=generator) / 255,
        "bright": blocks(9, 14),
        "detail": (torch.arange(128) // 4 % 2 * 4 / 255).expand(1, 3, 96, 128),
        "more bits": blocks(0, 1) + torch.rand((1, 3, 96, 128), generator=generator) / 255,
    }[kind]
    change = (debanded(picture) - picture).abs() * 255
    assert change.mean() < 0.03 and change.max() < 0.5


def test_an_edge_between_flat_shadows_and_light_keeps_its_place():
    picture = torch.cat([levels(1, 2, 1).expand(1, 3, 64, 64), levels(40, 30, 20).expand(1, 3, 64, 64)], 3)
    assert ((debanded(picture) - picture).abs() * 255).max() < 0.5


@pytest.mark.parametrize("size", [(1, 1), (3, 70), (61, 5), (50, 47)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_any_size_and_dtype(size, dtype):
    picture = levels(1, 0, 2).expand(2, 3, *size).to(dtype)
    made = debanded(picture)
    assert made.shape == picture.shape and made.dtype == dtype
    torch.testing.assert_close(made, picture, atol=1e-4, rtol=0)


def test_grey_stays_grey_and_pictures_without_deep_shadows_are_passed_on():
    made = debanded(blocks(0, 2)[:, :1].expand(1, 3, 96, 128))
    assert (made.amax(1) - made.amin(1)).max() < 1e-6
    bright = torch.rand(1, 3, 32, 32) * 0.5 + 0.1
    assert debanded(bright) is bright


def test_windows_see_what_the_whole_sees():
    nets = shaken(replace(TINY, decomposition=replace(TINY.decomposition, deband=True)))
    picture = blocks(0, 2, seed=3).repeat(1, 1, 2, 2)
    whole, tiled = (decompose(nets, picture, tiler=Tiler(tile)).picture for tile in (0, 128))
    assert ((whole - tiled).abs() * 255).mean() < 0.03


def test_every_preset_smooths_and_older_bundles_do_not():
    assert all(config.decomposition.deband for config in PRESETS.values())
    net, picture = DecompositionNet(TINY.decomposition), blocks(0, 1)
    torch.testing.assert_close(net(picture).picture, picture, atol=1e-6, rtol=0)


@pytest.mark.parametrize("height", [96, 200])
def test_the_light_of_banded_shadows_is_the_same_whole_in_tiles_and_in_a_clip(nets, height):
    """Whole, the proposal sees smoothed shadows; in tiles and in clips it saw those of the file."""
    low = torch.cat([blocks(0, 2, 1), blocks(1, 5, 2)], 3).repeat(1, 1, 3, 1)[:, :, :height]
    assert (debanded(low) - low).abs().max() * 255 > 0.5
    seen: dict[str, float] = {}

    class Noted(Keeper):
        def __init__(self, name: str) -> None:
            self.name = name

        def on_exposure(self, exposure: torch.Tensor) -> None:
            seen[self.name] = float(exposure)

    for name, tile in (("whole", 0), ("tiles", 64)):
        enhance(low, nets, options=SampleOptions(steps=0, tile=tile), keeper=Noted(name))
    clip = ClipOptions(keepers=(Noted("clip") for _ in range(2)))
    list(enhance_frames([low, low], nets, options=SampleOptions(steps=0), clip=clip))
    assert seen["tiles"] == pytest.approx(seen["whole"], rel=2e-3)
    assert seen["clip"] == pytest.approx(seen["whole"], rel=2e-3)
