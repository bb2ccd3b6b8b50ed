"""What the pack's own script changes in the front end: exposures, seeds, and charts after live previews."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from host.browser import Editor, open_editor
from host.refresh_workflows import graph_of
from host.server import Server, start_server
from jores.options import SampleOptions
from tests.gallery import BLUEPRINTS, KINDS, QUICK

pytestmark = pytest.mark.slow

CHART = ("http", 480, 176)
EMPTY = {"nodes": [], "links": [], "last_node_id": 0, "last_link_id": 0, "version": 0.4}


@pytest.fixture(scope="module")
def server(comfy_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with start_server(
        tmp_path_factory.mktemp("page"), tree=comfy_tree, arguments=["--preview-method", "auto"]
    ) as started:
        yield started


@pytest.fixture(scope="module")
def editor(server: Server, browser: str) -> Iterator[Editor]:
    with open_editor(server.url, browser) as opened:
        yield opened


@pytest.fixture(params=KINDS)
def node(editor: Editor, request: pytest.FixtureRequest) -> int:
    """Enhance Low Light alone, in nodes of each kind."""
    if not editor.use(request.param):
        pytest.skip(f"this front end has no {request.param} nodes")
    editor.load(EMPTY)
    return editor.add("JoReSEnhance")


@pytest.mark.parametrize("kind", KINDS)
def test_the_chart_is_seen_after_live_previews(editor: Editor, kind: str):
    if not editor.use(kind):
        pytest.skip(f"this front end has no {kind} nodes")
    graph = graph_of("enhance_low_light")
    (node,) = [node["id"] for node in graph["nodes"] if node["type"] == "JoReSEnhance"]
    editor.load(graph)
    editor.set_widgets(node, QUICK | {"steps": SampleOptions.steps, "seed": KINDS.index(kind)})
    for change, previews in (({}, True), ({"strength": 0.7}, False), ({}, False), ({"seed": 7 + len(kind)}, True)):
        editor.set_widgets(node, change)
        assert (editor.run_and_count() > 0) == previews, change
        assert editor.shown(node) == [CHART], change
    assert editor.problems() == []


def test_an_exposure_is_stepped_up_from_automatic_to_a_dim_picture(editor: Editor, node: int):
    assert editor.values(node)["exposure"] == 0 and editor.values(node)["control_after_generate"] == "fixed"
    assert editor.click_at(node, "exposure") == pytest.approx(0.2)
    assert editor.click_at(node, "exposure") == pytest.approx(0.21)
    editor.set_widgets(node, {"exposure": 0})
    dragged = [number for number in editor.drag(node, "exposure", 30) if number > 0]
    assert dragged and min(dragged) == pytest.approx(0.2) and dragged == sorted(dragged)


def test_an_exposure_is_stepped_down_to_automatic(editor: Editor, node: int):
    editor.set_widgets(node, {"exposure": 0.03})
    assert [editor.click_at(node, "exposure", "down") for _ in range(4)] == pytest.approx([0.02, 0.01, 0, 0])
    assert editor.click_at(node, "exposure") == pytest.approx(0.2)
    editor.set_widgets(node, {"exposure": 0.05})
    dragged = editor.drag(node, "exposure", -80)
    assert dragged[-1] == 0 and dragged == sorted(dragged, reverse=True)


def test_an_exposure_that_is_written_is_kept(editor: Editor, node: int):
    for text in ("0.01", "0.42", "0.01", "0", "0.02"):
        assert editor.write(node, "exposure", text) == pytest.approx(float(text))
    assert editor.write(node, "exposure", "0") == 0
    assert editor.click_at(node, "exposure") == pytest.approx(0.2)


def test_a_saved_exposure_and_seed_stay(editor: Editor):
    editor.use("classic")
    graph = graph_of("enhance_low_light")
    (node,) = [node for node in graph["nodes"] if node["type"] == "JoReSEnhance"]
    node["widgets_values"][0], node["widgets_values"][4] = 0.42, "randomize"
    editor.load(graph)
    values = editor.values(node["id"])
    assert (values["exposure"], values["control_after_generate"]) == (0.42, "randomize")
    assert editor.prompt()[str(node["id"])]["inputs"]["exposure"] == 0.42
    assert editor.click_at(node["id"], "exposure") == pytest.approx(0.43)


def test_a_tile_can_be_chosen_only_if_it_works(editor: Editor, node: int):
    """0, or 64 and more: the tiles below that are refused."""
    for text, kept in (("16", 0), ("48", 64), ("64", 64), ("512", 512), ("0", 0)):
        assert editor.write(node, "tile", text) == kept


def test_a_saved_tile_between_the_steps_stays(editor: Editor, node: int):
    editor.set_widgets(node, {"tile": 400})
    saved = editor.page.evaluate("() => app.graph.serialize()")
    editor.load(EMPTY)
    editor.load(saved)
    assert editor.values(node)["tile"] == 400
    assert editor.prompt()[str(node)]["inputs"]["tile"] == 400


@pytest.mark.parametrize("path", BLUEPRINTS, ids=lambda path: path.stem)
@pytest.mark.parametrize("kind", KINDS)
def test_a_blueprint_has_the_dials_of_the_light(editor: Editor, kind: str, path: Path):
    if not editor.use(kind):
        pytest.skip(f"this front end has no {kind} nodes")
    if path.stem not in editor.blueprints():
        pytest.skip("this host takes no blueprints from node packs")
    block = editor.load_blueprint(path.stem, "dark.png", "page/blueprint")
    assert editor.labels(block) == {"exposure": "exposure (0 = auto)", "strength": "strength", "steps": "steps",
                                    "brightness": "brightness"}  # fmt: skip
    assert editor.click_at(block, "exposure") == pytest.approx(0.2)
    assert editor.click_at(block, "exposure") == pytest.approx(0.21)
    editor.set_widgets(block, {"exposure": 0.02, "brightness": 0.5})
    assert [editor.click_at(block, "exposure", "down") for _ in range(2)] == pytest.approx([0.01, 0])
    assert editor.click_at(block, "exposure") == pytest.approx(0.2)
    (adjust,) = [node["inputs"] for node in editor.prompt().values() if node["class_type"] == "JoReSAdjust"]
    assert (adjust["exposure"], adjust["brightness"]) == pytest.approx((0.2, 0.5))
