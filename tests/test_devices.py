"""The nets on a device of their own, the pictures in main memory: nothing may meet that PyTorch keeps apart."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from jores import pipeline
from jores.checkpoint import SHIPPED_SEGMENTER
from jores.imaging import metal
from jores.semantics import load_segmenter
from jores.video import enhance_frames
from tests.flat import flat
from tests.other_device import DEVICE, METAL, Elsewhere, move, other_device
from tests.tiny import TINY, shaken


@pytest.fixture(scope="module")
def here():
    return shaken(TINY)


@pytest.fixture(scope="module")
def there():
    nets = shaken(TINY)
    for part in nets.parts().values():
        move(part)
    return nets


def dark(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 0.1


def test_the_other_device_refuses_what_an_accelerator_refuses():
    with other_device():
        x, y = torch.ones(3, device=DEVICE), torch.ones(3)
        with pytest.raises(RuntimeError, match="same device"):
            x + y
        assert isinstance(x + y.to(DEVICE), Elsewhere) and torch.equal((x + y.to(DEVICE)).cpu(), y + y)
        assert isinstance(x * torch.tensor(2.0), Elsewhere)  # a scalar may come from anywhere
        assert isinstance(x[torch.tensor([0, 2])], Elsewhere)  # and so may an index
        x[1:] = 5
        assert x.cpu().tolist() == [1, 5, 5] and x[[2, 0]].cpu().tolist() == [5, 1]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"eta": 1.0, "exposure": 0.3, "strength": 0.7, "shadows": 0.5, "colour_fidelity": 0.5},
        {"exposure": torch.tensor([0.3, 0.5]), "mask": torch.ones(2, 1, 70, 100) / 2, "feather": 3},
        {"tile": 64},
        {"tile": 64, "eta": 1.0, "callback": lambda done, steps, x0: None},
        {"working_size": 64},
    ],
    ids=["plain", "dials", "tensors", "tiles", "tiles with a preview", "reduced"],
)
def test_pictures_in_main_memory_are_enhanced_elsewhere(here, there, options):
    low = dark(2, 4, 70, 100)
    with other_device():
        made = flat(pipeline.enhance)(low, there, steps=2, **options)
        assert made.device.type == "cpu"
    # In tiles the conditions wait in half precision for the next step, and its last bit may fall either way: by 2e-4
    # in the result with two threads, by 5.1e-4 with one.
    bound = 1e-3 if "tile" in options else 1e-4
    assert (made - flat(pipeline.enhance)(low, here, steps=2, **options)).abs().max() < bound


def test_averages_over_areas_where_the_device_has_them_for_even_grids_only(here, there, monkeypatch):
    """As Apple's Metal does."""
    pool, refused = F.adaptive_avg_pool2d, []

    def even_only(x, size):
        refused.extend(n for n, m in zip(x.shape[-2:], size, strict=True) if x.device == DEVICE and n % m)
        return pool(x, size)

    monkeypatch.setattr(F, "adaptive_avg_pool2d", even_only)
    monkeypatch.setattr(metal, "DEVICES", {DEVICE.type})
    low = dark(3, 1, 3, 100, 150)
    want = torch.cat(list(flat(enhance_frames)(low, here, steps=1)))
    with other_device():
        made = list(flat(enhance_frames)(low, there, steps=1, device=DEVICE))
        made = torch.cat([frame.cpu() for frame in made])
        with torch.inference_mode():
            flat(pipeline.enhance)(low[0].to(DEVICE), there, steps=1, colour_fidelity=0.5, working_size=90)
    assert (made - want).abs().max() < 1e-4 and not refused


def test_pictures_that_are_there_stay_there(here, there):
    low = dark(1, 3, 40, 40)
    with torch.inference_mode(), other_device():
        made = flat(pipeline.enhance)(low.to(DEVICE), there, steps=1)
        assert isinstance(made, Elsewhere)
    assert (made.twin - flat(pipeline.enhance)(low, here, steps=1)).abs().max() < 1e-4


@pytest.mark.parametrize("lacking", [(), METAL], ids=["", "metal"])
def test_the_segmenter_gives_its_map_where_the_nets_are(segmenter, here, there, monkeypatch, lacking):
    """Before: it resized with a filter there, which Apple's GPUs have only since PyTorch 2.7."""
    if lacking:
        monkeypatch.setattr(metal, "DEVICES", {DEVICE.type})
    low = dark(1, 3, 60, 90)
    want = flat(pipeline.enhance)(low, here, segmenter, steps=1)
    elsewhere = move(load_segmenter(SHIPPED_SEGMENTER))
    with other_device(lacking):
        made = flat(pipeline.enhance)(low, there, elsewhere, steps=1)
        with torch.inference_mode():
            flat(pipeline.enhance)(low.to(DEVICE), there, elsewhere, steps=1, colour_fidelity=0.5, shadows=0.5)
    assert (made - want).abs().max() < 1e-4


def test_a_clip_is_worked_on_there_and_waits_here(here, there):
    frames = list(dark(4, 1, 3, 40, 56))
    want = torch.cat(list(flat(enhance_frames)(frames, here, steps=1)))
    with other_device():
        made = list(flat(enhance_frames)(frames, there, steps=1, device=DEVICE))
        made = torch.cat([frame.cpu() for frame in made])
    assert (made - want).abs().max() < 1e-4
