"""Start a real ComfyUI with this pack among its custom nodes, and stop it again."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .client import Client, HostError

PACK = Path(__file__).resolve().parents[2]
PACK_FOLDER = "JoReS-low-light-(dev)"
"""The pack's name in custom_nodes: people rename folders, so no code may depend on it being an identifier.

Without blanks: of a folder with blanks in its name ComfyUI serves no files (help pages, templates).
"""

BASE_FOLDERS = ("custom_nodes", "input", "models", "output", "temp", "user")
_NOT_OURS = shutil.ignore_patterns(".*", "__pycache__", "output", "runs")


@dataclass(frozen=True)
class Server:
    """A running ComfyUI. `base` holds its models, input, output, temp, user and custom_nodes folders."""

    url: str
    base: Path
    log: Path
    process: subprocess.Popen[bytes]

    def connect(self) -> Client:
        return Client(self.url)

    def log_tail(self, lines: int = 40) -> str:
        return "\n".join(self.log.read_text("utf-8", errors="replace").splitlines()[-lines:])


def host_tree() -> Path | None:
    """Return ComfyUI's own folder: $COMFYUI_DIR, or what `dev.py setup` fetched; None if neither is there."""
    tree = Path(os.environ.get("COMFYUI_DIR") or PACK / ".comfyui").expanduser().resolve()
    return tree if (tree / "main.py").is_file() else None


@contextlib.contextmanager
def start_server(
    base: Path,
    *,
    tree: Path | None = None,
    python: str | Path = sys.executable,
    pack: Path = PACK,
    cpu: bool = True,
    port: int = 0,
    timeout: float = 300.0,
    arguments: Sequence[str] = (),
) -> Iterator[Server]:
    """Run ComfyUI on 127.0.0.1 until the block ends.

    Args:
        base: folder for everything the host writes; made when missing. The log is `base/server.log`.
        tree: ComfyUI's folder, by default `host_tree()`.
        pack: folder of the node pack, linked into `base/custom_nodes` as PACK_FOLDER.
        port: 0 for any free one.
        timeout: seconds it may take to answer; the first start compiles ComfyUI's sources.
        arguments: more of ComfyUI's own options.

    Raises:
        HostError: no host, it did not start, or it could not import the pack; with the end of its log.
    """
    tree = tree or host_tree()
    if tree is None:
        raise HostError("there is no ComfyUI: run python3 dev.py setup")
    prepare_base(base, pack)
    port = claim_port(port)
    command = [str(python), "-u", str(tree / "main.py"), "--listen", "127.0.0.1", "--port", str(port)]
    command += ["--base-directory", str(base), "--database-url", f"sqlite:///{base / 'user' / 'comfyui.db'}"]
    command += ["--disable-api-nodes", "--disable-auto-launch", *(["--cpu"] if cpu else []), *arguments]
    with (base / "server.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=tree, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
    server = Server(f"http://127.0.0.1:{port}", base, base / "server.log", process)
    try:
        _wait_until_ready(server, timeout)
        yield server
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def prepare_base(base: Path, pack: Path = PACK, *, copy: bool = False) -> Path:
    """Make the host's base folder with the pack in its custom_nodes, and return the pack's path there.

    The pack is a symbolic link, so edits count at the next start; where the system allows none (Windows without
    developer mode), or with `copy`, it is a fresh copy without dot-folders.
    """
    for folder in BASE_FOLDERS:
        (base / folder).mkdir(parents=True, exist_ok=True)
    entry = base / "custom_nodes" / PACK_FOLDER
    if entry.is_symlink():
        entry.unlink()
    elif entry.exists():
        shutil.rmtree(entry)  # only ever the copy made below
    if not copy:
        with contextlib.suppress(OSError):
            entry.symlink_to(pack.resolve(), target_is_directory=True)
            return entry
    shutil.copytree(pack, entry, ignore=_NOT_OURS)
    return entry


def claim_port(port: int = 0) -> int:
    """Return `port`, or with 0 any free one. Raises HostError when another program has it."""
    with socket.socket() as probe:
        if os.name != "nt":  # as the host does: a port that was just given up is free
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise HostError(f"port {port} is taken: {error}; choose another") from None
        return probe.getsockname()[1]


def _wait_until_ready(server: Server, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while not _answers(server.url):
        if server.process.poll() is not None:
            raise HostError(f"ComfyUI ended with exit code {server.process.returncode}:\n{server.log_tail()}")
        if time.monotonic() > deadline:
            raise HostError(f"ComfyUI did not answer within {timeout:g} s:\n{server.log_tail()}")
        time.sleep(0.2)
    # ComfyUI goes on without a pack that it cannot import; whoever starts it here wants to know.
    report = server.log.read_text("utf-8", errors="replace")
    if any("(IMPORT FAILED)" in line and PACK_FOLDER in line for line in report.splitlines()):
        raise HostError(f"ComfyUI could not import the pack:\n{server.log_tail(80)}")


def _answers(url: str) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{url}/system_stats", timeout=5):
            return True
    except (urllib.error.URLError, OSError):
        return False
