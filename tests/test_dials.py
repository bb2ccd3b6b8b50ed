"""Brightness in EV, quality, and what is kept from one run to the next: in the library, and on its command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from jores import cli, picture_statistics, pipeline
from jores.conditions import Keeper
from jores.files.pictures import Picture, write_image
from jores.imaging.exposure import BRIGHTEST, DIMMEST, brightened
from jores.limits import DRAFT_SIZE, FINE_STEPS, QUALITIES
from jores.options import SampleOptions, at_quality
from jores.video import enhance_frames
from tests.flat import flat
from tests.tiny import Memory


def dark(count: int = 1, size: tuple[int, int] = (32, 48)) -> torch.Tensor:
    y, x = torch.meshgrid(torch.linspace(0, 1, size[0]), torch.linspace(0, 1, size[1]), indexing="ij")
    scene = torch.stack([0.2 + 0.6 * x, 0.3 + 0.4 * y, 0.8 - 0.5 * x])[None] * 0.08
    noise = torch.randn(count, *scene.shape[1:], generator=torch.Generator().manual_seed(0)) * 0.004
    return (scene + noise).clamp(0, 1)


def reference(exposure: float, stops: float) -> float:
    """The formula in words, in double precision: decode sRGB, times two for every stop, encode."""
    light = exposure / 12.92 if exposure <= 0.04045 else ((exposure + 0.055) / 1.055) ** 2.4
    light *= 2**stops
    return 12.92 * light if light <= 0.0031308 else 1.055 * light ** (1 / 2.4) - 0.055


def test_a_stop_is_twice_the_light():
    exposures = [0.03, 0.1, 0.2, 0.35, 0.5, 0.7]
    for stops in (-2.0, -0.7, 0.1, 1.0, 2.0):
        got = brightened(torch.tensor(exposures), stops)
        wanted = [min(max(reference(e, stops), DIMMEST), BRIGHTEST) for e in exposures]
        torch.testing.assert_close(got, torch.tensor(wanted), atol=1e-5, rtol=0)
    assert torch.equal(brightened(torch.tensor([1.0, 0.001]), 0.0), torch.tensor([1.0, 0.001]))


def test_what_lies_beyond_the_ends_is_not_turned_back():
    ends = torch.tensor([0.005, 0.96])
    assert (brightened(ends, 1.0) >= ends).all() and (brightened(ends, -1.0) <= ends).all()
    steps = torch.stack([brightened(ends, s / 10) for s in range(-20, 21)])
    assert (steps.diff(dim=0) >= 0).all()


class Listener(Keeper):
    """Hears of the exposures."""

    def __init__(self) -> None:
        self.exposures: list[torch.Tensor] = []

    def on_exposure(self, exposure: torch.Tensor) -> None:
        self.exposures.append(exposure)


def test_brightness_is_relative_to_the_exposure_proposed_or_told(nets):
    low = dark()
    proposed = picture_statistics.wanted_exposure(nets, low, None)
    listener = Listener()
    auto = flat(pipeline.enhance)(low, nets, brightness=0.8, steps=1, keeper=listener)
    maps = pipeline.decompose(nets, low)
    aim = brightened(picture_statistics.wanted_exposure(nets, maps.picture, None), 0.8)
    assert torch.equal(listener.exposures[0], aim) and aim > proposed
    assert torch.equal(auto, flat(pipeline.enhance)(low, nets, exposure=aim, steps=1))
    by_number = flat(pipeline.enhance)(low, nets, exposure=0.3, brightness=-1.0, steps=1)
    aim = brightened(torch.tensor([0.3]), -1)
    assert torch.equal(by_number, flat(pipeline.enhance)(low, nets, exposure=aim, steps=1))
    assert by_number.mean() < auto.mean()


@pytest.mark.parametrize("stops", [2.1, -3, float("nan")])
def test_brightness_out_of_range_is_refused(stops):
    with pytest.raises(ValueError, match="brightness must be between -2 and 2 EV"):
        SampleOptions(brightness=stops)


def test_a_clip_follows_the_brightness(nets):
    frames = dark(3).split(1)
    means = []
    for stops in (-1.0, 0.0, 1.0):
        listener = Listener()
        dials = {"steps": 1, "exposure": 0.3, "brightness": stops}
        made = list(flat(enhance_frames)(frames, nets, keepers=[listener] * 3, **dials))
        assert len(listener.exposures) == len(made) == 3
        means.append(torch.cat(made).mean().item())
    assert means[0] < 0.9 * means[1] < 0.8 * means[2]


def test_a_draft_is_the_picture_before_the_diffusion(nets, segmenter):
    low, draft = dark(), at_quality(SampleOptions(), "draft")
    assert (draft.steps, draft.working_size) == (0, DRAFT_SIZE)
    condition = pipeline.adjust(nets, pipeline.decompose(nets, low))
    torch.testing.assert_close(pipeline.enhance(low, nets, segmenter, draft), condition.picture, atol=1e-6, rtol=0)
    in_tiles = flat(pipeline.enhance)(dark(1, (80, 150)), nets, steps=0, tile=64)
    whole = flat(pipeline.enhance)(dark(1, (80, 150)), nets, steps=0, tile=0)
    assert (in_tiles - whole).abs().mean() < 0.01
    wide = pipeline.enhance(dark(1, (8, DRAFT_SIZE + 76)), nets, None, draft)
    assert wide.shape == (1, 3, 8, DRAFT_SIZE + 76)


def test_qualities_move_no_dial_that_is_set():
    chosen = SampleOptions(steps=20, seed=3, exposure=0.4, working_size=600)
    assert at_quality(chosen, "standard") is chosen and at_quality(chosen, "fine") == chosen
    assert at_quality(SampleOptions(), "fine").steps == FINE_STEPS > SampleOptions().steps
    assert at_quality(chosen, "draft").working_size == 600 and at_quality(chosen, "draft").exposure == 0.4
    with pytest.raises(ValueError, match="draft, standard or fine, not best"):
        at_quality(chosen, "best")
    assert QUALITIES == ("draft", "standard", "fine")


DIALS = {
    "strength": ({"strength": 0.4}, []),
    "shadows": ({"shadows": 0.7}, []),
    "colours": ({"colour_fidelity": 0.5}, []),
    "exposure": ({"exposure": 0.25}, ["x0"]),
    "brightness": ({"brightness": 0.5}, ["x0"]),
    "seed": ({"seed": 9}, ["x0"]),
    "exposure of each": ({"exposure": torch.tensor([0.25])}, ["x0"]),
    "steps": ({"steps": 1}, ["x0"]),
    "texture": ({"texture": 0.5}, ["x0"]),
    "eta": ({"eta": 0.5}, ["x0"]),
    "tile that covers it": ({"tile": 64}, []),
    "draft": ({"steps": 0}, ["x0"]),
    "working size": ({"working_size": 32}, ["maps", "prior", "x0"]),
}


@pytest.mark.parametrize("dial", DIALS)
def test_a_turned_dial_costs_only_what_depends_on_it(nets, segmenter, dial):
    """And gives, to the last bit, what a run from nothing gives."""
    low, memory, rest = dark(), Memory(), {"steps": 2, "tile": 0}
    first = flat(pipeline.enhance)(low, nets, segmenter, **rest, keeper=memory)
    assert sorted(memory.made) == ["maps", "prior", "x0"]
    memory.made.clear()
    change, wanted = DIALS[dial]
    got = flat(pipeline.enhance)(low, nets, segmenter, **(rest | change), keeper=memory)
    assert sorted(memory.made) == wanted
    assert torch.equal(got, flat(pipeline.enhance)(low, nets, segmenter, **(rest | change)))
    assert torch.equal(first, flat(pipeline.enhance)(low, nets, segmenter, **rest, keeper=memory))


def test_a_draft_has_no_noise_and_so_no_seed(nets):
    low, memory = dark(), Memory()
    first = flat(pipeline.enhance)(low, nets, steps=0, tile=0, keeper=memory)
    memory.made.clear()
    assert torch.equal(first, flat(pipeline.enhance)(low, nets, steps=0, tile=0, seed=9, keeper=memory))
    assert memory.made == []


@pytest.mark.parametrize("change", [{"steps": 0}, {"texture": 0.0}, {"strength": 0.5}], ids=["draft", "smooth", "kept"])
def test_a_picture_that_is_not_sampled_is_reported_once(nets, change):
    memory, heard, steps = Memory(), [], change.get("steps", 2) or 1
    flat(pipeline.enhance)(dark(), nets, steps=2, tile=0, keeper=memory)
    tell = lambda *report: heard.append(report)  # noqa: E731
    flat(pipeline.enhance)(dark(), nets, **({"steps": 2} | change), tile=0, keeper=memory, callback=tell)
    assert heard == [(steps, steps, None)]


def test_the_command_line_has_the_same_dials(tmp_path: Path, capsys):
    write_image(tmp_path / "dark.png", Picture(dark()[0]))
    told = {}
    for name, options in {"plain": [], "brighter": ["--brightness", "1"], "draft": ["--quality", "draft"]}.items():
        command = ["enhance", str(tmp_path / "dark.png"), "--output", str(tmp_path / name), "--steps", "1"]
        assert cli.main([*command, "--segmenter", "none", "--device", "cpu", "--exposure", "0.3", *options]) == 0
        told[name] = json.loads(capsys.readouterr().out)
    assert told["plain"]["brightness"] == 0 and told["brighter"]["brightness"] == 1
    assert told["plain"]["exposure"] == 0.3
    assert told["brighter"]["exposure"] == pytest.approx(reference(0.3, 1), abs=1e-4)
    with pytest.raises(SystemExit):
        cli.main(["enhance", "x.png", "--output", "y", "--brightness", "3"])
