"""What each part of the method is worth on held-out pairs: the tables of the model card.

    python -m tests.benchmarks.ablation --pairs-tsv DATA/pairs.tsv [--steps 1,2,4,8,20] [--every N] [--rows ROW ...]
        [--weights BUNDLE] [--texture 0..1] [--lpips FILE]

Parts are switched off at inference in the released weights; nothing is trained again. A part without which the figures
hardly move is one that these weights hardly use; one without which they collapse may still be one that a net trained
without it would replace. Rows compare only within one table, for which the same pairs were used: what is slow (many
steps, many rows) is best asked for in a second call with a larger --every.

Below come the same figures of one row by darkness of the input (thirds of the pairs by mean luma) and by scene.
NIQE is lower for better, and comparable only with NIQE of this package.
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from jores import pipeline
from jores.checkpoint import SHIPPED_SEGMENTER, SHIPPED_WEIGHTS, JoReSNets, load_bundle
from jores.commands.evaluate import COLUMNS, format_figure, mean_of
from jores.files.pictures import read_image
from jores.files.tables import rows_of_table
from jores.imaging.exposure import exposure_gain, mean_luma
from jores.metrics import niqe
from jores.metrics.lpips import Lpips, load_lpips
from jores.metrics.scores import assess
from jores.nets.attention import RetinexAttention
from jores.nets.refinement import FRCM, IRCM
from jores.options import SampleOptions
from jores.semantics import load_segmenter
from tests.flat import flat

ORDER = (
    "psnr_raw", "psnr_gt_mean", "ssim_raw", "ssim_gt_mean", "lpips", "niqe", "spectrum_error", "exposure_error"
)  # fmt: skip
PARTS = (
    "brightness alone", "R' x L' alone", "R' x L' without gains", "without RNet", "RNet once, after the loop",
    "without FRCM", "without IRCM", "FRCM blind to F", "IRCM blind to R', L'", "without semantic attention",
    "without Retinex attention", "exposure told", "eta 1",
)  # fmt: skip


@contextmanager
def without(net: nn.Module, kind: type[nn.Module]) -> Iterator[None]:
    """Every layer of this kind hands its first input on unchanged."""
    with _hooked((m for m in net.modules() if isinstance(m, kind)), lambda inputs, _: inputs[0]):
        yield


@contextmanager
def silenced(*modules: nn.Module) -> Iterator[None]:
    """These modules give zeros."""
    with _hooked(modules, lambda _, output: torch.zeros_like(output)):
        yield


@contextmanager
def _hooked(modules, answer: Callable[[tuple, Tensor], Tensor]) -> Iterator[None]:
    hooks = [m.register_forward_hook(lambda _, inputs, output: answer(inputs, output)) for m in modules]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def blinded(module: FRCM | IRCM) -> Iterator[None]:
    """A module of RNet without its condition: zeros in place of ANet's features, or of the Retinex maps."""

    def without_features(frcm: FRCM, inputs: tuple) -> tuple:
        folded, _, embedding = inputs
        widths = (m.embed.in_channels for m in (frcm.modulate_fine, frcm.modulate_coarse))
        zeros = tuple(folded.new_zeros(len(folded), width, 1, 1) for width in widths)
        return folded, frcm.modulations(zeros, folded.shape[-2:]), embedding

    def without_maps(ircm: IRCM, inputs: tuple) -> tuple:
        feature, folded, embedding = inputs
        x0 = folded.shape[1] * 3 // 10  # behind it: R', L' and R' x L'
        return feature, torch.cat([folded[:, :x0], torch.zeros_like(folded[:, x0:])], 1), embedding

    hook = module.register_forward_pre_hook(without_features if isinstance(module, FRCM) else without_maps)
    try:
        yield
    finally:
        hook.remove()


def variants(
    nets: JoReSNets,
    segmenter: nn.Module,
    steps: list[int],
    low: Tensor,
    high: Tensor,
    texture: float = SampleOptions.texture,
) -> dict[str, Callable[[], Tensor]]:
    """Every row of the table as a function that makes its picture, on conditions that are computed once.

    "brightness alone": the input times one number, to the mean that ANet proposes. "without FRCM": IRCM gets no
    F'_x0. "without IRCM": it gets F'_x0 alone, neither x0 nor the Retinex maps.
    """
    maps, prior = pipeline.decompose(nets, low), pipeline.segment(segmenter, low, nets)
    condition, rnet = pipeline.adjust(nets, maps), nets.refinement

    @functools.cache
    def run(count: int = SampleOptions.steps, *, told: bool = False, semantics: bool = True, **kw) -> Tensor:
        c = pipeline.adjust(nets, maps, exposure=mean_luma(high)) if told else condition
        kw = {"steps": count, "texture": texture, **kw}
        x0 = flat(pipeline.sample)(nets, c, prior if semantics else None, low=low, **kw)
        return pipeline.finish(x0, low)

    def brightness_alone() -> Tensor:
        gain = exposure_gain(mean_luma(low), nets.adjustment.propose_exposure(low))
        return (low * gain.view(-1, 1, 1, 1)).clamp(0, 1)

    def retinex_without_gains() -> Tensor:
        with silenced(nets.adjustment.gain_grid):
            return pipeline.adjust(nets, maps).picture

    def inside(context) -> Tensor:
        with context:
            return run.__wrapped__()

    makers = (
        brightness_alone,
        lambda: condition.picture,
        retinex_without_gains,
        lambda: run(refine=False),
        lambda: _refined_after(nets, condition, run(refine=False)),
        lambda: inside(silenced(rnet.frcm)),
        lambda: inside(silenced(rnet.ircm.embed)),
        lambda: inside(blinded(rnet.frcm)),
        lambda: inside(blinded(rnet.ircm)),
        lambda: run(semantics=False),
        lambda: inside(without(nets.denoiser, RetinexAttention)),
        lambda: run(told=True),
        lambda: run(eta=1.0),
    )
    counts = {step_row(count): functools.partial(run, count) for count in steps}
    return counts | dict(zip(PARTS, makers, strict=True))


