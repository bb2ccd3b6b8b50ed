"""One ComfyUI, hundreds of prompts, with cancels and mistakes between them: does anything fail, does memory grow?

    python -m tests.benchmarks.soak [--prompts 200 --size 48x32 --threads 1]

The host's own python runs it (.venv after `dev.py setup`). Weights are random: what counts is what is left behind.
Every fifth prompt is cancelled in mid-sampling and every seventh has a mistake, of several kinds in turn; after each
the next must run as if nothing had been. Exit code 1: a failure, or more than 5 % of growth after the warm-up.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

from jores.checkpoint import build, save_bundle
from jores.config import PRESETS

from ..host.client import Client, HostError, Prompt, PromptError, with_own
from ..host.server import BASE_FOLDERS, PACK, Server, start_server

WORKFLOWS = PACK / "workflows" / "api"
NAMES = ("enhance_low_light", "jores_five_stages")
SAMPLER = {"enhance_low_light": "2", "jores_five_stages": "9"}
BUNDLE = "soak.safetensors"


def prompt_of(name: str, picture: str, seed: int) -> Prompt:
    """A shipped workflow on a picture of the host's input folder, with a seed that keeps it out of the host's cache."""
    prompt = json.loads((WORKFLOWS / f"{name}.json").read_text("utf-8"))
    with_own(prompt, picture)
    for node in prompt.values():
        if "model_name" in node["inputs"]:
            node["inputs"]["model_name"] = BUNDLE
    prompt[SAMPLER[name]]["inputs"] |= {"seed": seed, "steps": 2}
    return prompt


def mistake_in(prompt: Prompt, name: str, index: int) -> Prompt:
    """The same prompt with something that must be refused, at validation or while it runs."""
    wrong = [{"steps": 1000}, {"model_name": "none.safetensors"}, {"seed": -1}]
    if name == "jores_five_stages":
        prompt["20"] = {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}}
        wrong = [{"steps": 1000}, {"latent": ["20", 0]}, {"seed": -1}]
    prompt[SAMPLER[name]]["inputs"] |= wrong[index % len(wrong)]
    return prompt


def run_cancelled(client: Client, prompt: Prompt, sampler: str) -> bool:
    """Cancels after the second step; returns whether the host had not been quicker."""
    prompt[sampler]["inputs"]["steps"] = 100

    def cancel(kind: str, data: dict) -> None:
        if kind == "progress" and data["node"] == sampler and data["value"] == 2:
            threading.Thread(target=client.interrupt).start()

    try:
        client.run(prompt, 120, cancel)
    except PromptError as error:
        if "interrupted in" not in str(error):
            raise
        return True
    return False


def run_prompt(client: Client, index: int, pictures: list[str]) -> str:
    """Runs number `index`; returns what it was: "done", "cancelled", "refused". Raises when it ended otherwise."""
    name = NAMES[index % 2]
    prompt = prompt_of(name, pictures[index % len(pictures)], index)
    if index % 5 == 4:
        return "cancelled" if run_cancelled(client, prompt, SAMPLER[name]) else "done"
    if index % 7 == 6:
        try:
            entry = client.run(mistake_in(prompt, name, index // 7), 120)
        except PromptError:
            return "refused"
        if client.pictures(entry):  # the host runs what else it can of a graph: the previews of the earlier stages
            raise HostError(f"prompt {index} has a mistake, but gave a picture")
        return "refused"
    encoded = client.pictures(client.run(prompt, 120))[0]
    if not np.asarray(Image.open(io.BytesIO(encoded))).any():
        raise HostError(f"prompt {index} gave a black picture")
    return "done"


def soak(server: Server, count: int, pictures: list[str]) -> tuple[dict[str, int], list[str], list[float]]:
    """What the prompts were, what failed, and the host's memory (MiB) after each."""
    process = psutil.Process(server.process.pid)
    kinds, failures, memory = {"done": 0, "cancelled": 0, "refused": 0}, [], []
    with server.connect() as client:
        for index in range(count):
            try:
                kinds[run_prompt(client, index, pictures)] += 1
            except (PromptError, HostError) as error:
                failures.append(f"{index}: {error}")
            memory.append(process.memory_info().rss / (1 << 20))
    return kinds, failures, memory


def growth(memory: list[float]) -> float:
    """Relative growth between the medians of the first and the last fifth of what follows the warm-up, a quarter."""
    settled = memory[len(memory) // 4 :]
    part = max(1, len(settled) // 5)
    return statistics.median(settled[-part:]) / statistics.median(settled[:part]) - 1


def prepare(base: Path, size: tuple[int, int]) -> list[str]:
    """Dark pictures of several kinds and a bundle with random weights in the host's folders."""
    for folder in BASE_FOLDERS:
        (base / folder).mkdir(parents=True, exist_ok=True)
    (base / "models" / "jores").mkdir()
    save_bundle(base / "models" / "jores" / BUNDLE, build(PRESETS["compact"]))
    rng, names = np.random.default_rng(0), []
    for index, mode in enumerate(("RGB", "RGBA", "L", "RGB")):
        width, height = size[0] + 7 * index, size[1] + index
        levels = rng.integers(0, 40, (height, width, 4), dtype=np.uint8)
        names.append(f"{index}.png")
        Image.fromarray(levels).convert(mode).save(base / "input" / names[-1])
    return names


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--size", default="48x32")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(args.threads)
    width, height = (int(n) for n in args.size.split("x"))
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        pictures = prepare(base, (width, height))
        with start_server(base) as server:
            start = time.perf_counter()
            kinds, failures, memory = soak(server, args.prompts, pictures)
            seconds = time.perf_counter() - start
    report = {
        "prompts": args.prompts, **kinds, "failures": failures, "seconds": round(seconds),
        "mib_first_settled_last": [round(memory[i]) for i in (0, len(memory) // 4, -1)],
        "growth_after_warm_up": round(growth(memory), 4),
    }  # fmt: skip
    sys.stdout.write(json.dumps(report, indent=1) + "\n")
    return 1 if failures or growth(memory) > 0.05 else 0


if __name__ == "__main__":
    sys.exit(main())
