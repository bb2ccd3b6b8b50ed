"""After a workflow was edited and saved in the browser: renew its API copy and its thumbnail, with the shipped weights.

    .venv/bin/python -m tests.host.refresh_workflows

workflows/<name>.json is the source; workflows/api/<name>.json and workflows/<name>.jpg follow from it.
"""

from __future__ import annotations

import io
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

from .client import Client, Prompt
from .server import PACK, start_server

WORKFLOWS = PACK / "workflows"
WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}
THUMBNAIL_WIDTH = 640


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


def run_on(client: Client, prompt: Prompt, picture: Path, timeout: float = 600.0) -> dict[str, Any]:
    """Run a workflow with `picture` in its Load Image; return the history entry."""
    name = client.upload(picture)
    for node in prompt.values():
        if node["class_type"] == "LoadImage":
            node["inputs"]["image"] = name
    return client.run(prompt, timeout)


def write(path: Path, data: bytes) -> None:
    part = path.with_name(path.name + ".part")
    part.write_bytes(data)
    os.replace(part, path)


def main() -> None:
    with tempfile.TemporaryDirectory() as base, start_server(Path(base)) as server, server.connect() as client:
        info = client.object_info()
        for path in sorted(WORKFLOWS.glob("*.json")):
            prompt = to_api(json.loads(path.read_text("utf-8")), info)
            write(WORKFLOWS / "api" / path.name, (json.dumps(prompt, indent=2) + "\n").encode())
            entry = run_on(client, prompt, path.with_suffix(".input.png"))
            with Image.open(io.BytesIO(client.pictures(entry)[0])) as result:
                result.thumbnail((THUMBNAIL_WIDTH, THUMBNAIL_WIDTH))
                encoded = io.BytesIO()
                result.convert("RGB").save(encoded, "JPEG", quality=88)
            write(path.with_suffix(".jpg"), encoded.getvalue())
            sys.stdout.write(f"{path.stem}: API copy and thumbnail written\n")


if __name__ == "__main__":
    main()
