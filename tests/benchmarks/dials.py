"""Seconds that Enhance Low Light takes for a first run, and after one dial was changed, in a real ComfyUI on the CPU.

    python -m tests.benchmarks.dials [--sizes 600x400 3000x2000] [--steps 4] [--quality standard] [--processor]

For each size: the first run of a picture, then two other pictures (so that the host's own cache has let go of it), then
one dial after the other on the first picture. What is measured is the node, from its start to that of the next, as the
host reports it to a browser; loading and saving pictures are left out. Prints a Markdown table. Nothing else may run
on the machine, or else ask for the host's seconds of processor time (--processor), on one thread (OMP_NUM_THREADS=1):
what two cores take lies between these and half of them. Some 10 minutes for both sizes.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

from ..host.client import Client, Prompt
from ..host.server import PACK, start_server

INPUT = PACK / "workflows" / "enhance_low_light.input.png"
ENHANCE = "2"
Clock = Callable[[], float]
DIALS: dict[str, dict[str, float]] = {
    "strength": {"strength": 0.7},
    "shadows": {"shadows": 0.5},
    "colour_fidelity": {"colour_fidelity": 0.5},
    "mask": {},
    "feather": {"feather": 20},
    "brightness": {"brightness": 0.5},
    "exposure": {"exposure": 0.3},
    "seed": {"seed": 7},
}


def prompt_of(picture: str, steps: int, quality: str, **dials: float) -> Prompt:
    """Load a picture, enhance it, look at it; with "mask" in `dials` under the mask of a half."""
    inputs = {"exposure": 0.0, "strength": 1.0, "steps": steps, "seed": 0, "semantic": True, "quality": quality}
    inputs |= {"model_name": "jores-compact.safetensors (shipped)", "image": ["1", 0]} | dials
    return {
        "1": {"class_type": "LoadImage", "inputs": {"image": picture}},
        ENHANCE: {"class_type": "JoReSEnhance", "inputs": inputs},
        "3": {"class_type": "PreviewImage", "inputs": {"images": [ENHANCE, 0]}},
    }


def with_mask(prompt: Prompt, size: tuple[int, int]) -> Prompt:
    """Width and height of the picture; its left half is white."""
    width, height = size
    for key, value, wide in (("4", 0.0, width), ("5", 1.0, width // 2)):
        prompt[key] = {"class_type": "SolidMask", "inputs": {"value": value, "width": wide, "height": height}}
    joined = {"destination": ["4", 0], "source": ["5", 0], "x": 0, "y": 0, "operation": "add"}
    prompt["6"] = {"class_type": "MaskComposite", "inputs": joined}
    prompt[ENHANCE]["inputs"]["mask"] = ["6", 0]
    return prompt


def processor_time(process: int) -> Clock:
    """A clock of the processor time that a process has used, in seconds."""
    watched = psutil.Process(process)

    def now() -> float:
        used = watched.cpu_times()
        return used.user + used.system

    return now


def seconds(client: Client, prompt: Prompt, clock: Clock = time.perf_counter) -> float:
    """What the Enhance node of a prompt takes."""
    marks: dict[str, float] = {}

    def note(kind: str, data: dict) -> None:
        if kind == "executing":
            now = clock()
            if data.get("node") == ENHANCE:
                marks["start"] = now
            elif "start" in marks:
                marks.setdefault("end", now)

    client.run(prompt, 7200, note)
    return marks["end"] - marks["start"]


def measure(
    client: Client, folder: Path, size: tuple[int, int], steps: int, quality: str, clock: Clock = time.perf_counter
) -> dict[str, float]:
    """Dial -> seconds after it was changed; "first run" first, "another picture" second."""
    names = []
    with Image.open(INPUT) as picture:
        whole = picture.convert("RGB").resize(size, Image.Resampling.BICUBIC)
    for i in range(3):
        turned = np.roll(np.asarray(whole), 40 * i, axis=1)
        path = folder / f"{size[0]}-{i}.png"
        Image.fromarray(turned).save(path, compress_level=1)
        names.append(client.upload(path))
    found = {"first run": seconds(client, prompt_of(names[0], steps, quality), clock)}
    found["another picture"] = [seconds(client, prompt_of(name, steps, quality), clock) for name in names[1:]][-1]
    for dial, values in DIALS.items():
        prompt = prompt_of(names[0], steps, quality, **values)
        found[dial] = seconds(client, with_mask(prompt, size) if dial in ("mask", "feather") else prompt, clock)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["600x400", "3000x2000"], metavar="WIDTHxHEIGHT")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--quality", default="standard", choices=["draft", "standard", "fine"])
    parser.add_argument("--processor", action="store_true", help="seconds of the host's processor time")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as base, start_server(Path(base)) as server, server.connect() as client:
        columns, clock = {}, processor_time(server.process.pid) if options.processor else time.perf_counter
        for shown in options.sizes:
            width, height = map(int, shown.split("x"))
            columns[shown] = measure(client, Path(base), (width, height), options.steps, options.quality, clock)
    lines = [f"| changed | {' | '.join(f'{shown}, s' for shown in columns)} |", "|---" * (len(columns) + 1) + "|"]
    for row in next(iter(columns.values())):
        lines.append(f"| {row} | {' | '.join(f'{column[row]:.2f}' for column in columns.values())} |")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
