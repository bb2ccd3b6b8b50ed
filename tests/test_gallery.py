"""Every shipped workflow: its files, its layout, run over the interface, and run in the host's own front end.

Screenshots of the graphs after a run are kept in output/gallery, or in $GALLERY_SCREENSHOTS.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from host.browser import Editor, open_editor
from host.client import Client
from host.refresh_workflows import TITLES, WORKFLOWS, decode, graph_of, run_on, source_of, to_api
from host.server import PACK, PACK_FOLDER, Server
from tests.gallery import BLUEPRINTS, KINDS, PREVIEWS, QUICK

pytestmark = pytest.mark.slow

NAMES = list(TITLES)
SCREENSHOTS = Path(os.environ.get("GALLERY_SCREENSHOTS") or PACK / "output" / "gallery")
WIDTHS = [int(width) for width in os.environ.get("GALLERY_WIDTHS", "1920").split()]
"""Pixels of the windows in which the graphs are looked at; `dev.py test --hosts` asks for more than one."""

LEAST_ZOOM = 8 / 14
"""Below, the classic front end draws no text: its letters of 14 pixels would have less than 8."""

GRIDS = {"compare_steps": (2, 2), "big_photograph": (1, 2), "video_without_flicker": (1, 2), "exposure_bracket": (1, 3)}
"""Rows and columns of pictures in the results that are put side by side, 8 pixels apart."""

DIMMER = {"only_this_region": 1.5, "relight_by_hand": 1.5, "class_wise": 2.0}
"""By what factor results are brighter at least that are not meant to be bright all over; the others reach 0.25."""

SMALL_RUN = {
    "big_photograph": {"2": {"tile": 64}, "3": {"working_size": 64}},
    "compare_steps": {"5": {"steps": 6}},
    "only_this_region": {"3": {"feather": 4}},
}
"""Widgets for pictures of 96 pixels."""


def copied(name: str) -> dict[str, Any]:
    return json.loads((WORKFLOWS / "api" / f"{name}.json").read_text("utf-8"))


def small_source(name: str, folder: Path) -> Path:
    """What the workflow starts from, under its own name, at 96 pixels and at most 4 frames."""
    source = source_of(copied(name))
    small = folder / source.name
    if source.suffix == ".mp4":
        frames = [frame.resize((96, 64)) for frame in decode(source.read_bytes())[:4]]
        with av.open(small, "w") as container:
            stream = container.add_stream("libx264", rate=8, options={"crf": "10", "threads": "1"})
            stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
            for frame in frames:
                container.mux(stream.encode(av.VideoFrame.from_image(frame)))
            container.mux(stream.encode())
    else:
        with Image.open(source) as picture:
            picture.thumbnail((96, 96), Image.Resampling.NEAREST)  # others lose the colours under an alpha of 0
            picture.save(small)
    return small


def scaled_down(name: str, nodes: dict[str, dict[str, Any]]) -> None:
    for node, widgets in SMALL_RUN.get(name, {}).items():
        nodes[node]["inputs"] |= widgets


def array(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture.convert("RGB")).astype(float) / 255


def differences(prompt: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Where two graphs in API format part, titles aside. Widgets of stock nodes that some hosts lack do not count."""
    first, second = ({node: spec["class_type"] for node, spec in graph.items()} for graph in (prompt, other))
    if first != second:
        return [f"nodes {sorted(first.items() ^ second.items())}"]
    found = []
    for node, spec in prompt.items():
        mine, theirs = spec["inputs"], other[node]["inputs"]
        names = mine.keys() | theirs.keys() if spec["class_type"].startswith("JoReS") else mine.keys() & theirs.keys()
        found += [f"{spec['class_type']} {node}: {name}" for name in names if mine.get(name) != theirs.get(name)]
    return found


@pytest.mark.parametrize("name", NAMES)
def test_a_workflow_comes_with_its_files_and_a_note(name: str):
    graph = graph_of(name)
    source = source_of(copied(name))
    assert source.is_file() and source.stat().st_size < 500_000
    (note,) = [node for node in graph["nodes"] if node["type"] == "MarkdownNote"]
    text = note["widgets_values"][0]
    assert "What to look at" in note["title"] and "of your own" in text
    assert "`" not in text, "modern nodes draw code in blue on blue"
    assert not {node["type"] for node in graph["nodes"]} & {"LoadImage", "LoadVideo"}, "it must run without any copying"
    assert f"| {TITLES[name]} |" in (WORKFLOWS / "README.md").read_text("utf-8")
    films = {"LoadVideo", "SaveVideo"} & {node["type"] for node in graph["nodes"]}
    assert films or "JoReSCompare" in {node["type"] for node in graph["nodes"]}, "before and after are not shown"
    for node in graph["nodes"]:  # the front end would look for the shipped weights in models/, and warn
        assert "models" not in node["properties"], f"{node['type']}: the shipped weights lie in the pack"


