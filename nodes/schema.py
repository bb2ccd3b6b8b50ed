"""Shared parts of the schemas: the pack's wire types and category, common inputs, and fields of newer hosts."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

from comfy_api.latest import io

from ..jores.limits import DRAFT_SIZE, FINE_STEPS, MIN_TILE, MOST_STOPS, PRECISIONS, QUALITIES, QUALITY, STEPS, TEXTURE

CATEGORY = "image/low light (JoReS-Diff)"

Nets = io.Custom("JORES_NETS")  # patchers.NetPatchers
Retinex = io.Custom("JORES_RETINEX")  # jores.conditions.RetinexMaps: R (B, 3, H, W), L (B, 1, H, W) in [0, 1]
Condition = io.Custom("JORES_CONDITION")  # patchers.Adjusted: jores.conditions.RetinexCondition + the dark picture
Segmenter = io.Custom("JORES_SEGMENTER")  # ModelPatcher of a jores.nets.segmentation.Segmenter
Semantic = io.Custom("JORES_SEMANTIC")  # jores.conditions.SemanticPrior: (B, 150, h, w)

MAX_SEED = 0xFFFFFFFFFFFFFFFE  # noise of the steps (eta > 0) is drawn from seed + 1
LOW_LIGHT = ["low light", "retinex", "JoReS"]
"""Search aliases of the single stages; EVERYDAY leads to Enhance Low Light first."""

EVERYDAY = [
    "low light", "low light photo", "dark", "dark photo", "night", "night photo", "underexposed", "backlit", "shadows",
    "relight", "brighten", "brightness", "exposure", "denoise", "noise", "JoReS",
]  # fmt: skip

_SCHEMA_FIELDS = {field.name for field in dataclasses.fields(io.Schema)}
SHOWS_FROM_CACHE = (
    {"has_intermediate_output": True} if "has_intermediate_output" in _SCHEMA_FIELDS else {"is_output_node": True}
)
"""Fields of a node in the middle of a graph that shows something under itself.

