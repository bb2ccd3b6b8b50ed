"""ComfyUI's door to the pack. Everything heavy is imported behind it, when the host asks for the nodes."""

from __future__ import annotations


async def comfy_entrypoint():
    from .nodes.extension import JoReSExtension

    return JoReSExtension()
