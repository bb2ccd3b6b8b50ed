"""What the diffusion draws, to be looked at: how much it differs from seed to seed, faces, crops, and a blind test.

    python -m tests.benchmarks.drawn [DATA/lol_v1/pairs.tsv ...] --map PNG [--seeds 8] [--every N]
    python -m tests.benchmarks.drawn --faces JPEG [--seeds 8]
    python -m tests.benchmarks.drawn --crops JPEG DATA/lol_v1/pairs.tsv DATA/sice/pairs.tsv --lpips FILE
    python -m tests.benchmarks.drawn --blind FOLDER DATA/sice/pairs.tsv --key JSON [--count 20] [--seed N] [--texture 1]

Without a table the pictures are scikit-image's free photographs, cut and darkened: a sheet of them may be published.
LOL's and SICE's pictures may be shown only as their licences permit. All results are told the truth's exposure.

map: a row for each picture: R' x L', the first seed at texture 1, and the standard deviation over the seeds, white for
20 levels of 255 and more; its mean is printed. faces: the same with all seeds, for one face in a 50th of the light.
crops: 200 pixels at 300 % where the truth has most fine detail, of every fifth pair, then of the six with the worst
LPIPS. Columns: the input at the truth's brightness, R' x L', texture 0.5, the default, the control that needs no
training (R' x L' and a share of the input's own luma grain), the truth. A row takes half a megabyte and a file 3 MB at
most: what does not fit goes on in JPEG-2 and so on. Without a table, --every 2 gives one file of both lights.
blind: pairs of such crops, R' x L' and the default texture, in random order and on random sides, without a label, a
PNG each. The key says which side is which; it must not lie in the folder.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import skimage.data
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional as F

from jores.checkpoint import SHIPPED_SEGMENTER, SHIPPED_WEIGHTS, JoReSNets, load_bundle
from jores.metrics import gt_mean
from jores.metrics.lpips import Lpips, load_lpips
from jores.nets.segmentation import Segmenter
from jores.options import SampleOptions
from jores.semantics import load_segmenter
from jores.training.convert import to_pixels, to_tensor
from jores.training.darkening import Darkening
from jores.training.records import contact_sheet
from tests.benchmarks.texture import Dark, busiest, crops, enlarged, grain, pictures, sampled
from tests.sensor import sensor

STEPS, TEXTURE = SampleOptions().steps, SampleOptions().texture
MEAN, HALF, USUAL = "R' x L'", "texture 0.5", f"texture {TEXTURE:g}"
TITLES = ("input, brightened", MEAN, HALF, USUAL, "R' x L' and grain", "truth")
GREY = (1.0, 1.0, 1.0)
LIGHTS = {"a 30th": Darkening(1 / 30, 0.0008, 0.003, GREY), "a 100th": Darkening(1 / 100, 0.0008, 0.003, GREY)}
FACE_LIGHT = Darkening(1 / 50, 0.0008, 0.003, GREY)
FACE = slice(32, 208), slice(128, 304)  # rows and columns of the astronaut's portrait
WHITE = 20.0  # levels of the standard deviation that a map shows as white
EVERY, WORST = 5, 6
MOST_BYTES, QUALITY = 3_000_000, 85
CAPTION, GAP = 44, 24  # px


@dataclass(frozen=True)
class Drawer:
    """A model and what it draws."""

    nets: JoReSNets
    segmenter: Segmenter

    def __call__(self, dark: Dark, seeds: int = 1) -> tuple[Tensor, Tensor]:
        """R' x L' (1, 3, H, W), and the results of the first seeds at texture 1, (seeds, 3, H, W)."""
        mean, made = sampled(dark, self.nets, self.segmenter, [STEPS], range(seeds))
        return mean, made[STEPS]


def free_pictures() -> Iterator[Dark]:
    """The busiest part of every photograph, in every light."""
    for number, (light, darken) in enumerate(LIGHTS.items()):
        for name in ("astronaut", "chelsea", "coffee", "rocket"):
            whole = to_tensor(getattr(skimage.data, name)())
            rows, cols = busiest(whole[None])[1]
            high = whole[:, rows, cols]
            yield Dark(f"{light} of the light", name, darken(high, sensor(number))[None], high[None])


def a_face() -> Dark:
    """The face of the astronaut's portrait, 176 x 176 pixels."""
    high = to_tensor(skimage.data.astronaut()[FACE])
    return Dark("a 50th of the light", "face", FACE_LIGHT(high, sensor())[None], high[None])


def spread(drawn: Tensor) -> Tensor:
    """The standard deviation over the seeds of (seeds, 3, H, W), mean of the channels, in 8-bit levels, (H, W)."""
    return 255 * drawn.std(0).mean(0)


