"""Tiles: the plan covers every pixel once, and a picture made in tiles is the picture made whole."""

from __future__ import annotations

import json
import logging
from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from jores import pipeline
from jores.budget import cache_bytes, condition_bytes, pipeline_bytes
from jores.conditions import ConditionOnDemand
from jores.config import PRESETS
from jores.imaging.resize import resize_map
from jores.limits import MIN_TILE, MOST_STOPS, PRECISIONS, QUALITIES, STEPS, TEXTURE
from jores.metrics import psnr
from jores.tiling.memory import MAIN_MEMORY, SHARE, auto_tile
from jores.tiling.tiler import Tiler
from jores.tiling.windows import ALIGNMENT, Span, Window, spans
from tests.benchmarks.big_pictures import seam_ratio
from tests.flat import flat

pytestmark = pytest.mark.slow

SIZE, TILE = (196, 250), 128


@pytest.fixture(scope="module")
def low():
    """A dark scene of shapes and a gradient of light, under sensor noise."""
    y, x = torch.meshgrid(torch.linspace(0, 1, SIZE[0]), torch.linspace(0, 1, SIZE[1]), indexing="ij")
    scene = torch.stack([0.2 + 0.6 * x, 0.3 + 0.4 * y, 0.8 - 0.5 * x]) * (0.05 + 0.15 * x * y)
    scene[:, 60:130, 60:150] *= 0.4
    noise = torch.randn(scene.shape, generator=torch.Generator().manual_seed(0)) * 0.005
    return (scene + noise).clamp(0, 1)[None]


@pytest.fixture(scope="module")
def whole(nets, segmenter, low):
    return flat(pipeline.enhance)(low, nets, segmenter, steps=2, eta=0.5, tile=0)


