"""Seconds that the pack adds to ComfyUI's start: its imports and its list of nodes, after the host's `import nodes`.

    python -m tests.benchmarks.import_time [--detail]

Prints the best of a few fresh processes as JSON, and with --detail the modules that cost most.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from host.server import host_tree  # noqa: E402  (found through the line above)

# In the host's process, after its own imports: import the pack, and get its list with every schema.
MEASURE = """
import asyncio, importlib.util, json, sys, time
sys.path.insert(0, {tree!r})
from comfy.cli_args import args
args.cpu = True
import nodes, latent_preview
before, start, busy = set(sys.modules), time.perf_counter(), time.process_time()
spec = importlib.util.spec_from_file_location("jores_pack", {pack!r}, submodule_search_locations=[{folder!r}])
module = importlib.util.module_from_spec(spec)
sys.modules["jores_pack"] = module
spec.loader.exec_module(module)
for node in asyncio.run(asyncio.run(module.comfy_entrypoint()).get_node_list()):
    node.GET_SCHEMA()
seconds, host, busy = time.perf_counter() - start, busy, time.process_time() - busy
foreign = sorted({{name.split(".")[0] for name in set(sys.modules) - before}} - {{"jores_pack"}})
sys.stdout.write("\\n" + json.dumps({{
    "seconds": seconds, "cpu_seconds": busy, "host_cpu_seconds": host, "foreign": foreign,
}}))
"""


def measure(tree: Path, *options: str) -> tuple[dict, str]:
    """One fresh process: {"seconds", "cpu_seconds" and, before, "host_cpu_seconds", "foreign": top-level modules new to
    the host}, and its stderr."""
    code = MEASURE.format(tree=str(tree), pack=str(ROOT / "__init__.py"), folder=str(ROOT))
    done = subprocess.run([sys.executable, *options, "-c", code], capture_output=True, text=True, cwd=tree)
    if done.returncode != 0:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--detail", action="store_true")
    args = parser.parse_args()
    tree = host_tree()
    if tree is None:
        parser.error("there is no ComfyUI: run python3 dev.py setup")
    runs = [measure(tree)[0] for _ in range(args.repeat)]
    sys.stdout.write(json.dumps(min(runs, key=lambda run: run["seconds"])) + "\n")
    if args.detail:
        listing = measure(tree, "-X", "importtime")[1].splitlines()
        rows = [line.split("|") for line in listing if line.startswith("import time:") and line.count("|") == 2]
        start = next(i for i, row in enumerate(rows) if row[2].strip().startswith("jores_pack"))
        costly = sorted(
            ((int(row[1]), row[2].rstrip()) for row in rows[start:] if row[1].strip().isdigit()), reverse=True
        )
        sys.stdout.writelines(f"{microseconds / 1000:8.1f} ms {name}\n" for microseconds, name in costly[:25])


if __name__ == "__main__":
    main()
