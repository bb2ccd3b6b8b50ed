"""ComfyUI's own front end in a headless Chromium: load a graph, run it, see what it says, keep a picture of it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Page

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
OPTIONS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
SETTINGS = {"Comfy.TutorialCompleted": True, "Comfy.Minimap.Visible": False, "Comfy.Graph.CanvasInfo": False}
"""Or the template browser and the small map lie over the graph."""

SIZE = (1920, 1080)
PATIENCE = 180_000  # ms: the front end's 30 MB of scripts, on a machine that has other work

_LOAD = "graph => app.loadGraphData(graph)"
_PROMPT = "async () => JSON.stringify((await app.graphToPrompt()).output)"
_RUN = """async () => {
  await app.queuePrompt(0);
  const busy = async () => { const q = await (await fetch('/queue')).json();
                             return q.queue_running.length + q.queue_pending.length; };
  do { await new Promise(done => setTimeout(done, 100)); } while (await busy());
}"""
_EMPTY = """types => app.graph._nodes.filter(n => types.includes(n.type)
  && !n.imgs?.length && !n.videoContainer?.querySelector('video')
  && ![...document.querySelectorAll(`.lg-node[data-node-id="${n.id}"] :is(img, video)`)]
    .some(shown => shown.naturalWidth || shown.videoWidth)).map(n => `${n.id}: ${n.title}`)"""
_PROBLEMS = """() => {
  const found = [];
  for (const n of app.graph._nodes) {
    if (n.has_errors) found.push(`${n.title}: red`);
    if (!LiteGraph.registered_node_types[n.type]) found.push(`${n.title}: unknown type ${n.type}`);
  }
  for (const e of Object.keys(app.lastNodeErrors ?? {})) found.push(`node ${e}: refused`);
  if (app.lastExecutionError) found.push(app.lastExecutionError.exception_message);
  const texts = '.p-dialog, .p-toast-message-error, .p-toast-message-warn';
  for (const box of document.querySelectorAll(texts)) found.push(box.innerText);
  return found;
}"""
_SET = """([id, widgets]) => {
  for (const widget of app.graph.getNodeById(id).widgets)
    if (widget.name in widgets) widget.value = widgets[widget.name];
}"""
_PLACE = """([id, name, part]) => {
  const shown = document.querySelector(`.lg-node[data-node-id="${id}"]`);
  const node = app.graph.getNodeById(id), view = app.canvas.ds, box = app.canvas.canvas.getBoundingClientRect();
  const widget = node.widgets.find(w => w.name === name);
  if (shown) {
    const inside = shown.querySelector(`[aria-label="${name}"]`).getBoundingClientRect();
    return [inside.left + inside.width * {down: 0.06, middle: 0.5, up: 0.94}[part], inside.top + inside.height / 2];
  }
  const along = {down: 26, middle: node.size[0] / 2, up: node.size[0] - 26}[part];
  const at = [node.pos[0] + along, node.pos[1] + (widget.y ?? widget.last_y) + 10];
  return [0, 1].map(i => (at[i] + view.offset[i]) * view.scale + [box.left, box.top][i]);
}"""
_SHOWN = """id => {
  const shown = document.querySelector(`.lg-node[data-node-id="${id}"]`);
  const pictures = shown ? [...shown.querySelectorAll('img')] : app.graph.getNodeById(id).imgs ?? [];
  return pictures.filter(i => i.naturalWidth).map(i => [i.src.split(':')[0], i.naturalWidth, i.naturalHeight]);
}"""
_LISTEN = """() => {
  if (window.livePreviews === undefined) for (const kind of ['b_preview', 'b_preview_with_metadata'])
    app.api.addEventListener(kind, () => window.livePreviews++);
  window.livePreviews = 0;
}"""
_NEW = """type => {
  const node = LiteGraph.createNode(type);
  app.graph.add(node); node.pos = [300, 100];
  return node.id;
}"""
_VALUES = "id => Object.fromEntries(app.graph.getNodeById(id).widgets.map(w => [w.name, w.value]))"
_STORE = "document.getElementById('vue-app').__vue_app__.config.globalProperties.$pinia._s.get('subgraph')"
_BLUEPRINTS = f"() => ({_STORE}?.subgraphBlueprints ?? []).map(b => b.display_name)"
_LOAD_BLUEPRINT = f"""async ([name, picture, prefix]) => {{
  await app.refreshComboInNodes();  // the page was there before the picture
  await app.loadGraphData({{nodes: [], links: [], last_node_id: 0, last_link_id: 0, version: 0.4}});
  const entry = {_STORE}.subgraphBlueprints.find(b => b.display_name === name);
  const {{nodes, definitions}} = {_STORE}.getBlueprint(entry.name);
  app.canvas._deserializeItems({{nodes, subgraphs: definitions.subgraphs}}, {{position: [400, 0]}});
  const [block] = app.graph._nodes, [load, save] = ['LoadImage', 'SaveImage'].map(type => LiteGraph.createNode(type));
  app.graph.add(load); app.graph.add(save);
  load.pos = [0, 0]; load.setSize([340, 400]); save.pos = [800, 0]; save.setSize([500, 500]);
  load.widgets.find(w => w.name === 'image').value = picture;
  save.widgets.find(w => w.name === 'filename_prefix').value = prefix;
  load.connect(0, block, 0); block.connect(0, save, 0);
  return block.id;
}}"""
_LABELS = "id => Object.fromEntries(app.graph.getNodeById(id).widgets.map(w => [w.name, w.label ?? w.name]))"
_MODERN = """async wanted => {
  const settings = app.extensionManager.setting, name = 'Comfy.VueNodes.Enabled';
  if (settings.get(name) === undefined) return !wanted;
  await settings.set(name, wanted);
  return LiteGraph.vueNodesMode === wanted;
}"""
_BOXES = """() => app.graph._nodes.map(n => {
  const shown = document.querySelector(`.lg-node[data-node-id="${n.id}"]`);
  if (!shown) return [n.title, n.pos[0], n.pos[1], n.size[0], n.size[1]];
  const {scale, offset} = app.canvas.ds, box = shown.getBoundingClientRect(), title = LiteGraph.NODE_TITLE_HEIGHT;
  const around = app.canvas.canvas.getBoundingClientRect();
  return [n.title, (box.left - around.left) / scale - offset[0], (box.top - around.top) / scale - offset[1] + title,
          box.width / scale, box.height / scale - title];
})"""
_FIT = """([width, height]) => {
  const boxes = [...app.graph._nodes, ...app.graph._groups], [left, top] = [80, 140];
  const x = Math.min(...boxes.map(b => b.pos[0])), y = Math.min(...boxes.map(b => b.pos[1])) - 40;
  const w = Math.max(...boxes.map(b => b.pos[0] + b.size[0])) - x;
  const h = Math.max(...boxes.map(b => b.pos[1] + b.size[1])) - y;
  const scale = Math.min((width - left - 30) / w, (height - top - 70) / h), view = app.canvas.ds;
  view.scale = scale; view.offset = [left / scale - x, top / scale - y]; app.canvas.setDirty(true, true);
}"""


def find_chromium() -> str | None:
    """The browser's path: $CHROMIUM, or the first of its usual names on PATH."""
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