def test_titles_are_words_and_the_best_comes_first():
    titles = sorted(path.stem for path in WORKFLOWS.glob("*.json"))
    assert titles == sorted(TITLES.values()) == list(TITLES.values())
    assert titles[0] == TITLES["enhance_low_light"] and all("_" not in title for title in titles)


def test_thumbnails_show_before_and_after_and_no_two_are_alike():
    seen: dict[str, np.ndarray] = {}
    for name, title in TITLES.items():
        with Image.open(WORKFLOWS / f"{title}.jpg") as thumbnail:
            assert thumbnail.width >= 400, title
            small = array(thumbnail.convert("RGB").resize((32, 32), Image.Resampling.BOX))
        source = decode(source_of(copied(name)).read_bytes())
        dark = np.mean(array(source[len(source) // 2]))
        assert abs(small[:6, :6].mean() - dark) < 0.1, f"{title}: the first panel is not the picture as it was"
        alike = [other for other, known in seen.items() if abs(known - small).mean() < 0.02]
        assert alike == [], title
        seen[title] = small


def test_the_host_offers_the_templates_and_their_thumbnails(comfy_server: Server):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def fetch(path: str) -> bytes:
        with opener.open(comfy_server.url + urllib.parse.quote(path, safe="/()"), timeout=60) as answer:
            return answer.read()

    assert sorted(json.loads(fetch("/api/workflow_templates"))[PACK_FOLDER]) == list(TITLES.values())
    thumbnails = []
    for title in TITLES.values():
        graph, thumbnail = (WORKFLOWS / f"{title}.{suffix}" for suffix in ("json", "jpg"))
        assert fetch(f"/api/workflow_templates/{PACK_FOLDER}/{graph.name}") == graph.read_bytes()
        with contextlib.suppress(urllib.error.HTTPError):  # some hosts hand out the graphs alone
            thumbnails.append(
                fetch(f"/api/workflow_templates/{PACK_FOLDER}/{thumbnail.name}") == thumbnail.read_bytes()
            )
    assert len(thumbnails) in (0, len(TITLES)) and all(thumbnails)


@pytest.mark.parametrize("name", NAMES)
def test_a_workflow_is_laid_out(name: str):
    graph = graph_of(name)
    boxes = [(n.get("title", n["type"]), *n["pos"], *n["size"]) for n in graph["nodes"]]
    assert not overlaps(boxes)
    for group in graph["groups"]:
        x, y, w, h = group["bounding"]
        for box in boxes:
            inside = x < box[1] and box[1] + box[3] < x + w and y < box[2] - 60 and box[2] + box[4] < y + h
            assert inside or not overlaps([(group["title"], x, y + 30, w, h - 30), box]), f"the group cuts {box[0]}"
    if "ds" in graph["extra"]:
        assert graph["extra"]["ds"]["scale"] > LEAST_ZOOM, "opened on a small screen, it has no text"
    if "ds" not in graph["extra"] or name == NAMES[0]:  # newer front ends never ask the file
        # They fit a template into three quarters of the window, so it is bigger on a big screen.
        height = max(box[2] + box[4] for box in boxes) + 50
        assert 0.75 * 650 / height > LEAST_ZOOM, "it has no text in a window of 1366 x 650"


def overlaps(boxes: list[tuple[str, float, float, float, float]]) -> list[str]:
    """Pairs of nodes of which one lies on the other, or on the title above it."""
    found = []
    for i, (first, x, y, w, h) in enumerate(boxes):
        for second, x2, y2, w2, h2 in boxes[i + 1 :]:
            if x < x2 + w2 and x2 < x + w and y - 30 < y2 + h2 and y2 - 30 < y + h:
                found.append(f"{first} lies on {second}")
    return found


def test_saved_widgets_are_those_of_the_nodes(comfy_client: Client):
    """A graph names no widgets: one that is added or moved would shift all the values behind it."""
    info = comfy_client.object_info()
    fits = {"INT": int, "FLOAT": (int, float), "STRING": str, "BOOLEAN": bool, "COMBO": str}
    for path in [WORKFLOWS / f"{title}.json" for title in TITLES.values()] + BLUEPRINTS:
        for node in own_nodes(json.loads(path.read_text("utf-8"))):
            wanted = []
            for kind, order in info[node["type"]]["input_order"].items():
                for name in order if kind != "hidden" else ():
                    type_, options = (*info[node["type"]]["input"][kind][name], {})[:2]
                    type_ = "COMBO" if isinstance(type_, list) else type_
                    if type_ in fits:
                        wanted.append((name, fits[type_], options))
                        wanted += [("control_after_generate", str, {})] if options.get("control_after_generate") else []
            values = node.get("widgets_values", [])
            place = f"{path.name}: {node['type']}"
            assert len(values) == len(wanted), f"{place} has {values}, the node {[name for name, *_ in wanted]}"
            for value, (name, kind, options) in zip(values, wanted, strict=True):
                assert isinstance(value, kind) and (kind is bool) == isinstance(value, bool), f"{place}.{name}: {value}"
                if "min" in options:
                    assert options["min"] <= value <= options["max"], f"{place}.{name}: {value}"


def own_nodes(graph: dict[str, Any]) -> Iterator[dict[str, Any]]:
    subgraphs = graph.get("definitions", {}).get("subgraphs", ())
    for part in (graph, *subgraphs):
        yield from (node for node in part["nodes"] if node["type"].startswith("JoReS"))


@pytest.mark.parametrize("name", NAMES)
def test_a_workflow_runs_and_brightens(comfy_client: Client, tmp_path: Path, name: str):
    prompt = copied(name)
    live = to_api(graph_of(name), comfy_client.object_info())
    assert differences(live, prompt) == [], "run python -m tests.host.refresh_workflows"
    scaled_down(name, prompt)
    source = small_source(name, tmp_path)
    entry = run_on(comfy_client, prompt, source)
    dark, light = (list(map(array, decode(data))) for data in (source.read_bytes(), comfy_client.pictures(entry)[0]))
    rows, columns = GRIDS.get(name, (1, 1))
    height, width = dark[0].shape[:2]
    assert len(light) == len(dark)
    assert light[0].shape[:2] == (rows * height + 8 * (rows - 1), columns * width + 8 * (columns - 1))
    before, after = np.mean(dark), np.mean(light)
    assert after > DIMMER[name] * before if name in DIMMER else after > 0.25 > before
    previews = [node for node, spec in prompt.items() if spec["class_type"] in ("PreviewImage", "MaskPreview")]
    assert all(comfy_client.pictures(entry, node, "temp") for node in previews)


@pytest.fixture(scope="module")
def editor(comfy_server: Server, browser: str) -> Iterator[Editor]:
    with open_editor(comfy_server.url, browser) as opened:
        yield opened


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", KINDS)
def test_the_front_end_shows_and_runs_a_workflow(editor: Editor, comfy_client: Client, kind: str, name: str):
    if not editor.use(kind):
        pytest.skip(f"this front end has no {kind} nodes")
    graph = graph_of(name)
    editor.load(graph)
    assert editor.problems() == []
    assert differences(editor.prompt(), copied(name)) == []
    for node, spec in copied(name).items() if "GALLERY_SCREENSHOTS" not in os.environ else ():
        if "steps" in spec["inputs"]:
            editor.set_widgets(int(node), QUICK)
    editor.run(PREVIEWS)
    for width in WIDTHS:
        editor.resize(width)
        editor.shoot(SCREENSHOTS / f"{name} {kind} {width}.png")
        assert overlaps(editor.boxes()) == [], width
    assert editor.problems() == []


@pytest.mark.parametrize("path", BLUEPRINTS, ids=lambda path: path.stem)
def test_a_blueprint_is_offered_and_does_what_the_five_stages_do(
    editor: Editor, comfy_server: Server, comfy_client: Client, tmp_path: Path, path: Path
):
    editor.use("classic")
    if path.stem not in editor.blueprints():
        pytest.skip("this host takes no blueprints from node packs")
    source = small_source("jores_five_stages", tmp_path)
    editor.load_blueprint(path.stem, comfy_client.upload(source), "gallery/blueprint")
    assert editor.problems() == []
    editor.run(("SaveImage",))
    editor.shoot(SCREENSHOTS / "blueprint.png")
    assert editor.problems() == []
    (result,) = (comfy_server.base / "output" / "gallery").glob("blueprint_*.png")
    (stages,) = comfy_client.pictures(run_on(comfy_client, copied("jores_five_stages"), source))
    with Image.open(result) as block, Image.open(io.BytesIO(stages)) as blocks:
        assert np.array_equal(array(block), array(blocks))


@pytest.mark.parametrize("name", NAMES)
def test_both_ends_of_every_link_know_it(name: str):
    """The front end mends what does not fit together, with a warning."""
    graph = graph_of(name)
    nodes = {node["id"]: node for node in graph["nodes"]}
    for link, origin, out, target, slot, kind in graph["links"]:
        given, taken = nodes[origin]["outputs"][out], nodes[target]["inputs"][slot]
        assert link in given["links"] and taken["link"] == link, f"{given['name']} -> {taken['name']}"
        assert given["type"] == kind, f"{given['name']} is no {kind}"
