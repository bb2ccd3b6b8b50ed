"""Where the time of one picture goes: seconds and bytes by stage and kind of layer.

    python -m tests.benchmarks.profile [--size 600x400 --steps 4 --threads 2 --weights BUNDLE --precision bfloat16]

Seconds are those of the fastest of `--repeat` runs. "rest" is what runs outside of layers: attention's products,
padding, folding, interpolation, element-wise operations of the nets, the sampler. "MiB written" counts the outputs of
the layers once each.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from jores import pipeline
from jores.checkpoint import SHIPPED_SEGMENTER, SHIPPED_WEIGHTS, load_bundle
from jores.limits import PRECISIONS
from jores.precision import reduce_precision
from jores.semantics import load_segmenter
from tests.flat import flat


@dataclass
class Ledger:
    """Seconds and bytes by layer kind for the net that is running."""

    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    written: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    started: float = 0.0

    def watch(self, net: nn.Module, name: str) -> list:
        """Counts all layers of `net` under `name`, and the net as a whole."""
        handles, starts = [], []

        def begin(*_) -> None:
            starts.append(time.perf_counter())

        def end(module: nn.Module, _, output) -> None:
            kind = "whole" if module is net else kind_of(module)
            self.seconds[f"{name}|{kind}"] += time.perf_counter() - starts.pop()
            if isinstance(output, Tensor) and module is not net:
                self.written[f"{name}|{kind}"] += output.numel() * output.element_size()

        for module in net.modules():
            if module is net or not list(module.children()):
                handles.append(module.register_forward_pre_hook(begin))
                handles.append(module.register_forward_hook(end))
        return handles


def kind_of(module: nn.Module) -> str:
    if isinstance(module, nn.Conv2d):
        side, stride = module.kernel_size[0], module.stride[0]
        depthwise = " per channel" if module.groups > 1 else ""
        return f"conv {side}x{side}{depthwise}" + (f" stride {stride}" if stride > 1 else "")
    return type(module).__name__


def measure(run: Callable[[], object], nets: dict[str, nn.Module], repeat: int) -> tuple[float, Ledger]:
    """The fastest of `repeat` runs: its seconds and its ledger."""
    best: tuple[float, Ledger] | None = None
    for _ in range(repeat):
        ledger, handles = Ledger(), []
        for name, net in nets.items():
            handles += ledger.watch(net, name)
        start = time.perf_counter()
        run()
        seconds = time.perf_counter() - start
        for handle in handles:
            handle.remove()
        if best is None or seconds < best[0]:
            best = seconds, ledger
    if best is None:
        raise ValueError("--repeat must be at least 1")
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="600x400")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--weights", type=Path, default=SHIPPED_WEIGHTS)
    parser.add_argument("--precision", choices=PRECISIONS, default="float32")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    width, height = (int(n) for n in args.size.split("x"))
    low = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0)) * 0.1
    nets, segmenter = load_bundle(args.weights), load_segmenter(SHIPPED_SEGMENTER)
    reduce_precision(nets, args.precision)
    watched = {"DNet": nets.dnet, "ANet": nets.anet, "segmenter": segmenter, "UNet": nets.unet, "RNet": nets.rnet}
    seconds, ledger = measure(
        lambda: flat(pipeline.enhance)(low, nets, segmenter, steps=args.steps), watched, args.repeat
    )
    sys.stdout.write(table(seconds, ledger))


def table(total: float, ledger: Ledger) -> str:
    lines = [f"whole: {total:.3f} s", "| net | kind | seconds | share | MiB written |", "|---|---|---|---|---|"]
    whole = {key.split("|")[0]: s for key, s in ledger.seconds.items() if key.endswith("|whole")}
    for net, spent in whole.items():
        parts = {key: s for key, s in ledger.seconds.items() if key.startswith(f"{net}|") and key != f"{net}|whole"}
        rows = [(key.split("|")[1], s, ledger.written.get(key, 0)) for key, s in parts.items()]
        rows.append(("rest", spent - sum(parts.values()), 0))
        lines.append(f"| **{net}** | | **{spent:.3f}** | {spent / total:.0%} | |")
        for kind, s, size in sorted(rows, key=lambda row: -row[1]):
            lines.append(f"| | {kind} | {s:.3f} | {s / total:.0%} | {size / (1 << 20):.0f} |")
    lines.append(f"| outside the nets | | {total - sum(whole.values()):.3f} | | |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
