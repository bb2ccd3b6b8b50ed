"""Make the workflows' input pictures anew, from scikit-image's free photographs: workflows/README.md says which.

.venv/bin/python -m tests.host.gallery_inputs
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from dataclasses import replace

import av
import numpy as np
import skimage.data
import torch
from PIL import Image, ImageDraw, ImageFilter

from jores.training.convert import to_pixels, to_tensor
from tests.sensor import SENSOR

from .refresh_workflows import WORKFLOWS, write

CLIP_FRAMES, CLIP_SIZE, CLIP_RATE = 16, (240, 160), 8


def darkened(picture: np.ndarray, gain: float, seed: int) -> np.ndarray:
    """(H, W, 3) uint8 -> the same as a short exposure shows it."""
    dark = replace(SENSOR, gain=gain)(to_tensor(picture), torch.Generator().manual_seed(seed))
    return to_pixels(dark)


def painted(picture: np.ndarray) -> Image.Image:
    """With an ellipse painted in the host's mask editor, which keeps a mask as what the alpha channel leaves out."""
    whole = Image.fromarray(picture).resize((480, 320), Image.Resampling.LANCZOS)
    alpha = Image.new("L", whole.size, 255)
    ImageDraw.Draw(alpha).ellipse((140, 20, 400, 290), fill=0)
    whole.putalpha(alpha.filter(ImageFilter.GaussianBlur(1)))
    return whole


def clip_frames(picture: np.ndarray) -> Iterator[np.ndarray]:
    """A slow pan; every frame has noise of its own."""
    small = Image.fromarray(picture).resize((300, 200), Image.Resampling.LANCZOS)
    for i in range(CLIP_FRAMES):
        x, y = 3 * i + 4, 20 + round(8 * np.sin(i / 4))
        yield darkened(np.asarray(small.crop((x, y, x + CLIP_SIZE[0], y + CLIP_SIZE[1]))), 1 / 16, i)


def encoded_clip(frames: Iterator[np.ndarray]) -> bytes:
    data = io.BytesIO()
    with av.open(data, "w", format="mp4") as container:
        options = {"crf": "16", "preset": "slow", "threads": "1"}
        stream = container.add_stream("libx264", rate=CLIP_RATE, options=options)
        stream.width, stream.height, stream.pix_fmt = *CLIP_SIZE, "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
        container.mux(stream.encode())
    return data.getvalue()


def encoded(picture: Image.Image) -> bytes:
    data = io.BytesIO()
    picture.save(data, "PNG", optimize=True)
    return data.getvalue()


def main() -> None:
    coffee, astronaut = skimage.data.coffee(), skimage.data.astronaut()
    files = {
        "enhance_low_light.input.png": encoded(Image.fromarray(darkened(coffee, 1 / 50, 1))),
        "jores_five_stages.input.png": encoded(Image.fromarray(darkened(astronaut, 1 / 50, 1))),
        "only_this_region.input.png": encoded(painted(darkened(coffee, 1 / 50, 1))),
        "video_without_flicker.input.mp4": encoded_clip(clip_frames(coffee)),
    }
    for name, data in files.items():
        write(WORKFLOWS / name, data)
        sys.stdout.write(f"{name}: {len(data)} bytes\n")


if __name__ == "__main__":
    main()
