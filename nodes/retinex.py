"""The nodes Decompose Retinex (DNet) and Adjust Retinex Condition (ANet)."""

from __future__ import annotations

from dataclasses import replace

import comfy.model_management as mm
from comfy_api.latest import io
from torch import Tensor

from ..jores import pipeline
from ..jores.budget import decomposition_bytes, retinex_bytes
from ..jores.conditions import RetinexMaps, join_frames
from ..jores.tiling.windows import size_of
from .host.checks import expect
from .host.fingerprints import fingerprints
from .host.patchers import Adjusted, NetPatchers, each_frame, memory_advice
from .host.pictures import from_image, from_mask, shown_size, to_image, to_mask
from .host.windows import tiler_of, window_pixels
from .schema import LOW_LIGHT, Condition, Nets, Retinex, brightness_input, exposure_input, node_schema


class JoReSDecompose(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return node_schema(
            node_id="JoReSDecompose",
            display_name="Decompose Retinex",
            description="Splits a picture into reflectance R (colours without light) and illumination L (the light "
            "alone). R x L is the picture again.",
            search_aliases=["retinex", "reflectance", "illumination", "intrinsic", "light map", "DNet", "JoReS"],
            inputs=[
                Nets.Input("nets", tooltip="From 'Load JoReS Model'."),
                io.Image.Input(
                    "image",
                    tooltip="The dark picture, or a batch of them. Grey and RGBA pictures are fine.",
                ),
            ],
            outputs=[
                Retinex.Output(
                    "jores_retinex", display_name="retinex",
                    tooltip="R and L, for 'Adjust Retinex Condition'.",
                ),
                io.Image.Output(
                    "out_reflectance", display_name="reflectance",
                    tooltip="R, with all the picture's noise.",
                ),
                io.Mask.Output(
                    "out_illumination", display_name="illumination",
                    tooltip="L: where the light falls, 0..1.",
                ),
            ],
        )  # fmt: skip

    @classmethod
    def execute(cls, nets: NetPatchers, image: Tensor) -> io.NodeOutput:
        node = "Decompose Retinex"
        expect(nets, NetPatchers, node, "nets", "connect the nets of 'Load JoReS Model'")
        pixels = from_image(image, node)
        tiler = tiler_of(0, nets.config, size := size_of(pixels))
        with memory_advice("Decompose Retinex", shown_size(pixels)):
            dnet = nets.load(
                decomposition_bytes(nets.config.decomposition, window_pixels(tiler, size)), "decomposition"
            )
            frames = each_frame(
                len(pixels),
                lambda i: pipeline.decompose(dnet, pixels[i : i + 1], tiler=tiler).to(mm.intermediate_device()),
            )
        maps = replace(join_frames(frames), source=fingerprints(image))
        return io.NodeOutput(maps, to_image(maps.reflectance), to_mask(maps.illumination))


class JoReSAdjust(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return node_schema(
            node_id="JoReSAdjust",
            display_name="Adjust Retinex Condition",
            description="Cleans the reflectance, lifts the illumination, and makes the condition of the diffusion. "
            "R' x L' is already a brightened picture; the diffusion draws fine detail on it.",
            search_aliases=[*LOW_LIGHT, "relight by hand", "ANet"],
            inputs=[
                Nets.Input("nets", tooltip="From 'Load JoReS Model'."),
                Retinex.Input("retinex", tooltip="R and L from 'Decompose Retinex'."),
                exposure_input(),
                io.Float.Input(
                    "denoise", default=1.0, min=0.0, max=1.0, step=0.01,
                    tooltip="How much of the cleaning of R is used: 1 = all of it, 0 = none, R keeps its noise, and "
                    "the picture gets darker.",
                ),
                io.Mask.Input(
                    "illumination", optional=True,
                    tooltip="Light of your own instead of L', white = fully lit: paint it, or edit L' and feed it "
                    "back. It must have the picture's size. 'exposure' then only affects the features for the "
                    "diffusion.",
                ),
                brightness_input(),
            ],
            outputs=[
                Condition.Output(
                    "jores_condition", display_name="condition",
                    tooltip="For 'Condition JoReS Diffusion' and 'Apply RNet Refinement'. It carries the picture too.",
                ),
                io.Image.Output("out_reflectance", display_name="reflectance", tooltip="R': the cleaned reflectance."),
                io.Mask.Output("out_illumination", display_name="illumination", tooltip="L': the lifted light, 0..1."),
                io.Image.Output(
                    "out_preview", display_name="preview",
                    tooltip="R' x L': the brightened picture so far.",
                ),
            ],
        )  # fmt: skip

    @classmethod
    def execute(
        cls,
        nets: NetPatchers,
        retinex: RetinexMaps,
        exposure: float,
        denoise: float,
        illumination: Tensor | None = None,
        brightness: float = 0.0,
    ) -> io.NodeOutput:
        node = "Adjust Retinex Condition"
        expect(nets, NetPatchers, node, "nets", "connect the nets of 'Load JoReS Model'")
        expect(retinex, RetinexMaps, node, "retinex", "connect 'Decompose Retinex'")
        count = len(retinex.reflectance)
        light = from_mask(illumination, count, retinex.size, node, "illumination")

        def adjust(i: int):
            own = None if light is None else light[i : i + 1]
            condition = pipeline.adjust(
                anet, retinex.frame(i), exposure=exposure or None, denoise=denoise, illumination=own,
                brightness=brightness, tiler=tiler,
            )  # fmt: skip
            return condition.to(mm.intermediate_device())

        tiler = tiler_of(0, nets.config, retinex.size)

        with memory_advice(node, shown_size(retinex.reflectance)):
            anet = nets.load(retinex_bytes(nets.config, window_pixels(tiler, retinex.size)), "adjustment")
            condition = join_frames(each_frame(count, adjust))
        reflectance, lifted = to_image(condition.reflectance), to_mask(condition.illumination)
        adjusted = Adjusted(condition, retinex.picture, retinex.source, nets)
        return io.NodeOutput(adjusted, reflectance, lifted, to_image(condition.picture))