@dataclass(frozen=True)
class Editor:
    """The front end in one tab."""

    page: Page

    def load(self, graph: dict[str, Any]) -> None:
        self.page.evaluate(_LOAD, graph)
        self.page.wait_for_timeout(300)  # dialogs about missing nodes and models come late

    def prompt(self) -> dict[str, Any]:
        """What the front end makes of the graph for the server."""
        return json.loads(self.page.evaluate(_PROMPT))

    def run(self, previews: tuple[str, ...]) -> None:
        """Run the graph and wait for the pictures on its nodes of the given types."""
        self.page.evaluate(_RUN)
        self.wait_for_pictures(previews)

    def wait_for_pictures(self, previews: tuple[str, ...]) -> None:
        """Wait until all nodes of the given types show a picture; say which of them stay empty."""
        from playwright.sync_api import TimeoutError as TooLate

        if not self.page.evaluate("LiteGraph.vueNodesMode"):  # modern nodes that grow while the view moves get lost
            self.fit()
        try:
            self.page.wait_for_function(f"types => !({_EMPTY})(types).length", arg=list(previews))
        except TooLate:
            raise AssertionError(f"no picture on {self.page.evaluate(_EMPTY, list(previews))} after the run") from None

    def problems(self) -> list[str]:
        """Red or unknown nodes, errors, and what dialogs and warnings say."""
        return self.page.evaluate(_PROBLEMS)

    def set_widgets(self, node: int, values: dict[str, Any]) -> None:
        self.page.evaluate(_SET, [node, values])

    def add(self, kind: str) -> int:
        """A node as the menu inserts it; returns its id."""
        return self.page.evaluate(_NEW, kind)

    def values(self, node: int) -> dict[str, Any]:
        return self.page.evaluate(_VALUES, node)

    def click_at(self, node: int, widget: str, part: str = "up") -> float:
        """One click of the mouse on the right arrow of a number ("up"), the left one ("down"); returns the number."""
        self.page.mouse.click(*self._place(node, widget, part))
        self.page.wait_for_timeout(200)
        return self.values(node)[widget]

    def drag(self, node: int, widget: str, pixels: int) -> list[float]:
        """Drag a number slowly to the right, or to the left; returns what it was at every pixel."""
        x, y = self._place(node, widget, "middle")
        self.page.mouse.move(x, y)
        self.page.mouse.down()
        numbers = []
        for i in range(1, abs(pixels) + 1):
            self.page.mouse.move(x + (i if pixels > 0 else -i), y)
            self.page.wait_for_timeout(20)
            numbers.append(self.values(node)[widget])
        self.page.mouse.up()
        return numbers

    def write(self, node: int, widget: str, text: str) -> float:
        """Write a number with the keyboard; returns it."""
        self.page.mouse.click(*self._place(node, widget, "middle"))
        self.page.wait_for_timeout(200)
        self.page.keyboard.press("Control+a")
        self.page.keyboard.type(text)
        self.page.keyboard.press("Enter")
        self.page.wait_for_timeout(200)
        return self.values(node)[widget]

    def _place(self, node: int, widget: str, part: str) -> tuple[float, float]:
        self.fit()
        self.page.wait_for_timeout(400)  # until it is drawn, widgets have no place
        return self.page.evaluate(_PLACE, [node, widget, part])

    def shown(self, node: int) -> list[tuple[str, int, int]]:
        """The pictures under a node: "blob" (a live preview) or "http", width, height."""
        return [tuple(picture) for picture in self.page.evaluate(_SHOWN, node)]

    def run_and_count(self) -> int:
        """Run the graph; returns how many live previews came."""
        self.page.evaluate(_LISTEN)
        self.page.evaluate(_RUN)
        self.page.wait_for_timeout(1500)  # the front end takes previews away 400 ms after it decided to
        return self.page.evaluate("window.livePreviews")

    def click(self, words: str) -> None:
        """Click what is called so: a button, or the first thing in sight with this text."""
        button = self.page.get_by_role("button", name=words, exact=True)
        what = button.or_(self.page.get_by_text(words, exact=True)).locator("visible=true").first
        what.click(timeout=60_000)

    def blueprints(self) -> list[str]:
        """Names of the subgraph blueprints that the node library offers."""
        return self.page.evaluate(_BLUEPRINTS)

    def load_blueprint(self, name: str, picture: str, prefix: str) -> int:
        """A new graph: Load Image, the blueprint as the node library inserts it, Save Image; returns the block's id."""
        block = self.page.evaluate(_LOAD_BLUEPRINT, [name, picture, prefix])
        self.page.wait_for_timeout(300)
        return block

    def labels(self, node: int) -> dict[str, str]:
        """What the widgets of a node are called on it."""
        return self.page.evaluate(_LABELS, node)

    def boxes(self) -> list[tuple[str, float, float, float, float]]:
        """Title, x, y, width and height of every node, as they are now: pictures make nodes grow."""
        return [tuple(box) for box in self.page.evaluate(_BOXES)]

    def use(self, kind: str) -> bool:
        """Show "classic" nodes or "modern" ones, which the front end calls Nodes 2.0; False where it has none such."""
        known = self.page.evaluate(_MODERN, kind == "modern")
        self.page.wait_for_timeout(300)
        return known

    def fit(self) -> None:
        self.page.evaluate(_FIT, list(self.page.viewport_size.values()))

    def resize(self, width: int) -> None:
        """Another width of the window, in pixels, as a smaller screen has it."""
        self.page.set_viewport_size({"width": width, "height": width * SIZE[1] // SIZE[0]})
        self.page.wait_for_timeout(400)
        self.fit()
        self.page.wait_for_timeout(400)

    def shoot(self, path: Path) -> None:
        """Write a PNG of the whole graph."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.fit()
        self.page.wait_for_timeout(400)
        self.page.screenshot(path=path)


@contextlib.contextmanager
def open_editor(url: str, chromium: str) -> Iterator[Editor]:
    """Open the front end of the ComfyUI at `url` until the block ends. Needs playwright, whose own browser is not."""
    from playwright.sync_api import sync_playwright

    body = json.dumps(SETTINGS).encode()
    request = urllib.request.Request(f"{url}/api/settings", body, {"Content-Type": "application/json"})
    urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30).close()
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=OPTIONS, timeout=PATIENCE)
        try:
            page = browser.new_page(viewport={"width": SIZE[0], "height": SIZE[1]})
            page.set_default_timeout(PATIENCE)
            page.goto(url, wait_until="commit")
            page.wait_for_function("window.app?.graph && window.app.vueAppReady")
            yield Editor(page)
        finally:
            browser.close()