Without them, a host that has the node's result in its cache (another template with the same picture, or a reloaded
page) skips the node, and shows nothing. Older hosts have no such field; there it must be an output node.
"""

ADVANCED = {"advanced": True} if "advanced" in inspect.signature(io.Float.Input).parameters else {}
"""Keyword for inputs that few people need; newer hosts hide them at first."""


def node_schema(**fields: Any) -> io.Schema:
    """`io.Schema` with the fields that this host has; older hosts lack some, such as search_aliases."""
    return io.Schema(**{"category": CATEGORY, **{k: v for k, v in fields.items() if k in _SCHEMA_FIELDS}})


def exposure_input() -> io.Float.Input:
    """Target mean luma of the result; 0 is automatic."""
    return io.Float.Input(
        "exposure", display_name="exposure (0 = auto)", default=0.0, min=0.0, max=1.0, step=0.01,
        tooltip="How bright the result should be on average: 0 = automatic (the model proposes it from the picture, "
        "and leaves bright pictures as they are), 0.2 a night that stays night, 0.45 daylight, 0.7 very bright.",
    )  # fmt: skip


def brightness_input() -> io.Float.Input:
    """EV relative to the exposure. Optional and last, so that older graphs still run."""
    return io.Float.Input(
        "brightness", default=0.0, min=-float(MOST_STOPS), max=float(MOST_STOPS), step=0.1, optional=True,
        display_mode=io.NumberDisplay.slider,
        tooltip="Makes the result brighter or darker than 'exposure', also when that is automatic. In EV as on a "
        "camera: +1 is twice the light, -1 half of it, 0 no change.",
    )  # fmt: skip


def steps_input(**more: bool) -> io.Int.Input:
    return io.Int.Input(
        "steps", default=STEPS, min=1, max=100,
        tooltip="Diffusion steps. 4 is what the model is tuned for; 1 or 2 are quick looks. Time grows with the steps.",
        **more,
    )  # fmt: skip


def quality_input() -> io.Combo.Input:
    return io.Combo.Input(
        "quality", options=list(QUALITIES), default=QUALITY, optional=True,
        tooltip=f"Time against quality. draft: no diffusion, at most {DRAFT_SIZE} pixels inside, for a quick look. "
        f"standard: as many 'steps' as you say. fine: {FINE_STEPS} steps at least, up to twice the time of 4.",
    )  # fmt: skip


def seed_input() -> io.Int.Input:
    return io.Int.Input(
        "seed", default=0, min=0, max=MAX_SEED, control_after_generate=True,
        tooltip="Seed of the start noise. The same seed gives the same picture; all frames of a batch share the noise.",
    )  # fmt: skip


def eta_input() -> io.Float.Input:
    return io.Float.Input(
        "eta", default=0.0, min=0.0, max=1.0, step=0.01,
        tooltip="Noise that is added at every step: 0 = none (DDIM), 1 = as much as DDPM. Hardly visible with the "
        "shipped weights.",
        **ADVANCED,
    )  # fmt: skip


def texture_input(note: str = "") -> io.Float.Input:
    """Share of the detail that a flow draws. Optional, so that older graphs still run. `note` ends the tooltip."""
    return io.Float.Input(
        "texture", default=TEXTURE, min=0.0, max=1.0, step=0.05, optional=True,
        tooltip="How much of the fine detail that the diffusion draws is used: 0 = none, smooth; 1 = all of it. Such "
        "detail is invented to suit the picture, it was not seen. Models of release 0.1 ignore it." + note,
    )  # fmt: skip


def precision_input() -> io.Combo.Input:
    """What the nets compute in. Optional, so that older graphs still run."""
    return io.Combo.Input(
        "precision", options=list(PRECISIONS), default=PRECISIONS[0], optional=True,
        tooltip="What the nets compute in. auto: bfloat16 on processors that are faster with it, which saves a third "
        "of the time and changes pixels by about a level of 8 bits; float32 elsewhere. ComfyUI's --fp32-unet and "
        "--force-fp32 keep float32.",
        **ADVANCED,
    )  # fmt: skip


def tile_input() -> io.Int.Input:
    """Side of the tiles; 0 is automatic. Optional, so that older graphs still run.

    The front end rounds what is written to multiples of the step, so nothing between 0 and MIN_TILE can be chosen. It
    leaves other multiples of 16 in older graphs as they are, and they work.
    """
    return io.Int.Input(
        "tile", default=0, min=0, max=8192, step=MIN_TILE, optional=True,
        tooltip=f"Side in pixels of the overlapping tiles for big pictures, at least {MIN_TILE}. 0 = automatic: no "
        "tiles if the picture fits into the memory, otherwise tiles that fit.",
        **ADVANCED,
    )  # fmt: skip


def strength_input() -> io.Float.Input:
    return io.Float.Input(
        "strength", default=1.0, min=0.0, max=1.0, step=0.01,
        tooltip="Mixes the result with the original: 1 = the enhancement, 0 = the original, unchanged.",
    )  # fmt: skip


def mask_input() -> io.Mask.Input:
    return io.Mask.Input(
        "mask", optional=True,
        tooltip="Where to enhance (white). Where it is black the original's pixels stay exactly as they are.",
    )  # fmt: skip


def control_inputs() -> list[io.Input]:
    """Inputs of the nodes that do the compositing. Optional, so that older graphs still run."""
    return [
        io.Int.Input(
            "feather", default=0, min=0, max=4096, optional=True,
            tooltip="Soft edge of the mask in pixels. It lies inside the mask: nothing outside is touched.", **ADVANCED,
        ),
        io.Float.Input(
            "shadows", default=0.0, min=0.0, max=1.0, step=0.01, optional=True,
            tooltip="0 = the whole picture is enhanced, 1 = only what is dark in it; lamps, windows and the sky stay.",
            **ADVANCED,
        ),
        io.Float.Input(
            "colour_fidelity", default=0.0, min=0.0, max=1.0, step=0.01, optional=True,
            tooltip="Colour cast of the result: 0 = corrected by the model, 1 = as in the original.",
            **ADVANCED,
        ),
    ]  # fmt: skip
