"""The pictures of the help pages, made by the nodes themselves in a real ComfyUI, from the workflows' dark pictures.

    .venv/bin/python -m tests.host.help_pictures

Each nodes/web/docs/<node id>.jpg shows what that node is given and what it makes of it.
"""

from __future__ import annotations

import io
import os
import sys
import tempfile
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from .client import Prompt
from .refresh_workflows import WORKFLOWS
from .server import PACK, start_server

DOCS = PACK / "nodes" / "web" / "docs"
WIDTH, GAP, BAR = 300, 6, 24
FACE = (150, 20, 310, 180)  # of the astronaut, where single pixels are to be seen

STRIPS: dict[str, list[tuple[str, str, tuple[int, int, int, int] | None]]] = {
    "JoReSEnhance": [("cup", "dark picture", None), ("enhanced", "enhanced", None)],
    "JoReSLoadExample": [("enhanced", "coffee", None), ("result", "portrait", None)],
    "JoReSLoadFolder": [("cup", "coffee", None), ("enhanced", "coffee, enhanced", None), ("dark", "portrait", None),
                        ("result", "portrait, enhanced", None)],
    "JoReSCompare": [("split", "split", None)],
    "JoReSLoadModel": [("dark", "picture", None), ("R", "R (DNet)", None), ("R2", "R' (ANet)", None),
                       ("result", "UNet and RNet", None)],
    "JoReSDecompose": [("dark", "picture", None), ("R", "reflectance", None), ("L", "illumination", None)],
    "JoReSAdjust": [("R2", "reflectance R'", None), ("L2", "illumination L'", None), ("preview", "preview", None),
                    ("preview_dim", "preview, exposure 0.2", None)],
    "JoReSLoadSegmenter": [("dark", "dark picture", None), ("map", "wall, person, floor", None)],
    "JoReSSegment": [("dark", "picture", None), ("map", "class map", None), ("soft", "class mask: person", None),
                     ("person", "threshold 0.2", None)],
    "JoReSCondition": [("dark", "picture", None), ("R2", "R'", None), ("L2", "L'", None), ("map", "semantic", None)],
    "JoReSApplyRefinement": [("plain", "without RNet", FACE), ("result", "with RNet", FACE)],
    "JoReSSample": [("dark", "picture", None), ("preview", "condition", None), ("result", "sampled", None)],
    "JoReSSampler": [("custom", "eta 0", FACE), ("custom_eta", "eta 1", FACE)],
    "JoReSSigmas": [("steps1", "1 step", FACE), ("steps2", "2 steps", FACE), ("custom", "4 steps", FACE)],
    "JoReSFinish": [("dark", "original", None), ("right", "mask", None), ("masked", "mask, feather 80", None),
                    ("half", "strength 0.5", None)],
}  # fmt: skip
"""Node id -> (picture of the graph below, caption, part of it)."""


class Graph:
    """A prompt that grows: every picture asked for gets a preview under its name."""

    def __init__(self) -> None:
        self.prompt: Prompt = {}

    def add(self, class_type: str, **inputs: object) -> list[list[str | int]]:
        """Adds a node; returns links to its first outputs."""
        key = str(len(self.prompt) + 1)
        self.prompt[key] = {"class_type": class_type, "inputs": inputs}
        return [[key, i] for i in range(4)]

    def show(self, name: str, picture: object, mask: bool = False) -> None:
        images = self.add("MaskToImage", mask=picture)[0] if mask else picture
        self.prompt[f"show {name}"] = {"class_type": "PreviewImage", "inputs": {"images": images}}