@given(st.integers(1, 3000), st.integers(MIN_TILE, 700), st.integers(0, 9).map(lambda n: n * ALIGNMENT))
@settings(deadline=None)
def test_spans_cover_a_length_and_their_weights_sum_to_one(length, tile, start):
    plan = spans(start, start + length, tile)
    assert plan[0].start == start and plan[-1].stop == start + length
    assert all(0 < len(s) <= tile and s.start % ALIGNMENT == 0 for s in plan)
    assert all(s.stop % ALIGNMENT == 0 for s in plan[:-1])
    assert all(a.start < b.start < a.stop < b.stop for a, b in zip(plan, plan[1:], strict=False))
    for side in (1, 4, 16):
        last = plan[-1].positions(side)
        total = torch.zeros(last.stop)
        for s in plan:
            weights = s.weights(side)
            assert weights.min() >= 0 and weights.max() <= 1
            total[s.positions(side)] += weights
        torch.testing.assert_close(total[start // side :], torch.ones(last.stop - start // side))


@given(st.integers(1, 400), st.integers(1, 400), st.integers(MIN_TILE, 200))
@settings(deadline=None, max_examples=40)
def test_what_is_cut_and_blended_is_what_it_was(height, width, tile):
    """Maps of three resolutions go through the windows unchanged, written over their own source band by band."""
    x = torch.rand(1, 2, height, width)
    padded = F.pad(x, (0, -width % 16, 0, -height % 16))
    coarse = F.avg_pool2d(padded, 4), F.avg_pool2d(padded, 16)
    target, seen, tiler = x.clone(), [], Tiler(tile)

    def work(window):
        seen.append(window)
        return window.cut(target), window.cut(coarse[0], 4), window.cut(coarse[1], 16)

    made = []
    for rows, band in tiler.bands((height, width), work, (1, 4, 16)):
        target[..., rows[0], :] = band[0]
        made.append(band)
    torch.testing.assert_close(target, x)
    for i, original in enumerate((x, *coarse)):
        torch.testing.assert_close(torch.cat([band[i] for band in made], -2), original)
    assert len(seen) == tiler.windows((height, width))


def test_a_coarse_map_is_sampled_where_the_window_is():
    coarse, size = torch.rand(1, 3, 7, 9), (196, 250)
    cells = resize_map(coarse, (208 // 8, 256 // 8))
    window = Window(Span(48, 144), Span(160, 250))
    torch.testing.assert_close(window.sample(coarse, size, 8), window.cut(cells, 8), atol=1e-5, rtol=0)


def test_tiled_is_whole(nets, segmenter, low, whole):
    """Exposure, noise (also fresh noise) and light are the whole picture's, and neighbours agree."""
    tiled = flat(pipeline.enhance)(low, nets, segmenter, steps=2, eta=0.5, tile=TILE)
    assert Tiler(TILE).windows(SIZE) > 6
    assert psnr(tiled, whole) > 45
    assert seam_ratio(tiled, TILE) == pytest.approx(seam_ratio(whole, TILE), abs=0.02)


def test_the_stages_in_tiles_make_the_same_picture(nets, segmenter, low, whole):
    maps = pipeline.decompose(nets, low, tiler=Tiler(TILE))
    condition = pipeline.adjust(nets, maps, tiler=Tiler(TILE))
    single = pipeline.adjust(nets, pipeline.decompose(nets, low, tiler=Tiler()), tiler=Tiler())
    for a, b in zip(condition.features, single.features, strict=True):
        assert a.shape == b.shape and (a - b).abs().mean() < 0.15 * b.abs().mean()  # tiles this small see less
    prior = pipeline.segment(segmenter, low, nets)
    x0 = flat(pipeline.sample)(nets, condition, prior, low=low, steps=2, eta=0.5, tile=TILE)
    assert psnr(pipeline.finish(x0, low), whole) > 45


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (65, 64)])
def test_thin_pictures(nets, size):
    low = torch.rand(2, 4, *size, generator=torch.Generator().manual_seed(1)) * 0.1
    result = flat(pipeline.enhance)(low, nets, steps=1, tile=MIN_TILE)
    assert result.shape == low.shape and torch.isfinite(result).all()
    assert torch.equal(result[:, 3], low[:, 3])


def test_memory_that_runs_out_halves_the_tile(nets, low, caplog):
    """A real exception from inside a net, for every input of more than 120 x 120 pixels."""

    def small_device(_net, inputs):
        if inputs[0].shape[-1] * inputs[0].shape[-2] > 120 * 120:
            raise torch.cuda.OutOfMemoryError("out of memory: tried to allocate more than there is")

    expected = flat(pipeline.enhance)(low, nets, steps=2, tile=0)
    hook = nets.denoiser.register_forward_pre_hook(small_device)
    try:
        with caplog.at_level(logging.WARNING, logger="jores.tiling"):
            result = flat(pipeline.enhance)(low, nets, steps=2, tile=0)
    finally:
        hook.remove()
    assert psnr(result, expected) > 45
    assert [record.args[-1] for record in caplog.records] == [112]  # once, not once a window or a step


def test_an_error_of_another_kind_is_not_swallowed(nets, low):
    def broken(_net, _inputs):
        raise RuntimeError("shapes do not match")

    hook = nets.denoiser.register_forward_pre_hook(broken)
    try:
        with pytest.raises(RuntimeError, match="shapes"):
            flat(pipeline.enhance)(low, nets, steps=1, tile=0)
    finally:
        hook.remove()


def test_the_callback_hears_of_every_tile_and_sees_every_step(nets, low):
    heard = []
    flat(pipeline.enhance)(low, nets, steps=2, tile=TILE, callback=lambda *args: heard.append(args))
    steps = [(done, x0.shape) for done, _total, x0 in heard if x0 is not None]
    assert steps == [(1, low.shape), (2, low.shape)]
    assert len(heard) == 2 * Tiler(TILE).windows(SIZE)
    assert [done for done, *_ in heard] == sorted(done for done, *_ in heard)


def test_conditions_are_made_once_where_there_is_room():
    made = []

    def make(window):
        made.append(window)
        return pipeline.RetinexCondition(torch.ones(1, 3, 8, 8), torch.ones(1, 1, 8, 8), (), torch.ones(1))

    windows = [Window(Span(0, 8), Span(16 * i, 16 * i + 8)) for i in range(3)]
    on_demand = ConditionOnDemand(make, torch.device("cpu"), cache=2 * 2 * 4 * 64)
    for _ in range(2):
        for window in windows:
            on_demand.at(window)
    assert made == [*windows, windows[2]]


@given(st.integers(10**6, 10**11), st.integers(1, 20000), st.integers(1, 20000), st.sampled_from(list(PRESETS)))
def test_the_automatic_tile_fits(free, height, width, preset):
    config = PRESETS[preset]
    tile = auto_tile(free, partial(pipeline_bytes, config), (height, width))
    if tile == 0:
        assert pipeline_bytes(config, height * width) <= SHARE * free
    else:
        assert tile % ALIGNMENT == 0 and tile >= MIN_TILE
        assert tile == MIN_TILE or pipeline_bytes(config, tile * tile) <= SHARE * free


def test_conditions_are_remembered_only_where_the_pictures_leave_room():
    config, photo = PRESETS["compact"], 24 * 10**6
    assert cache_bytes(MAIN_MEMORY, config, photo, 1024) > condition_bytes(config, photo) / 2  # in half precision
    assert cache_bytes(MAIN_MEMORY, config, 101 * 10**6, 1024) < 2**26


def test_a_tile_too_small_is_refused(nets, low):
    with pytest.raises(ValueError, match="tile must be 0 or at least 64"):
        flat(pipeline.enhance)(low, nets, tile=10)


def test_the_command_line_knows_tiles(capsys):
    from jores.cli import build_parser

    def parsed(*options):
        return build_parser().parse_args(["enhance", "a.png", "--output", "b", *options])

    assert [parsed("--tile", text).tile for text in ("auto", "0", "512")] == [None, 0, 512]
    assert parsed().tile is None
    assert parsed().working_size == 0 and parsed("--working-size", "2000").working_size == 2000
    for wrong in (("--tile", "63"), ("--tile", "-1"), ("--working-size", "-5")):
        with pytest.raises(SystemExit):
            parsed(*wrong)


def test_command_line_and_nodes_read_one_list_of_limits():
    from jores.cli import build_parser

    def taken(option, text):
        try:
            return getattr(build_parser().parse_args(["enhance", "a.png", "--output", "b", option, text]), option[2:])
        except SystemExit:
            return None

    schema = json.loads(Path(__file__).with_name("schema.json").read_text(encoding="utf-8"))["JoReSEnhance"]["inputs"]
    inputs = {given["id"]: given for given in schema}
    usual = build_parser().parse_args(["enhance", "a.png", "--output", "b"])
    assert taken("--tile", f"{MIN_TILE}") == MIN_TILE and taken("--tile", f"{MIN_TILE - 1}") is None
    for most in (MOST_STOPS, -MOST_STOPS):
        assert taken("--brightness", f"{most}") == most and taken("--brightness", f"{1.01 * most}") is None
    assert (inputs["brightness"]["min"], inputs["brightness"]["max"]) == (-MOST_STOPS, MOST_STOPS)
    assert all(taken("--quality", name) for name in QUALITIES) and all(
        taken("--precision", name) for name in PRECISIONS
    )
    assert usual.steps == inputs["steps"]["default"] == STEPS and usual.precision == PRECISIONS[0]
    assert usual.texture == inputs["texture"]["default"] == TEXTURE and usual.quality == inputs["quality"]["default"]


def test_a_working_size_keeps_size_light_and_detail(nets, segmenter, low, whole):
    """A stripe one pixel wide, which half the size cannot hold, is as sharp as at full size; enlarged it is not."""
    striped = low.clone()
    striped[..., 100] = 0.9
    full = flat(pipeline.enhance)(striped, nets, segmenter, steps=2, tile=0)
    sizes = []
    callback = lambda _done, _steps, x0: sizes.append(tuple(x0.shape[-2:]))  # noqa: E731
    result = flat(pipeline.enhance)(striped, nets, segmenter, steps=2, working_size=125, callback=callback)
    assert sizes == [(98, 125)] * 2 and result.shape == low.shape
    small = F.interpolate(striped, size=(98, 125), mode="area")
    enlarged = F.interpolate(flat(pipeline.enhance)(small, nets, segmenter, steps=2), size=SIZE, mode="bilinear")
    assert psnr(result, full) > psnr(enlarged, full) + 1
    contrast = [(p[..., 100] - p[..., 96]).mean() for p in (full, result, enlarged)]
    assert contrast[1] > 0.8 * contrast[0] and contrast[1] > 1.2 * contrast[2]
    assert torch.equal(flat(pipeline.enhance)(low, nets, segmenter, steps=2, eta=0.5, tile=0, working_size=250), whole)
    with pytest.raises(ValueError, match="working_size"):
        flat(pipeline.enhance)(low, nets, working_size=-1)
