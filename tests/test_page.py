"""What the pack's own script changes in the front end: charts are seen after live previews."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from host.browser import Editor, open_editor
from host.refresh_workflows import graph_of
from host.server import Server, start_server
from jores.options import SampleOptions
from tests.test_gallery import KINDS, QUICK

pytestmark = pytest.mark.slow

CHART = ("http", 480, 176)


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