def seed_row(mean: Tensor, drawn: Tensor, shown: int) -> Tensor:
    """R' x L', the first results and the map of their spread side by side, (3, H, width)."""
    grey = spread(drawn).div(WHITE).expand(3, -1, -1)
    return torch.cat([mean[0], *drawn[:shown], grey], 2).clamp(0, 1)


def write_map(darks: Iterator[Dark], draw: Drawer, seeds: int, path: Path, write: Callable[[str], object]) -> None:
    rows = []
    for dark in darks:
        mean, drawn = draw(dark, seeds)
        rows.append(seed_row(mean, drawn, 1))
        error = 255 * (drawn - dark.high).square().mean().sqrt()
        figures = f"spread {spread(drawn).mean():.2f}, rms error {error:.2f} levels"
        write(f"{dark.scene}, {dark.kind}: {figures} at texture 1, {seeds} seeds\n")
    width = max(row.shape[-1] for row in rows)
    contact_sheet([F.pad(row, (0, width - row.shape[-1])) for row in rows], path)


def write_faces(draw: Drawer, seeds: int, path: Path) -> None:
    """Lines of three at 300 %: the input, R' x L', the truth, the seeds, the map."""
    dark = a_face()
    mean, drawn = draw(dark, seeds)
    grey = spread(drawn).div(WHITE).expand(1, 3, -1, -1)
    shown = torch.cat([gt_mean(dark.low, dark.high), mean, dark.high, drawn, grey]).clamp(0, 1)
    shown = torch.cat([shown, torch.ones(-len(shown) % 3, *shown.shape[1:])])
    shown = F.interpolate(shown, scale_factor=3, mode="nearest")
    titles = ["input", "R' x L'", "truth", *(f"seed {seed}" for seed in range(seeds)), "spread"]
    lines = [to_pixels(torch.cat(list(shown[i : i + 3]), 2)) for i in range(0, len(shown), 3)]
    captions = [" | ".join(titles[i : i + 3]) for i in range(0, len(shown), 3)]
    write_sheets(list(zip(captions, lines, strict=True)), path)


def columns(dark: Dark, draw: Drawer, share: float) -> dict[str, Tensor]:
    """The results of one picture as the sheet of crops shows them."""
    mean, drawn = draw(dark)
    made = {MEAN: mean, HALF: torch.lerp(mean, drawn, 0.5), USUAL: torch.lerp(mean, drawn, TEXTURE)}
    made["R' x L' and grain"] = mean + share * grain(dark.low, mean)
    return {name: picture.clamp(0, 1) for name, picture in made.items()}


def write_crops(darks: Iterator[Dark], draw: Drawer, args: argparse.Namespace, lpips: Lpips | None) -> list[Path]:
    """A row for every fifth of the pairs, or every free picture; then the worst, which are known with `lpips` only."""
    every, shown = EVERY if args.tables else 1, []
    worst: list[tuple[float, str, np.ndarray]] = []
    for i, dark in enumerate(darks):
        made = columns(dark, draw, args.grain)
        row, caption = to_pixels(crops(dark, made)), f"{dark.kind}, {dark.scene}: {' | '.join(TITLES)}"
        if i % every == 0:
            shown.append((caption, row))
        if lpips:
            distance = lpips(gt_mean(made[USUAL], dark.high), dark.high).item()
            worst.append((distance, f"among the worst, LPIPS {distance:.3f}: {caption}", row))
            worst = sorted(worst, key=lambda found: -found[0])[:WORST]
        sys.stderr.write(f"\r{i + 1} pictures")
    return write_sheets(shown + [(caption, row) for _, caption, row in worst], args.crops)


def write_sheets(rows: list[tuple[str, np.ndarray]], path: Path) -> list[Path]:
    """Writes rows (H, W, 3) below their captions into JPEGs of at most MOST_BYTES, unless one row alone is bigger."""
    files = jpegs(rows)
    paths = [path if i == 0 else path.with_stem(f"{path.stem}-{i + 1}") for i in range(len(files))]
    for file, data in zip(paths, files, strict=True):
        file.write_bytes(data)
    return paths


