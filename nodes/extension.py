"""Registers the nodes with ComfyUI, in the order of the pipeline."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from .custom_sampling import JoReSSampler, JoReSSigmas
from .diffusion import JoReSApplyRefinement, JoReSCondition, JoReSSample
from .enhance import JoReSEnhance, JoReSFinish
from .folder import JoReSLoadFolder
from .host.border import guarded
from .host.folders import register_folders
from .loaders import JoReSLoadModel, JoReSLoadSegmenter
from .pictures import JoReSCompare, JoReSLoadExample
from .retinex import JoReSAdjust, JoReSDecompose
from .semantics import JoReSSegment

NODES: list[type[io.ComfyNode]] = [
    guarded(node)
    for node in (
        JoReSEnhance,
        JoReSLoadExample,
        JoReSLoadFolder,
        JoReSCompare,
        JoReSLoadModel,
        JoReSDecompose,
        JoReSAdjust,
        JoReSLoadSegmenter,
        JoReSSegment,
        JoReSCondition,
        JoReSApplyRefinement,
        JoReSSample,
        JoReSSampler,
        JoReSSigmas,
        JoReSFinish,
    )
]


class JoReSExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        register_folders()
        return NODES