def step_row(count: int) -> str:
    return f"{count} step{'s' if count > 1 else ''}"


@torch.inference_mode()
def _refined_after(nets: JoReSNets, c: pipeline.RetinexCondition, picture: Tensor) -> Tensor:
    return (nets.refinement(picture * 2 - 1, torch.ones(1), c) + 1) / 2


def measure(
    nets: JoReSNets,
    segmenter: nn.Module,
    row: dict[str, str],
    folder: Path,
    steps: list[int],
    wanted: list[str],
    texture: float = SampleOptions.texture,
    lpips: Lpips | None = None,
) -> list[dict[str, Any]]:
    """One record per wanted variant of one pair: the figures, and what the tables are sorted by."""
    low, high = (read_image(folder / row[key]).pixels[None, :3] for key in ("low", "high"))
    pair = {"picture": row["id"], "scene": row.get("scene"), "luma": mean_luma(low).item()}
    pair["bias"] = (nets.adjustment.propose_exposure(low) / mean_luma(high)).log().item()
    pair["niqe_low"], pair["niqe_high"] = niqe(torch.cat([low, high])).tolist()
    makers = variants(nets, segmenter, steps, low, high, texture)
    return [{"variant": name, **pair, **assess(makers[name](), high, lpips)} for name in wanted]


def table(title: str, groups: dict[str, list[dict[str, Any]]]) -> str:
    """Means of each group as Markdown."""
    shown = [key for key in ORDER if all(key in record for records in groups.values() for record in records)]
    head = f"| {title} | pairs | {' | '.join(COLUMNS[key] for key in shown)} |\n|---{'|---' * (len(shown) + 1)}|\n"
    lines = []
    for name, records in groups.items():
        mean = mean_of(records)
        lines.append(f"| {name} | {len(records)} | {' | '.join(format_figure(key, mean[key]) for key in shown)} |\n")
    return head + "".join(lines)


def grouped(records: list[dict[str, Any]], key: str) -> dict[str, list[dict[str, Any]]]:
    groups: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        groups.setdefault(record[key], []).append(record)
    return groups


def by_darkness(records: list[dict[str, Any]], parts: int = 3) -> dict[str, list[dict[str, Any]]]:
    """Equal parts of the pairs from dark to bright, named by the mean luma of their inputs in levels of 255."""
    ranked, groups = sorted(records, key=lambda r: r["luma"]), {}
    for i in range(parts):
        part = ranked[i * len(ranked) // parts : (i + 1) * len(ranked) // parts]
        if part:
            groups[f"{part[0]['luma'] * 255:.1f} to {part[-1]['luma'] * 255:.1f}"] = part
    return groups


def summary(records: list[dict[str, Any]]) -> str:
    """What is known of the pairs themselves, from the records of one variant."""
    count = len(records)
    off, bias = sum(abs(r["bias"]) for r in records) / count, sum(r["bias"] for r in records) / count
    low, high = (sum(r[key] for r in records) / count for key in ("niqe_low", "niqe_high"))
    return (
        f"NIQE of the inputs {low:.2f}, of the ground truths {high:.2f} (own fit, compares with no published one)\n"
        f"proposed exposure, error of its logarithm: {off:.3f} in the mean, bias {bias:+.3f}\n"
    )


def main(argv: list[str] | None = None, write: Callable[[str], object] = sys.stdout.write) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs-tsv", type=Path, required=True)
    parser.add_argument("--split", default="val")
    parser.add_argument("--weights", type=Path, default=SHIPPED_WEIGHTS)
    parser.add_argument("--segmenter", type=Path, default=SHIPPED_SEGMENTER)
    parser.add_argument("--steps", default="1,2,4,8", help="a row for each of these numbers of steps")
    parser.add_argument("--rows", nargs="*", metavar="ROW", help=f"only these: '4 steps', ..., {', '.join(PARTS)}")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only every Nth pair")
    parser.add_argument("--texture", type=float, default=SampleOptions.texture)
    parser.add_argument("--lpips", type=Path, metavar="FILE", help="weights of LPIPS with AlexNet")
    parser.add_argument("--detail", metavar="ROW", help="row shown by darkness and by scene (default: '4 steps')")
    args = parser.parse_args(argv)
    steps = [int(s) for s in args.steps.split(",") if s]
    known = [*map(step_row, steps), *PARTS]
    wanted = args.rows or known
    if unknown := set(wanted) - set(known):
        parser.error(f"no such row: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    nets, segmenter = load_bundle(args.weights), load_segmenter(args.segmenter)
    lpips = load_lpips(args.lpips) if args.lpips else None
    rows, records = rows_of_table(args.pairs_tsv, args.split)[:: args.every], []
    for i, row in enumerate(rows):
        records += measure(nets, segmenter, row, args.pairs_tsv.parent, steps, wanted, args.texture, lpips)
        sys.stderr.write(f"\r{i + 1} of {len(rows)} pairs")
    sys.stderr.write("\n")
    groups = grouped(records, "variant")
    default = step_row(SampleOptions.steps)
    detail = args.detail or (default if default in groups else wanted[0])
    write(f"{table('variant', groups)}\n{summary(groups[detail])}\n")
    write(table(f"{detail}, by mean luma of the input (0 to 255)", by_darkness(groups[detail])) + "\n")
    if records[0]["scene"]:
        write(table(f"{detail}, by scene", grouped(groups[detail], "scene")))


if __name__ == "__main__":
    main()
