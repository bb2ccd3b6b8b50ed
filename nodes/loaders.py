"""The nodes Load JoReS Model and Load Semantic Segmenter."""

from __future__ import annotations

from comfy_api.latest import io

from ..jores.limits import PRECISIONS
from ..jores.semantics import load_segmenter
from .host.folders import (
    SHIPPED_BUNDLE_NAME,
    SHIPPED_SEGMENTER_NAME,
    bundle_names,
    bundle_path,
    file_stamp,
    segmenter_names,
    segmenter_path,
)
from .host.latents import pixel_vae
from .host.model import load_native
from .host.patchers import load_patchers, manage
from .schema import Nets, Segmenter, node_schema, precision_input


class JoReSLoadModel(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return node_schema(
            node_id="JoReSLoadModel",
            display_name="Load JoReS Model",
            description="Loads a JoReS-Diff bundle. One small model is shipped with the nodes and needs no download.",
            search_aliases=["JoReS", "low light model", "load low light", "retinex model"],
            inputs=[
                io.Combo.Input(
                    "model_name", options=bundle_names(), default=SHIPPED_BUNDLE_NAME,
                    tooltip="The shipped model, or a bundle (.safetensors) that you put into models/jores.",
                ),
                precision_input(),
            ],
            outputs=[
                io.Model.Output(
                    "diffusion_model", display_name="model",
                    tooltip="The diffusion UNet, for 'Sample JoReS Diffusion' or any stock sampler (cfg 1; scheduler "
                    "'simple').",
                ),
                Nets.Output(
                    "jores_nets", display_name="nets",
                    tooltip="DNet, ANet and RNet, for the Retinex stages and the refinement.",
                ),
                io.Vae.Output(
                    "pixel_vae", display_name="vae",
                    tooltip="The pixel-space VAE that fits this model's latents. 'Finish Enhancement' decodes more "
                    "exactly.",
                ),
            ],
        )  # fmt: skip

    @classmethod
    def execute(cls, model_name: str, precision: str = PRECISIONS[0]) -> io.NodeOutput:
        path = bundle_path(model_name)
        nets = load_patchers(path, "decomposition", "adjustment", "refinement", precision=precision)
        return io.NodeOutput(load_native(path, precision), nets, pixel_vae())

    @classmethod
    def fingerprint_inputs(cls, model_name: str | None, **_kwargs) -> str:
        return file_stamp(bundle_path(model_name) if model_name else None)


class JoReSLoadSegmenter(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return node_schema(
            node_id="JoReSLoadSegmenter",
            display_name="Load Semantic Segmenter",
            description="Loads a segmentation model for the semantic prior: the shipped one, or any ADE20K model "
            "(SegFormer, UPerNet, ...) as a Hugging Face folder.",
            search_aliases=["segmentation", "SegFormer", "UPerNet", "ADE20K", "JoReS"],
            inputs=[
                io.Combo.Input(
                    "segmenter_name", options=segmenter_names(), default=SHIPPED_SEGMENTER_NAME,
                    tooltip="The shipped segmenter, or a folder with config.json and model.safetensors that you put "
                    "into models/jores_segmenters. Nothing is ever downloaded.",
                ),
            ],
            outputs=[
                Segmenter.Output(
                    "jores_segmenter", display_name="segmenter", tooltip="For 'Segment Semantic Prior'."
                ),
            ],
        )  # fmt: skip

    @classmethod
    def execute(cls, segmenter_name: str) -> io.NodeOutput:
        return io.NodeOutput(manage(load_segmenter(segmenter_path(segmenter_name))))

    @classmethod
    def fingerprint_inputs(cls, segmenter_name: str | None) -> str:
        return file_stamp(segmenter_path(segmenter_name) if segmenter_name else None)
