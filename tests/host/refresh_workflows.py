"""After a workflow was edited and saved in the browser, or the weights changed: renew the API copies and the pictures.

    .venv/bin/python -m tests.host.refresh_workflows              all
    .venv/bin/python -m tests.host.refresh_workflows NAME ...     the pictures of some

A host shows the file's name as the template's title, so the graphs are called in words (`TITLES`).
workflows/<title>.json is the source; workflows/api/<name>.json and the thumbnail workflows/<title>.jpg follow from it,
and the Registry's icon and banner from the first of the results. All of them: the README's picture, too.
"""

from __future__ import annotations

import io
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import av
from PIL import Image

from .client import EXAMPLE, EXAMPLES, FOLDER, Client, Prompt, with_own
from .server import PACK, start_server

WORKFLOWS = PACK / "workflows"
WEB = PACK / "nodes" / "web"
TITLES = {
    "enhance_low_light": "1 Enhance a dark photograph",
    "exposure_bracket": "2 Three brightnesses side by side",
    "folder_of_photographs": "3 A folder of photographs",
    "only_this_region": "4 Only what you paint over",
    "video_without_flicker": "5 A video without flicker",
    "big_photograph": "6 A big photograph",
    "class_wise": "7 One class brighter than another",
    "relight_by_hand": "8 Move the light by hand",
    "compare_steps": "9 How many steps",
    "jores_five_stages": "Stages as blocks",
    "stock_ksampler_rnet": "Stages with the stock KSampler",
}
"""The graphs by the names they have here. Figures keep the order of the titles: the first is what to begin with."""

STAGES = {"jores_five_stages": ("15", "16"), "stock_ksampler_rnet": ("14",)}
"""Previews that a thumbnail shows between before and after, where the result alone looks like another template's."""

WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}
THUMBNAIL_WIDTH, THUMBNAIL_GAP = 640, 6
BANNER = "enhance_low_light"


def to_api(graph: dict[str, Any], object_info: dict[str, Any]) -> Prompt:
    """A graph as the browser saves it -> API format. Notes, which the server does not know, are left out."""
    links = {link[0]: [str(link[1]), link[2]] for link in graph["links"]}
    prompt = {}
    for node in sorted(graph["nodes"], key=lambda node: node["id"]):
        if node["type"] not in object_info:
            continue
        info = object_info[node["type"]]
        inputs = widget_values(node, info)
        inputs |= {i["name"]: links[i["link"]] for i in node["inputs"] if i.get("link") is not None}
        title = node.get("title", info["display_name"])
        prompt[str(node["id"])] = {"class_type": node["type"], "inputs": inputs, "_meta": {"title": title}}
    return prompt


def widget_values(node: dict[str, Any], info: dict[str, Any]) -> dict[str, Any]:
    """Saved widget values have no names, only the schema's order, with the seed's "control after generate" in it.

    Optional widgets that are newer than the graph have no value in it, and keep their default.
    """
    values, named = list(node.get("widgets_values", [])), {}
    for kind, names in info["input_order"].items():
        for name in names if kind != "hidden" else ():
            type_, options = (*info["input"][kind][name], {})[:2]
            if not (isinstance(type_, list) or type_ in WIDGETS) or options.get("forceInput"):
                continue
            if not values and kind == "optional":
                continue
            named[name] = values.pop(0)
            if options.get("control_after_generate"):
                values.pop(0)
    return named


def source_of(prompt: Prompt) -> Path:
    """The picture or clip in workflows/ that a graph starts from; of a folder the first."""
    (name,) = [node["inputs"].get("picture", next(iter(EXAMPLES))) for node in prompt.values()
               if node["class_type"] in (EXAMPLE, FOLDER)]  # fmt: skip
    return WORKFLOWS / EXAMPLES[name]


def run_on(client: Client, prompt: Prompt, source: Path, timeout: float = 600.0) -> dict[str, Any]:
    """Run a workflow on `source` in place of its example; return the history entry."""
    with_own(prompt, client.upload(source))
    return client.run(prompt, timeout)


def decode(encoded: bytes) -> list[Image.Image]:
    """The frames of what a workflow saved: one for a picture."""
    if encoded[4:8] != b"ftyp":
        return [Image.open(io.BytesIO(encoded))]
    with av.open(io.BytesIO(encoded)) as clip:
        return [frame.to_image() for frame in clip.decode(video=0)]


