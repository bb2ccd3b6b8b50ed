"""The nodes Finish Enhancement (compositing) and Enhance Low Light (the complete pipeline)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import comfy.model_management as mm
import torch
from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io
from torch import Tensor

from ..jores import pipeline
from ..jores.budget import enhance_bytes
from ..jores.checkpoint import PARTS, JoReSNets
from ..jores.conditions import Keeper
from ..jores.imaging.resize import reduced_size
from ..jores.limits import PRECISIONS
from ..jores.options import ClipOptions, FinishOptions, SampleOptions, at_quality
from ..jores.tiling.windows import size_of
from ..jores.video import HELD_BYTES, enhance_frames
from .host.cards import exposure_card, text_card
from .host.checks import check_sampled, latent_samples
from .host.fingerprints import other_original
from .host.folders import (
    SHIPPED_BUNDLE_NAME,
    SHIPPED_SEGMENTER_NAME,
    bundle_names,
    bundle_path,
    file_stamp,
    segmenter_path,
)
from .host.kept import keep_while_loaded, kept_nets, kept_segmenter
from .host.patchers import NetPatchers, memory_advice
from .host.pictures import empty_image, from_image, from_mask, shown_size, to_image
from .host.progress import StepProgress
from .host.windows import tiler_of, window_pixels
from .schema import (
    ADVANCED,
    EVERYDAY,
    LOW_LIGHT,
    SHOWS_FROM_CACHE,
    brightness_input,
    control_inputs,
    exposure_input,
    mask_input,
    node_schema,
    precision_input,
    quality_input,
    seed_input,
    steps_input,
    strength_input,
    texture_input,
    tile_input,
)

log = logging.getLogger(__name__)


class JoReSFinish(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return node_schema(
            node_id="JoReSFinish",
            display_name="Finish Enhancement",
            description="Decodes in full precision, puts the alpha channel back, mixes with the original, keeps what "
            "the mask leaves out untouched.",
            search_aliases=["decode", "blend", "mask", *LOW_LIGHT],
            inputs=[
                io.Latent.Input(
                    "latent",
                    tooltip="From 'Sample JoReS Diffusion' or a stock sampler on the JoReS model.",
                ),
                io.Image.Input("image", tooltip="The original picture, with its alpha channel if it has one."),
                strength_input(),
                mask_input(),
                *control_inputs(),
            ],
            outputs=[
                io.Image.Output("out_image", display_name="image", tooltip="The enhanced picture, at its own size.")
            ],
        )  # fmt: skip

    @classmethod
    def execute(
        cls,
        latent: dict,
        image: Tensor,
        strength: float,
        mask: Tensor | None = None,
        feather: int = 0,
        shadows: float = 0.0,
        colour_fidelity: float = 0.0,
    ) -> io.NodeOutput:
        node = "Finish Enhancement"
        original, x0 = from_image(image, node), latent_samples(latent, node, "Sample JoReS Diffusion")
        if x0.shape[-2:] != original.shape[-2:] or len(original) not in (1, len(x0)):
            raise ValueError(
                f"{node}: latent holds {len(x0)} picture(s) of {shown_size(x0)}, image {len(original)} of "
                f"{shown_size(original)}: connect the picture that was enhanced"
            )
        message = other_original(latent, original)
        original = original.expand(len(x0), -1, -1, -1)
        weight = from_mask(mask, len(x0), size_of(x0), node)
        check_sampled(x0, node)
        result, progress = empty_image(len(x0), original), StepProgress(len(x0))
        finishing = FinishOptions(strength, feather, shadows, colour_fidelity)
        for i, (one, low) in enumerate(zip(x0.split(1), original.split(1), strict=True)):
            own = None if weight is None else weight[i : i + 1]
            result[i : i + 1] = to_image(pipeline.finish(one, low, finishing, mask=own))
            progress()
        if message is None:
            return io.NodeOutput(result)
        log.warning("%s: %s", node, message)
        return io.NodeOutput(result, ui=text_card(message))


class JoReSEnhance(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return node_schema(
            node_id="JoReSEnhance",
            display_name="Enhance Low Light",
            description="Turns dark pictures or the frames of a dark video into well-lit, clean ones: Retinex "
            "decomposition, semantic prior, diffusion and refinement (JoReS-Diff) in one block. Needs no download.",
            search_aliases=EVERYDAY,
            essentials_category="Image Tools",
            **SHOWS_FROM_CACHE,
            inputs=[
                io.Image.Input(
                    "image", tooltip="Dark pictures of any size; a batch (video) is worked on frame by frame. Alpha "
                    "is kept."
                ),
                exposure_input(),
                strength_input(),
                steps_input(**ADVANCED),
                seed_input(),
                io.Boolean.Input(
                    "semantic", default=True,
                    tooltip="Use the shipped segmenter, which tells the diffusion what is where. Off: a little faster.",
                    **ADVANCED,
                ),
                io.Combo.Input(
                    "model_name", options=bundle_names(), default=SHIPPED_BUNDLE_NAME,
                    tooltip="The shipped model, or a bundle (.safetensors) that you put into models/jores.", **ADVANCED,
                ),
                mask_input(),
                *control_inputs(),
                tile_input(),
                io.Int.Input(
                    "working_size", default=0, min=0, max=16384, step=16, optional=True,
                    tooltip="The longer side in pixels at which a big picture is worked on, for speed: the result is "
                    "then enlarged along the picture's own detail, and less is cleaned. 0 = full size.",
                    **ADVANCED,
                ),
                io.Boolean.Input(
                    "smooth_frames", default=True, optional=True,
                    label_on="one film: averaged", label_off="single photographs",
                    tooltip="For the frames of a video: keeps light, colours and noise from flickering, scene by "
                    "scene. Turn it off for photographs: those of one scene, as in a burst, would be averaged. Off: "
                    "every frame by itself.",
                    **ADVANCED,
                ),
                brightness_input(),
                quality_input(),
                texture_input(),
                precision_input(),
            ],
            outputs=[
                io.Image.Output(
                    "out_image", display_name="image",
                    tooltip="The enhanced pictures, sizes and alpha as before.",
                ),
                io.Float.Output(
                    "out_exposure", display_name="exposure",
                    tooltip="The exposure that was chosen, 0 to 1: the mean over a batch. It fits into 'exposure'.",
                ),
            ],
        )  # fmt: skip

    @classmethod
    def execute(
        cls,
        image: Tensor,
        exposure: float,
        strength: float,
        steps: int,
        seed: int,
        semantic: bool,
        model_name: str,
        mask: Tensor | None = None,
        feather: int = 0,
        shadows: float = 0.0,
        colour_fidelity: float = 0.0,
        tile: int = 0,
        working_size: int = 0,
        smooth_frames: bool = True,
        brightness: float = 0.0,
        quality: str = "standard",
        texture: float = SampleOptions.texture,
        precision: str = PRECISIONS[0],
    ) -> io.NodeOutput:
        node = "Enhance Low Light"
        options = at_quality(
            SampleOptions(steps, seed, exposure or None, brightness, working_size=working_size, texture=texture),
            quality,
        )
        pixels = from_image(image, node)
        weight = from_mask(mask, len(pixels), size_of(pixels), node)
        nets = kept_nets(bundle_path(model_name), precision)
        segmenter = kept_segmenter(segmenter_path(SHIPPED_SEGMENTER_NAME)) if semantic and options.steps else None
        size = reduced_size(size_of(pixels), options.working_size)
        progress, tiler = StepProgress(len(pixels) * max(1, options.steps)), tiler_of(tile, nets.config, size)
        result, exposures = empty_image(len(pixels), pixels), []
        with memory_advice(node, shown_size(pixels)):
            there = tiler.covers(size) and size == size_of(pixels)  # full frames fit on the device
            held = HELD_BYTES * pixels[0, 0].numel() if there and smooth_frames and len(pixels) > 1 else 0
            needed = enhance_bytes(nets.config, window_pixels(tiler, size)) + held
            loaded = _loaded(nets, segmenter, needed)
            keepers = _keepers(nets, image, semantic, needed, exposures.append)
            enhanced = enhance_frames(
                pixels.split(1),
                loaded,
                segmenter.model if segmenter else None,
                options,
                FinishOptions(strength, feather, shadows, colour_fidelity),
                ClipOptions(smooth_frames, mm.get_torch_device() if there else None, keepers=keepers, tiler=tiler),
                masks=None if weight is None else weight.split(1),
                callback=progress,
            )
            for i, frame in enumerate(enhanced):
                result[i : i + 1] = to_image(frame)
        chosen = torch.cat([e.cpu() for e in exposures]).mean().item()
        text = exposure_text(chosen, exposure, brightness, len(pixels) if smooth_frames else 1)
        if not image[..., :3].any():
            text = "nothing to light: all of it is black"
        return io.NodeOutput(result, chosen, ui=exposure_card(image, result, text))

    @classmethod
    def fingerprint_inputs(cls, model_name: str | None, **_kwargs) -> str:
        return file_stamp(bundle_path(model_name) if model_name else None)


def _loaded(nets: NetPatchers, segmenter: ModelPatcher | None, needed: int) -> JoReSNets:
    """All nets on the device, with `needed` bytes of room; all are kept while they are loaded."""
    loaded = nets.load(needed, *PARTS, beside=(segmenter,) if segmenter else ())
    keep_while_loaded(nets, *nets.parts.values())
    if segmenter:
        keep_while_loaded(segmenter, segmenter)
    return loaded


def _keepers(
    nets: NetPatchers, image: Tensor, semantic: bool, needed: int, on_exposure: Callable[[Tensor], None]
) -> Iterator[Keeper]:
    """A keeper for each picture; `needed`: bytes on the device for one; `on_exposure` gets the exposures."""
    stamp = file_stamp(segmenter_path(SHIPPED_SEGMENTER_NAME)) if semantic else ""
    room = needed if mm.is_device_cpu(mm.get_torch_device()) else 0
    return (nets.results.of(image[i : i + 1], stamp, needed=room, on_exposure=on_exposure) for i in range(len(image)))


def exposure_text(chosen: float, asked: float, brightness: float, frames: int) -> str:
    """Text under the node: the exposure and its source, and whether the batch was enhanced as one clip."""
    source = "as set" if asked else "proposed"
    stops = f", {brightness:+.1f} EV" if brightness else ""
    film = f"; {frames} frames as one film" if frames > 1 else ""
    return f"exposure {chosen:.2f} ({source}{stops}){film}"