def jpegs(rows: list[tuple[str, np.ndarray]]) -> list[bytes]:
    heights = [CAPTION + row.shape[0] for _, row in rows]
    sheet = Image.new("RGB", (max(row.shape[1] for _, row in rows), sum(heights)), "white")
    draw, font, top = ImageDraw.Draw(sheet), ImageFont.load_default(CAPTION // 2), 0
    for (caption, row), height in zip(rows, heights, strict=True):
        draw.text((8, top + CAPTION // 5), caption, "black", font)
        sheet.paste(Image.fromarray(row), (0, top + CAPTION))
        top += height
    buffer = io.BytesIO()
    sheet.save(buffer, "JPEG", quality=QUALITY)
    if buffer.tell() <= MOST_BYTES or len(rows) == 1:
        return [buffer.getvalue()]
    half = (len(rows) + 1) // 2
    return jpegs(rows[:half]) + jpegs(rows[half:])


def busiest_scenes(darks: Iterator[Dark], count: int) -> list[int]:
    """Numbers of the pictures with the busiest crops: the best of every scene first, then the others."""
    found = sorted((-busiest(dark.high)[0], i, (dark.kind.split()[0], dark.scene)) for i, dark in enumerate(darks))
    first = {scene: i for _, i, scene in reversed(found)}  # of a set's scene
    return [i for _, i, _ in sorted(found, key=lambda entry: entry[1] != first[entry[2]])][:count]


def write_blind(
    dark_pictures: Callable[[], Iterator[Dark]], draw: Drawer, args: argparse.Namespace
) -> dict[str, dict[str, str]]:
    """The pairs into args.blind; returns the key."""
    chosen, chance = busiest_scenes(dark_pictures(), args.count), random.Random(args.seed)
    numbers = chance.sample(range(1, len(chosen) + 1), len(chosen))
    args.blind.mkdir(parents=True, exist_ok=True)
    key = {}
    for i, dark in enumerate(dark_pictures()):
        if i not in chosen:
            continue
        name = f"{numbers.pop():02d}.png"
        mean, drawn = draw(dark)
        place = busiest(dark.high)[1]
        sides = [(MEAN, mean), (f"texture {args.texture:g}", torch.lerp(mean, drawn, args.texture))]
        chance.shuffle(sides)
        left, right = (enlarged(picture.clamp(0, 1), place) for _, picture in sides)
        contact_sheet([torch.cat([left, torch.ones(3, left.shape[1], GAP), right], 2)], args.blind / name)
        key[name] = {"left": sides[0][0], "right": sides[1][0], "picture": f"{dark.kind}, {dark.scene}"}
    return dict(sorted(key.items()))


def parsed(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", type=Path, nargs="*", help="tables of pairs, of which split=val is used")
    parser.add_argument("--map", type=Path, metavar="PNG")
    parser.add_argument("--faces", type=Path, metavar="JPEG")
    parser.add_argument("--crops", type=Path, metavar="JPEG")
    parser.add_argument("--blind", type=Path, metavar="FOLDER")
    parser.add_argument("--key", type=Path, metavar="JSON", help="what --blind shows on which side")
    parser.add_argument("--texture", type=float, default=TEXTURE, help=f"of --blind (default: {TEXTURE:g})")
    parser.add_argument("--count", type=int, default=20, help="pairs of --blind (default: 20)")
    parser.add_argument("--seed", type=int, default=0, help="of the order and the sides of --blind")
    parser.add_argument("--seeds", type=int, default=8, help="of --map and --faces (default: 8)")
    parser.add_argument("--grain", type=float, default=0.15, help="share of the control in --crops (default: 0.15)")
    parser.add_argument("--lpips", type=Path, help="weights of LPIPS (default: what JORES_LPIPS names)")
    parser.add_argument("--weights", type=Path, default=SHIPPED_WEIGHTS)
    parser.add_argument("--segmenter", type=Path, default=SHIPPED_SEGMENTER)
    parser.add_argument("--half", type=int, choices=(0, 1), help="only every other scene of the pairs")
    parser.add_argument("--every", type=int, default=1, help="only every Nth of the pictures")
    parser.set_defaults(pictures=None)
    args = parser.parse_args(argv)
    if not (args.map or args.faces or args.crops or args.blind):
        parser.error("name at least one of --map, --faces, --crops and --blind")
    if args.blind and (args.key is None or args.key.resolve().is_relative_to(args.blind.resolve())):
        parser.error("--blind needs --key, a file outside its folder")
    if args.seeds < 2:
        parser.error("--seeds must be at least 2, as there is no deviation of one")
    return args


def main(argv: list[str] | None = None, write: Callable[[str], object] = sys.stdout.write) -> None:
    args = parsed(argv)
    lpips = load_lpips(args.lpips) if args.crops and args.tables else None
    draw = Drawer(load_bundle(args.weights), load_segmenter(args.segmenter))

    def darks() -> Iterator[Dark]:
        return pictures(args) if args.tables else islice(free_pictures(), 0, None, args.every)

    with torch.inference_mode():
        if args.map:
            write_map(darks(), draw, args.seeds, args.map, write)
        if args.faces:
            write_faces(draw, args.seeds, args.faces)
        if args.crops:
            for path in write_crops(darks(), draw, args, lpips):
                write(f"{path}\n")
        if args.blind:
            key = write_blind(darks, draw, args)
            args.key.write_text(json.dumps(key, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
