"""ComfyUI's door to the pack. Everything heavy is imported behind it, when the host asks for the nodes."""

from __future__ import annotations

WEB_DIRECTORY = "nodes/web"
"""Holds docs/<node id>.md, the help pages, and jores.js, the script that the browser loads with ComfyUI's own."""


async def comfy_entrypoint():
    from .nodes.extension import JoReSExtension

    return JoReSExtension()