def write(path: Path, data: bytes) -> None:
    part = path.with_name(path.name + ".part")
    part.write_bytes(data)
    os.replace(part, path)


def write_jpeg(path: Path, picture: Image.Image) -> None:
    encoded = io.BytesIO()
    picture.convert("RGB").save(encoded, "JPEG", quality=88)
    write(path, encoded.getvalue())


def graph_of(name: str) -> dict[str, Any]:
    """A workflow as the browser saves it."""
    return json.loads((WORKFLOWS / f"{TITLES[name]}.json").read_text("utf-8"))


def thumbnail(panels: list[Image.Image]) -> Image.Image:
    """Before, stages if any, and after, all whole: side by side, wide ones one under the other, four in a square."""
    across = 1 if any(p.width > 2 * p.height for p in panels) else 2 if len(panels) == 4 else len(panels)
    width = (THUMBNAIL_WIDTH - THUMBNAIL_GAP * (across - 1)) // across
    scaled = [
        p.convert("RGB").resize((width, round(width * p.height / p.width)), Image.Resampling.LANCZOS) for p in panels
    ]
    rows = [scaled[i : i + across] for i in range(0, len(scaled), across)]
    heights = [max(p.height for p in row) for row in rows]
    size = (THUMBNAIL_WIDTH, sum(heights) + THUMBNAIL_GAP * (len(rows) - 1))
    sheet, top = Image.new("RGB", size, "white"), 0
    for row, height in zip(rows, heights, strict=True):
        for i, p in enumerate(row):
            sheet.paste(p, (i * (width + THUMBNAIL_GAP), top))
        top += height + THUMBNAIL_GAP
    return sheet


def middle(frames: list[Image.Image]) -> Image.Image:
    return frames[len(frames) // 2]


def halves(after: Image.Image, aspect: float, width: int) -> Image.Image:
    """The Registry's pictures: the middle of the first example at this aspect, its left half as it was."""
    with Image.open(WORKFLOWS / f"{BANNER}.input.png") as before:
        sheet = after.convert("RGB").resize(before.size)
        sheet.paste(before.convert("RGB").crop((0, 0, before.width // 2, before.height)), (0, 0))
    wide, high = min(sheet.width, round(sheet.height * aspect)), min(sheet.height, round(sheet.width / aspect))
    left, top = (sheet.width - wide) // 2, (sheet.height - high) // 2
    cut = sheet.crop((left, top, left + wide, top + high))
    return cut.resize((width, round(width / aspect)), Image.Resampling.LANCZOS)


def main(names: list[str]) -> None:
    if unknown := set(names) - set(TITLES):
        sys.exit(f"there is no workflow {', '.join(sorted(unknown))}; there are: {', '.join(TITLES)}")
    with tempfile.TemporaryDirectory() as base, start_server(Path(base)) as server, server.connect() as client:
        info, prompts, results = client.object_info(), {}, {}
        for name in TITLES:
            prompts[name] = to_api(graph_of(name), info)
            write(WORKFLOWS / "api" / f"{name}.json", (json.dumps(prompts[name], indent=2) + "\n").encode())
        for name in names or TITLES:
            source = source_of(prompts[name])
            entry = client.run(prompts[name], 600.0)
            pictures = [middle(decode(data)) for data in client.pictures(entry)]
            results[name] = pictures[0]
            stages = [decode(client.pictures(entry, node, "temp")[0])[0] for node in STAGES.get(name, ())]
            panels = [middle(decode(source.read_bytes())), *stages, *pictures]
            write_jpeg(WORKFLOWS / f"{TITLES[name]}.jpg", thumbnail(panels))
            sys.stdout.write(f"{name}: API copy and thumbnail written\n")
            sys.stdout.flush()
    if BANNER in results:
        write_jpeg(WEB / "icon.jpg", halves(results[BANNER], 1, 400))
        write_jpeg(WEB / "banner.jpg", halves(results[BANNER], 21 / 9, 1260))
    if not names:
        from . import readme_picture  # which takes its paths from here

        readme_picture.main()


if __name__ == "__main__":
    main(sys.argv[1:])
