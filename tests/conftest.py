"""What the tests share: a running ComfyUI, ComfyUI in this process, and the training pictures.

Whose `nodes` is it? ComfyUI has a top-level module `nodes`, this pack a folder `nodes/`, and the clone's root is on
sys.path for `import jores`. Two rules keep them apart:

* In a process with ComfyUI (`comfy_inprocess`) the host's folder comes first on sys.path and its `nodes` is imported
  at once, so that the name is taken for good.
* The pack's nodes are never imported as top-level `nodes`, but as ComfyUI does it: by path, under another name. That
  is the fixture `jores_pack`; its nodes are `jores_pack.nodes`, and the library that they use is `jores_pack.jores`,
  a second copy of `jores` with classes of its own. Use the pack's copy throughout such a test.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from host.browser import find_chromium
from host.client import Client
from host.server import BASE_FOLDERS, PACK, Server, host_tree, start_server
from jores.checkpoint import SHIPPED_SEGMENTER, SHIPPED_WEIGHTS, JoReSNets, load_bundle
from jores.files.encoders import ordinary_threads
from jores.nets.segmentation import Segmenter
from jores.semantics import load_segmenter

pytest_plugins = ("tests.fixtures",)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--gpu", action="store_true", help="let ComfyUI use this machine's accelerator, not the CPU")
    parser.addoption("--renew-schema", action="store_true", help="write tests/schema.json and locales/en anew")


EXACT = "--force-fp32"
"""ComfyUI's option for tests that compare nodes with the library to 1e-4: else its nets compute in bfloat16 on some
processors (tests/test_node_precision.py)."""


@pytest.fixture(autouse=True)
def _threads_as_before() -> Iterator[None]:
    """A test that writes AV1 itself, as root, must not make the rest of the suite a real-time process: the servers
    beside it would starve."""
    with ordinary_threads():
        yield


LONG = (
    "gallery", "page", "training", "installed", "nodes", "mixed_graphs", "node_devices", "video", "fades",
    "first_picture",
)  # fmt: skip
"""Files of tests that begin first, so that no process of several ends long after the others."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {f"test_{name}.py": place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))
    for item in items:
        asked = getattr(item, "fixturenames", ())
        if any(name.startswith(("comfy_", "jores_pack")) for name in asked):
            item.add_marker("host")
        if "browser" in asked:
            item.add_marker("browser")
        if "shared_data" in asked:
            item.add_marker("slow")


@pytest.fixture(scope="module")
def nets() -> JoReSNets:
    """The shipped nets."""
    return load_bundle(SHIPPED_WEIGHTS)


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    """The shipped segmenter."""
    return load_segmenter(SHIPPED_SEGMENTER)


@pytest.fixture(scope="session")
def comfy_tree() -> Path:
    """ComfyUI's folder."""
    tree = host_tree()
    if tree is None:
        pytest.skip("there is no ComfyUI: run python3 dev.py setup")
    return tree


@pytest.fixture(scope="session")
def comfy_server(
    comfy_tree: Path, tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> Iterator[Server]:
    """One ComfyUI for the whole run, with the pack under an odd folder name; started by the first test that asks."""
    base = tmp_path_factory.mktemp("comfyui base")
    with start_server(base, tree=comfy_tree, cpu=not pytestconfig.getoption("gpu"), arguments=[EXACT]) as server:
        yield server


@pytest.fixture
def comfy_client(comfy_server: Server) -> Iterator[Client]:
    """A fresh connection to `comfy_server`."""
    with comfy_server.connect() as client:
        yield client


@pytest.fixture(scope="session")
def comfy_inprocess(
    comfy_tree: Path, tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> SimpleNamespace:
    """ComfyUI imported into this process, without a server: `.nodes` is its module, `.base` its folders' parent.

    Afterwards `import comfy.sample`, `import folder_paths` and so on work in the test. ComfyUI runs nodes under
    `torch.inference_mode()`; a test that calls one does the same.
    """
    base = tmp_path_factory.mktemp("comfyui in-process")
    for folder in BASE_FOLDERS:
        (base / folder).mkdir()
    sys.path.insert(0, str(comfy_tree))
    from comfy.cli_args import args  # reads no command line: only main.py asks it to

    # Both before anything else of ComfyUI, which looks for a GPU and for its folders while it is imported.
    args.cpu = not pytestconfig.getoption("gpu")
    args.base_directory = str(base)
    args.force_fp32 = True  # EXACT
    import nodes

    if Path(nodes.__file__).resolve().parent != comfy_tree:
        pytest.fail(f"{nodes.__file__} was imported as top-level `nodes`; use the fixture jores_pack for the pack's")
    return SimpleNamespace(nodes=nodes, base=base)


@pytest.fixture(scope="session")
def jores_pack(comfy_inprocess: SimpleNamespace) -> ModuleType:
    """This pack, loaded beside an in-process ComfyUI as ComfyUI loads it: from its path, under another name."""
    spec = importlib.util.spec_from_file_location(
        "jores_pack", PACK / "__init__.py", submodule_search_locations=[str(PACK)]
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def jores_pack_nodes(jores_pack: ModuleType) -> dict[str, type]:
    """The pack's node classes by id."""
    extension = asyncio.run(jores_pack.comfy_entrypoint())
    return {node.define_schema().node_id: node for node in asyncio.run(extension.get_node_list())}


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The training pictures, which are not part of the project: in JORES_DATA, or ../shared/data beside the clone."""
    folder = Path(os.environ.get("JORES_DATA") or PACK.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no training pictures in {folder}")
    return folder


@pytest.fixture(scope="session")
def browser() -> str:
    """Chromium's path."""
    pytest.importorskip("playwright", reason="the graphs are not opened in the front end: playwright is not installed")
    chromium = find_chromium()
    if chromium is None:
        pytest.skip("the graphs are not opened in the front end: there is no Chromium on PATH or in $CHROMIUM")
    return chromium
