"""bfloat16 on processors: when it is chosen, and how little of a picture it changes."""

import copy
from pathlib import Path

import pytest
import torch

from jores.checkpoint import SHIPPED_WEIGHTS, load_bundle
from jores.cli import build_parser
from jores.files.pictures import read_image
from jores.imaging.resize import area_average
from jores.limits import PRECISIONS
from jores.options import SampleOptions
from jores.pipeline import enhance
from jores.precision import FAST, fast_in_bfloat16, reduce_precision

EXAMPLE = Path(__file__).parents[1] / "workflows" / "enhance_low_light.input.png"
CPU = torch.device("cpu")


def low():
    return area_average(read_image(EXAMPLE).pixels[None, :3], (80, 112))


@pytest.mark.parametrize("weights", [SHIPPED_WEIGHTS])
def test_a_picture_changes_by_a_level_at_most(weights):
    exact, quick = load_bundle(weights), load_bundle(weights)
    reduce_precision(quick, "bfloat16")
    wanted, made = enhance(low(), exact), enhance(low(), quick)
    difference = (made - wanted).abs() * 255
    assert 0 < difference.max() <= 1.5 and (difference > 1).float().mean() < 1e-3
    assert made.dtype == torch.float32


@pytest.mark.parametrize("width", [1, 2, 3, 4, 5, 8, 9, 16, 17])
def test_narrow_pictures_are_those_of_float32(width):
    """oneDNN's bfloat16 convolutions are wrong for some of these sizes."""
    exact, quick = load_bundle(SHIPPED_WEIGHTS), load_bundle(SHIPPED_WEIGHTS)
    reduce_precision(quick, "bfloat16")
    strip = torch.rand(1, 3, 300, width, generator=torch.Generator().manual_seed(width)) * 0.15
    options = SampleOptions(steps=1)
    for _ in range(3):  # what is wrong is memory that was not written, so not the same every time
        assert (enhance(strip, quick, None, options) - enhance(strip, exact, None, options)).abs().max() * 255 < 3


def test_a_copy_of_a_net_computes_with_its_own_weights():
    quick = load_bundle(SHIPPED_WEIGHTS)
    reduce_precision(quick, "bfloat16")
    copied = copy.deepcopy(quick)
    wanted = enhance(low(), quick)
    for part in quick.parts().values():
        for weight in part.parameters():
            weight.data.zero_()
    assert torch.equal(enhance(low(), copied), wanted) and type(copied.unet).__name__ == "DenoisingUNet"


def test_float32_changes_nothing():
    exact, same = load_bundle(SHIPPED_WEIGHTS), load_bundle(SHIPPED_WEIGHTS)
    reduce_precision(same, "float32")
    assert torch.equal(enhance(low(), exact), enhance(low(), same))


def test_the_layout_of_the_weights_is_that_of_the_device_and_changes_no_picture():
    quick, plain = load_bundle(SHIPPED_WEIGHTS), load_bundle(SHIPPED_WEIGHTS, runs_on=torch.device("cuda"))
    for nets, last in ((quick, True), (plain, False)):
        weights = [w for net in nets.parts().values() for w in net.parameters() if w.ndim == 4 and min(w.shape) > 1]
        assert len(weights) > 60 and all(w.is_contiguous() is not last for w in weights)
    apart = (enhance(low(), quick) - enhance(low(), plain)).abs().max() * 255
    assert apart < 0.01


def test_auto_means_bfloat16_only_where_the_processor_has_it():
    assert all(fast_in_bfloat16(CPU, lambda feature=feature: {feature: True}) for feature in FAST)
    assert not fast_in_bfloat16(CPU, lambda: {"avx2": True, FAST[0]: False})
    assert not fast_in_bfloat16(CPU, dict)
    assert not fast_in_bfloat16(torch.device("cuda"), lambda: {FAST[0]: True})
    reduce_precision(load_bundle(SHIPPED_WEIGHTS), "auto", CPU)


def test_an_unknown_precision_is_refused():
    with pytest.raises(ValueError, match="precision must be auto, float32 or bfloat16, not half"):
        reduce_precision(load_bundle(SHIPPED_WEIGHTS), "half")


def test_the_command_line_offers_what_the_library_has():
    parser = build_parser()
    for name in PRECISIONS:
        assert parser.parse_args(["enhance", "a.png", "--output", "b", "--precision", name]).precision == name
    assert parser.parse_args(["evaluate"]).precision == "float32"  # figures do not depend on the processor