def build(dark_file: str, cup_file: str) -> Prompt:
    """All nodes of the pack in one graph."""
    graph = Graph()
    dark, cup = graph.add("LoadImage", image=dark_file)[0], graph.add("LoadImage", image=cup_file)[0]
    model, nets, vae, _ = graph.add("JoReSLoadModel", model_name="jores-compact.safetensors (shipped)")
    segmenter = graph.add("JoReSLoadSegmenter", segmenter_name="deeplab-ade20k (shipped)")[0]
    graph.show("dark", dark)
    graph.show("cup", cup)
    enhanced = graph.add(
        "JoReSEnhance", image=cup, exposure=0.0, strength=1.0, steps=4, seed=0, semantic=True,
        model_name="jores-compact.safetensors (shipped)",
    )  # fmt: skip
    graph.show("enhanced", enhanced[0])
    split = graph.add("JoReSCompare", before=cup, after=enhanced[0], mode="split", position=0.5)[0]
    graph.show("split", split)
    retinex, reflectance, illumination, _ = graph.add("JoReSDecompose", nets=nets, image=dark)
    condition, cleaned, lifted, preview = graph.add(
        "JoReSAdjust", nets=nets, retinex=retinex, exposure=0.0, denoise=1.0
    )
    dim = graph.add("JoReSAdjust", nets=nets, retinex=retinex, exposure=0.2, denoise=1.0)[3]
    seen = {"segmenter": segmenter, "image": dark, "class_name": "person", "condition": condition}
    semantic, class_map, soft, _ = graph.add("JoReSSegment", **seen)
    person = graph.add("JoReSSegment", **seen, threshold=0.2)[2]
    for name, picture in {"R": reflectance, "R2": cleaned, "preview": preview, "preview_dim": dim}.items():
        graph.show(name, picture)
    graph.show("map", class_map)
    for name, mask in {"L": illumination, "L2": lifted, "soft": soft, "person": person}.items():
        graph.show(name, mask, mask=True)
    positive, _negative, latent, _ = graph.add("JoReSCondition", condition=condition, semantic=semantic)
    refined = graph.add(
        "JoReSApplyRefinement", model=model, nets=nets, condition=condition, start_percent=0.0, end_percent=1.0
    )[0]
    sampled = {
        name: graph.add("JoReSSample", model=m, positive=positive, latent=latent, steps=4, seed=0, eta=0.0)[0]
        for name, m in {"plain": model, "result": refined}.items()
    }
    for name, samples in sampled.items():
        graph.show(name, graph.add("JoReSFinish", latent=samples, image=dark, strength=1.0)[0])
    graph.show("half", graph.add("JoReSFinish", latent=sampled["result"], image=dark, strength=0.5)[0])
    half, black = (graph.add("SolidMask", value=float(v), width=512 >> v, height=512)[0] for v in (1, 0))
    right = graph.add("MaskComposite", destination=black, source=half, x=256, y=0, operation="add")[0]
    graph.show("right", right, mask=True)
    masked = graph.add("JoReSFinish", latent=sampled["result"], image=dark, strength=1.0, mask=right, feather=80)[0]
    graph.show("masked", masked)
    guider = graph.add("BasicGuider", model=refined, conditioning=positive)[0]
    noise = graph.add("RandomNoise", noise_seed=0)[0]
    for name, steps, eta in (("custom", 4, 0.0), ("custom_eta", 4, 1.0), ("steps1", 1, 0.0), ("steps2", 2, 0.0)):
        custom = graph.add(
            "SamplerCustomAdvanced", noise=noise, guider=guider, sampler=graph.add("JoReSSampler", eta=eta)[0],
            sigmas=graph.add("JoReSSigmas", model=refined, steps=steps)[0], latent_image=latent,
        )  # fmt: skip
        graph.show(name, graph.add("VAEDecode", samples=custom[0], vae=vae)[0])
    return graph.prompt


def strip(pictures: list[tuple[str, Image.Image]]) -> Image.Image:
    """Pictures in rows of two, which the narrow help panel shows large enough, with captions under them."""
    across = min(2, len(pictures))
    width = (2 * WIDTH + GAP) // across - GAP * (across == 2) // 2
    scaled = [(text, p.resize((width, round(p.height * width / p.width)), Image.Resampling.LANCZOS))
              for text, p in pictures]  # fmt: skip
    rows = [scaled[i : i + across] for i in range(0, len(scaled), across)]
    heights = [max(p.height for _text, p in row) + BAR for row in rows]
    sheet = Image.new("RGB", (across * width + GAP * (across - 1), sum(heights)), "white")
    draw, y = ImageDraw.Draw(sheet), 0
    for row, height in zip(rows, heights, strict=True):
        for i, (text, p) in enumerate(row):
            sheet.paste(p, (i * (width + GAP), y))
            draw.text((i * (width + GAP) + 2, y + p.height + 4), text, fill="black", font=ImageFont.load_default(15))
        y += height
    return sheet


def main() -> None:
    inputs = [WORKFLOWS / f"{name}.input.png" for name in ("jores_five_stages", "enhance_low_light")]
    wanted = {name for row in STRIPS.values() for name, _text, _part in row}
    with tempfile.TemporaryDirectory() as base, start_server(Path(base)) as server, server.connect() as client:
        entry = client.run(build(*map(client.upload, inputs)), timeout=900)
        made = {name: client.pictures(entry, f"show {name}", "temp")[0] for name in wanted}
    DOCS.mkdir(parents=True, exist_ok=True)
    for node_id, row in STRIPS.items():
        opened = []
        for name, text, part in row:
            picture = Image.open(io.BytesIO(made[name])).convert("RGB")
            opened.append((text, picture.crop(part or (0, 0, *picture.size))))
        path = DOCS / f"{node_id}.jpg"
        partial = path.with_name(path.name + ".part")
        strip(opened).save(partial, "JPEG", quality=85)
        os.replace(partial, path)
        sys.stdout.write(f"{path.relative_to(PACK)}: {path.stat().st_size} bytes\n")


if __name__ == "__main__":
    main()
