"""How much clips flicker: frames by themselves against frames smoothed over time.

    python -m tests.benchmarks.flicker [--size 192x128] [--frames 12] [--shift 3] [--plot FILE.png]

Clips with a known truth, all made of the photograph behind workflows/jores_five_stages.input.png, darkened by
`jores.training.darkening.Darkening` with fresh sensor noise in every frame: "static", and "pan", which moves by --shift
columns per frame; "slow pan" moves by a quarter of a pixel per frame, "zoom" by 1 percent, "tilt" by half a degree, and
"hand" shakes by about a pixel; "crossing" adds a patch of another picture that crosses the static scene; under "lamp"
its light wavers by up to 15 percent from frame to frame.

mean luma: standard deviation over time of the frames' mean luma, relative to the truth's, in percent. blocks: standard
deviation over time of 8x8 blocks in 1/255, averaged over them; what the eye sees as boiling. warp: PSNR in dB between
consecutive frames after the known shift. PSNR raw and GT-mean: against the photograph. ghost: PSNR GT-mean where the
patch is, or was in the frame before.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from skimage.data import astronaut
from torch import Tensor
from torch.nn import functional as F

from jores.checkpoint import SHIPPED_SEGMENTER, SHIPPED_WEIGHTS, load_bundle
from jores.imaging.exposure import luma, mean_luma
from jores.metrics import gt_mean, psnr
from jores.semantics import load_segmenter
from jores.training.convert import to_pixels, to_tensor
from jores.video import enhance_frames
from tests.flat import flat
from tests.sensor import SENSOR, SENSOR_SEED


@dataclass
class Clip:
    """Frames (T, 3, H, W): the truth and what a sensor made of it; `shift` columns per frame, None: other motion."""

    truth: Tensor
    dark: Tensor
    shift: int | None = 0
    changed: Tensor | None = None  # (T, 1, H, W), where something moved within the scene


def filmed(size: tuple[int, int], zoom: float = 1, angle: float = 0, right: float = 0, down: float = 0) -> Tensor:
    """The photograph (1, 3, H, W) through a camera: zoomed, turned by degrees, moved by pixels of the result."""
    height, width = size
    cos, sin = (
        f(math.radians(angle)) * 0.8 / zoom / max(size) for f in (math.cos, math.sin)
    )  # 0.8: corners stay in it
    theta = torch.tensor(
        [
            [cos * width, -sin * height, 2 * (cos * right - sin * down)],
            [sin * width, cos * height, 2 * (sin * right + cos * down)],
        ]
    )
    grid = F.affine_grid(theta[None], [1, 3, 4 * height, 4 * width], align_corners=False)
    return F.avg_pool2d(F.grid_sample(to_tensor(astronaut())[None], grid, align_corners=False), 4)


def camera_clips(size: tuple[int, int], count: int) -> dict[str, Tensor]:
    """Frames (T, 3, H, W) of a camera that moves by other things than whole pixels."""
    shake = torch.randn(3, count, generator=torch.Generator().manual_seed(1)).cumsum(1) * 0.7
    motions = {
        "slow pan": [{"right": 0.25 * i} for i in range(count)],
        "zoom": [{"zoom": 1.01**i} for i in range(count)],
        "tilt": [{"angle": 0.5 * i} for i in range(count)],
        "hand": [{"right": float(x), "down": float(y), "angle": float(a) / 4} for x, y, a in shake.T],
    }
    return {name: torch.cat([filmed(size, **at) for at in path]) for name, path in motions.items()}


def make_clips(size: tuple[int, int], count: int, shift: int, seed: int = SENSOR_SEED) -> dict[str, Clip]:
    """`size` is (H, W) of the frames."""
    photo = to_tensor(astronaut())[None]
    height, width = size
    # As if taken from afar: all of the photograph's height is in the frame, so that there are details to lose.
    scale = max(height / photo.shape[2], (width + shift * count) / photo.shape[3])
    scene = F.interpolate(photo, scale_factor=scale, mode="area") if scale < 1 else photo
    still = scene[..., :height, :width].expand(count, -1, -1, -1)
    pan = torch.cat([scene[..., :height, shift * i : shift * i + width] for i in range(count)])
    side = height // 4
    patch = F.interpolate(photo.flip(3)[..., :200, 150:350], size=(side, side), mode="area")
    crossing, inside = still.clone(), torch.zeros(count, 1, height, width)
    for i in range(count):
        box = slice(side, 2 * side), slice(i * (width - side) // count, i * (width - side) // count + side)
        crossing[i, :, box[0], box[1]] = patch[0]
        inside[i, :, box[0], box[1]] = 1
    changed = torch.maximum(inside, torch.cat([inside[:1], inside[:-1]]))
    generator = torch.Generator().manual_seed(seed)
    dark = lambda clip: torch.stack([SENSOR(frame, generator) for frame in clip])  # noqa: E731
    waver = 1 + 0.3 * (torch.rand(count, 1, 1, 1, generator=generator) - 0.5)
    return {
        "static": Clip(still, dark(still)),
        "pan": Clip(pan, dark(pan), shift),
        "crossing": Clip(crossing, dark(crossing), changed=changed),
        "lamp": Clip(still, (dark(still) * waver).clamp(0, 1)),
        **{name: Clip(truth, dark(truth), None) for name, truth in camera_clips(size, count).items()},
    }


def measure(result: Tensor, clip: Clip) -> dict[str, float]:
    grey, s = luma(result), clip.shift or 0
    before, after = result[:-1, ..., s:], result[1:, ..., : result.shape[-1] - s]
    figures = {
        "mean luma": 100 * float((mean_luma(result) / mean_luma(clip.truth)).log().std()),
        "blocks": 255 * float(F.avg_pool2d(grey, 8).std(0).mean())
        if clip.shift == 0 and clip.changed is None
        else float("nan"),
        "warp": float(psnr(before, after).mean()) if clip.shift is not None else float("nan"),
        "PSNR raw": float(psnr(result, clip.truth).mean()),
        "PSNR GT-mean": float(psnr(gt_mean(result, clip.truth), clip.truth).mean()),
        "ghost": float("nan"),
    }
    if clip.changed is not None:
        error = ((gt_mean(result, clip.truth) - clip.truth).square() * clip.changed).sum() / (3 * clip.changed.sum())
        figures["ghost"] = float(-10 * error.log10())
    return figures


def run(clips: dict[str, Clip], **options: object) -> dict[tuple[str, str], Tensor]:
    """Results (T, 3, H, W) of every clip under both names, "independent" and "smooth"."""
    nets, segmenter = load_bundle(SHIPPED_WEIGHTS), load_segmenter(SHIPPED_SEGMENTER)
    return {
        (name, kind): torch.cat(
            list(flat(enhance_frames)(clip.dark.split(1), nets, segmenter, smooth=smooth, **options))
        )
        for name, clip in clips.items()
        for kind, smooth in (("independent", False), ("smooth", True))
    }


def strip(rows: list[Tensor], frames: list[int]) -> Image.Image:
    """One row of frames for each clip."""
    lines = [torch.cat([row[i] for i in frames], 2) for row in rows]
    return Image.fromarray(to_pixels(torch.cat(lines, 1)))


def main(argv: list[str] | None = None, write: Callable[[str], object] = sys.stdout.write) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="192x128")
    parser.add_argument("--frames", type=int, default=12)
    parser.add_argument("--shift", type=int, default=3, help="columns per frame of the pan")
    parser.add_argument("--clips", nargs="*", help="only these")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--seed", type=int, default=SENSOR_SEED, help="of the sensor noise")
    parser.add_argument("--plot", type=Path, metavar="PNG", help="the clips' frames: dark, independent, smooth, truth")
    args = parser.parse_args(argv)
    width, height = (int(n) for n in args.size.split("x"))
    clips = make_clips((height, width), args.frames, args.shift, args.seed)
    clips = {name: clip for name, clip in clips.items() if args.clips is None or name in args.clips}
    results = run(clips, steps=args.steps)
    rows = {key: measure(result, clips[key[0]]) for key, result in results.items()}
    names = list(next(iter(rows.values())))
    write(f"| clip | frames | {' | '.join(names)} |\n|---|---|{'---|' * len(names)}\n")
    for (clip, kind), figures in rows.items():
        shown = ["" if value != value else f"{value:.3f}" for value in figures.values()]
        write(f"| {clip} | {kind} | {' | '.join(shown)} |\n")
    if args.plot:
        chosen = [0, 1, args.frames // 2, args.frames - 1]
        lines = [t for name, clip in clips.items() for t in
                 (clip.dark * 5, results[name, "independent"], results[name, "smooth"], clip.truth)]  # fmt: skip
        strip(lines, chosen).save(args.plot)


if __name__ == "__main__":
    main()
