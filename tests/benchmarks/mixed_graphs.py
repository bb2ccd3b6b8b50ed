"""One ComfyUI, a hundred prompts: good graphs between bad and patched ones. Is every good one what it is alone?

    python -m tests.benchmarks.mixed_graphs [--prompts 100 --size 48x32 --threads 1]

A good graph run alone, on a server that sees good graphs only, is compared with each of its runs in the mixture, bit by
bit. Patched graphs put another schedule into the shared model, with RNet or without; they and bad ones are refused
before or while they run. Exit code 1: a picture that differs, an end that was not expected, or more than 5 % growth of
memory.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import torch
from PIL import Image

from ..host.client import Client, HostError, Prompt, PromptError, with_own
from ..host.server import Server, start_server
from .soak import BUNDLE, WORKFLOWS, growth, mistake_in, prepare, prompt_of

STOCK = "stock_ksampler_rnet"
SCHEDULES = (
    ("ModelSamplingContinuousEDM", {"sampling": "v_prediction", "sigma_max": 120.0, "sigma_min": 0.002}),
    ("ModelSamplingDiscrete", {"sampling": "eps", "zsnr": False}),
    ("ModelSamplingSD3", {"shift": 3.0}),
)


def node_of(prompt: Prompt, kind: str) -> str:
    return next(key for key, node in prompt.items() if node["class_type"] == kind)


def stock_prompt(picture: str, seed: int) -> Prompt:
    prompt = json.loads((WORKFLOWS / f"{STOCK}.json").read_text("utf-8"))
    with_own(prompt, picture)
    prompt[node_of(prompt, "JoReSLoadModel")]["inputs"]["model_name"] = BUNDLE
    prompt[node_of(prompt, "KSampler")]["inputs"] |= {"seed": seed, "steps": 2}
    return prompt


def good(index: int, pictures: list[str]) -> tuple[str, Prompt]:
    """One of twelve, with its name."""
    kind, seed = index % 3, index // 3 % 4
    picture = pictures[seed % len(pictures)]
    if kind == 2:
        return f"stock {seed}", stock_prompt(picture, seed)
    name = ("enhance_low_light", "jores_five_stages")[kind]
    return f"{name} {seed}", prompt_of(name, picture, seed)


def patched(index: int, pictures: list[str]) -> Prompt:
    """A stock graph with a foreign schedule, with RNet and without in turn."""
    prompt = stock_prompt(pictures[index % len(pictures)], 1000 + index)
    kind, settings = SCHEDULES[index % len(SCHEDULES)]
    sampler, under_rnet = prompt[node_of(prompt, "KSampler")]["inputs"], index % 2 == 1
    before = sampler["model"] if under_rnet else [node_of(prompt, "JoReSLoadModel"), 0]
    prompt["900"] = {"class_type": kind, "inputs": {"model": before, **settings}}
    sampler["model"] = ["900", 0]
    return prompt


def bad(index: int, pictures: list[str]) -> Prompt:
    """Mistakes of several kinds, the last of them two pictures in one graph."""
    picture = pictures[index % len(pictures)]
    name = ("enhance_low_light", "jores_five_stages")[index % 2]
    if index % 4 != 3:
        return mistake_in(prompt_of(name, picture, 2000 + index), name, index)
    prompt = prompt_of("jores_five_stages", picture, 2000 + index)
    loader = node_of(prompt, "LoadImage")
    prompt["901"] = {"class_type": "ImageInvert", "inputs": {"image": [loader, 0]}}
    prompt[node_of(prompt, "JoReSSegment")]["inputs"]["image"] = ["901", 0]
    return prompt


def pixels(client: Client, prompt: Prompt) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(client.pictures(client.run(prompt, 300))[0])))


def refused(client: Client, prompt: Prompt) -> bool:
    try:
        return not client.pictures(client.run(prompt, 300))
    except PromptError:
        return True


def alone(server: Server, count: int, pictures: list[str]) -> dict[str, np.ndarray]:
    """What the good graphs give on a server that sees no others."""
    with server.connect() as client:
        return {name: pixels(client, prompt) for name, prompt in dict(good(i, pictures) for i in range(count)).items()}


def mixed(
    server: Server, count: int, pictures: list[str], expected: dict[str, np.ndarray]
) -> tuple[dict[str, int], list[str], list[float]]:
    """Good, patched, good, bad in turn: what they were, what went wrong, and the host's memory (MiB) after each."""
    process, kinds = psutil.Process(server.process.pid), {"good": 0, "patched": 0, "bad": 0}
    failures, memory = [], []
    with server.connect() as client:

        def run_good(i: int) -> str | None:
            name, prompt = good(i // 2, pictures)
            return None if np.array_equal(pixels(client, prompt), expected[name]) else f"{name} differs"

        def run_patched(i: int) -> str | None:
            return None if refused(client, patched(i // 4, pictures)) else "patched: was not refused"

        def run_bad(i: int) -> str | None:
            return None if refused(client, bad(i // 4, pictures)) else "bad: was not refused"

        turns: list[tuple[str, Callable[[int], str | None]]] = [
            ("good", run_good), ("patched", run_patched), ("good", run_good), ("bad", run_bad)
        ]  # fmt: skip
        for index in range(count):
            kind, run = turns[index % 4]
            kinds[kind] += 1
            try:
                failure = run(index)
            except (PromptError, HostError) as error:
                failure = f"{kind}: {error}"
            failures += [f"{index}: {failure}"] if failure else []
            memory.append(process.memory_info().rss / (1 << 20))
    return kinds, failures, memory


def run(base: Path, count: int, size: tuple[int, int]) -> tuple[dict[str, int], list[str], list[float]]:
    results: dict[str, np.ndarray] = {}
    for name in ("alone", "mixed"):
        with torch.random.fork_rng():
            torch.manual_seed(0)  # both get the same random weights
            pictures = prepare(base / name, size)
        with start_server(base / name) as server:
            if name == "alone":
                results = alone(server, (count + 1) // 2, pictures)
            else:
                return mixed(server, count, pictures, results)
    raise AssertionError("unreachable")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", type=int, default=100)
    parser.add_argument("--size", default="48x32")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        kinds, failures, memory = run(Path(folder), args.prompts, tuple(int(n) for n in args.size.split("x")))
    report = {
        "prompts": args.prompts, **kinds, "failures": failures,
        "mib_first_settled_last": [round(memory[i]) for i in (0, len(memory) // 4, -1)],
        "growth_after_warm_up": round(growth(memory), 4),
    }  # fmt: skip
    sys.stdout.write(json.dumps(report, indent=1) + "\n")
    return 1 if failures or growth(memory) > 0.05 else 0


if __name__ == "__main__":
    sys.exit(main())
