"""What each part of the method is worth on held-out pairs: the tables of the model card.

    python -m tests.benchmarks.ablation --pairs-tsv DATA/pairs.tsv [--steps 1,2,4,8] [--rows '4 steps' ...] [--every N]

Parts are switched off at inference in the released weights; nothing is trained again. A part without which the figures
hardly move is one that these weights hardly use.
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from jores import pipeline
from jores.checkpoint import SHIPPED_SEGMENTER, SHIPPED_WEIGHTS, JoReSNets, load_bundle
from jores.evaluation import SCORES, mean_of, pairs_of_table, score
from jores.imaging.exposure import mean_luma
from jores.imaging.files import read_image
from jores.nets.attention import RetinexAttention
from jores.nets.segmentation import load_segmenter


@contextmanager
def without(net: nn.Module, kind: type[nn.Module]) -> Iterator[None]:
    """Every layer of this kind hands its first input on unchanged."""
    hooks = [m.register_forward_hook(lambda _, inputs, __: inputs[0]) for m in net.modules() if isinstance(m, kind)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def blinded(rnet: nn.Module, **switches: bool) -> Iterator[None]:
    """RNet without one module's condition."""
    forward = rnet.forward
    rnet.forward = lambda *args: forward(*args, **switches)
    try:
        yield
    finally:
        del rnet.forward


def variants(
    nets: JoReSNets, segmenter: nn.Module, steps: list[int], low: Tensor, high: Tensor
) -> dict[str, Callable[[], Tensor]]:
    """Every row of the table as a function that makes its picture, on conditions that are computed once."""
    maps, prior = pipeline.decompose(nets, low), pipeline.segment(segmenter, low)
    condition = pipeline.adjust(nets, maps)

    def run(count: int = 4, c=condition, p=prior, **kw) -> Tensor:
        return pipeline.finish(pipeline.sample(nets, c, p, low=low, steps=count, **kw), low)

    def inside(context) -> Tensor:
        with context:
            return run()

    return {
        **{f"{count} steps": functools.partial(run, count) for count in steps},
        "R' x L' alone": lambda: condition.picture,
        "without RNet": lambda: run(refine=False),
        "without semantic attention": lambda: run(p=None),
        "without Retinex attention": lambda: inside(without(nets.denoiser, RetinexAttention)),
        "exposure told": lambda: run(c=pipeline.adjust(nets, maps, exposure=mean_luma(high))),
        "FRCM blind to F": lambda: inside(blinded(nets.refinement, frcm=False)),
        "IRCM blind to R', L'": lambda: inside(blinded(nets.refinement, ircm=False)),
        "RNet once, after the loop": lambda: _refined_after(nets, condition, run(refine=False)),
        "eta 1": lambda: run(eta=1.0),
    }


@torch.inference_mode()
def _refined_after(nets: JoReSNets, c: pipeline.RetinexCondition, picture: Tensor) -> Tensor:
    refined = nets.refinement(picture * 2 - 1, torch.ones(1), c.reflectance, c.illumination, c.features)
    return (refined + 1) / 2


def main(argv: list[str] | None = None, write: Callable[[str], object] = sys.stdout.write) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs-tsv", type=Path, required=True)
    parser.add_argument("--split", default="val")
    parser.add_argument("--weights", type=Path, default=SHIPPED_WEIGHTS)
    parser.add_argument("--segmenter", type=Path, default=SHIPPED_SEGMENTER)
    parser.add_argument("--steps", default="1,2,4,8")
    parser.add_argument("--rows", nargs="*", help="only these rows of the table")
    parser.add_argument("--every", type=int, default=1, help="only every Nth pair, for a quick look")
    args = parser.parse_args(argv)
    nets, segmenter = load_bundle(args.weights), load_segmenter(args.segmenter)
    steps = [int(s) for s in args.steps.split(",")]
    rows: dict[str, list[dict]] = {}
    errors = []
    for pair in pairs_of_table(args.pairs_tsv, args.split)[:: args.every]:
        low, high = (read_image(p).pixels[None, :3] for p in (pair.low, pair.high))
        errors.append(float((nets.adjustment.propose_exposure(low) / mean_luma(high)).log()))
        for name, make in variants(nets, segmenter, steps, low, high).items():
            if args.rows is None or name in args.rows:
                rows.setdefault(name, []).append({"picture": pair.name, **score(make(), high)})
    write("| variant | PSNR raw | PSNR GT-mean | SSIM raw | SSIM GT-mean |\n|---|---|---|---|---|\n")
    for name, scores in rows.items():
        mean = mean_of(scores)
        order = (SCORES[0], SCORES[2], SCORES[1], SCORES[3])
        figures = [f"{mean[k]:.2f}" if k.startswith("psnr") else f"{mean[k]:.3f}" for k in order]
        write(f"| {name} | {' | '.join(figures)} |\n")
    off, bias = sum(map(abs, errors)) / len(errors), sum(errors) / len(errors)
    write(f"\nproposed exposure, error of its logarithm: {off:.3f} in the mean, bias {bias:+.3f}\n")


if __name__ == "__main__":
    main()
