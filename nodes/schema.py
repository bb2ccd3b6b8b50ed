"""What the schemas share: the pack's own wire types, its category, and fields that only newer hosts know."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

from comfy_api.latest import io

from ..jores.options import DRAFT_SIZE, FINE_STEPS, QUALITIES, SampleOptions

CATEGORY = "image/low light (JoReS-Diff)"

Nets = io.Custom("JORES_NETS")  # patchers.NetPatchers
Retinex = io.Custom("JORES_RETINEX")  # jores.conditions.RetinexMaps: R (B, 3, H, W), L (B, 1, H, W) in [0, 1]
Condition = io.Custom("JORES_CONDITION")  # patchers.Adjusted: jores.conditions.RetinexCondition + the dark picture
Segmenter = io.Custom("JORES_SEGMENTER")  # ModelPatcher of a jores.nets.segmentation.Segmenter
Semantic = io.Custom("JORES_SEMANTIC")  # jores.conditions.SemanticPrior: (B, 150, h, w)

MAX_SEED = 0xFFFFFFFFFFFFFFFE  # fresh noise (eta > 0) is drawn from seed + 1
LOW_LIGHT = ["low light", "retinex", "JoReS"]
"""What leads to a stage; the everyday words lead to the one block first."""

EVERYDAY = [
    "low light", "low light photo", "dark", "dark photo", "night", "night photo", "underexposed", "backlit", "shadows",
    "relight", "brighten", "brightness", "exposure", "denoise", "noise", "JoReS",
]  # fmt: skip

_SCHEMA_FIELDS = {field.name for field in dataclasses.fields(io.Schema)}
SHOWS_FROM_CACHE = (
    {"has_intermediate_output": True} if "has_intermediate_output" in _SCHEMA_FIELDS else {"is_output_node": True}
)
"""Fields of a node in mid-graph that shows something under itself.

Without them a host that has the node's result from an earlier graph (another template on the same picture, or the page
loaded anew) passes it by, and it stands there empty. Older hosts know no other name for it than an output node.
"""

ADVANCED = {"advanced": True} if "advanced" in inspect.signature(io.Float.Input).parameters else {}
"""Keyword for inputs that few people need: newer hosts fold them away."""


def node_schema(**fields: Any) -> io.Schema:
    """`io.Schema` of the fields that this host knows; older ones lack search_aliases and the like."""
    return io.Schema(**{"category": CATEGORY, **{k: v for k, v in fields.items() if k in _SCHEMA_FIELDS}})


def exposure_input() -> io.Float.Input:
    return io.Float.Input(
        "exposure", display_name="exposure (0 = auto)", default=0.0, min=0.0, max=1.0, step=0.01,
        tooltip="How bright the result should be on average: 0 = automatic (the model proposes it from the picture), "
        "0.2 a night that stays night, 0.45 daylight, 1 white.",
    )  # fmt: skip


def brightness_input() -> io.Float.Input:
    """Optional and last, so that graphs from before it existed still run."""
    return io.Float.Input(
        "brightness", default=0.0, min=-2.0, max=2.0, step=0.1, optional=True, display_mode=io.NumberDisplay.slider,
        tooltip="A little brighter or darker than that, in EV as on a camera: +1 is twice the light, -1 half of it, 0 "
        "the exposure itself, proposed or told.",
    )  # fmt: skip


def steps_input(**more: bool) -> io.Int.Input:
    return io.Int.Input(
        "steps", default=4, min=1, max=100,
        tooltip="Diffusion steps. 4 is what the model is tuned for; 1 or 2 are quick looks. Time grows with the steps.",
        **more,
    )  # fmt: skip


def quality_input() -> io.Combo.Input:
    return io.Combo.Input(
        "quality", options=list(QUALITIES), default="standard", optional=True,
        tooltip=f"Time against quality. draft: no diffusion, at most {DRAFT_SIZE} pixels inside, for a quick look. "
        f"standard: as many 'steps' as you say. fine: {FINE_STEPS} steps at least, twice the time of 4.",
    )  # fmt: skip


def seed_input() -> io.Int.Input:
    return io.Int.Input(
        "seed", default=0, min=0, max=MAX_SEED, control_after_generate=True,
        tooltip="Seed of the start noise. The same seed gives the same picture; all frames of a batch share the noise.",
    )  # fmt: skip


def eta_input() -> io.Float.Input:
    return io.Float.Input(
        "eta", default=0.0, min=0.0, max=1.0, step=0.01,
        tooltip="Fresh noise at every step: 0 = none (DDIM), 1 = as much as DDPM. Hardly visible with the shipped "
        "weights.",
        **ADVANCED,
    )  # fmt: skip


def texture_input(told: str = "") -> io.Float.Input:
    """Optional, so that graphs from before it existed still run. `told` is said after the common words."""
    return io.Float.Input(
        "texture", default=SampleOptions.texture, min=0.0, max=1.0, step=0.05, optional=True,
        tooltip="How much of the fine detail that the diffusion draws is used: 0 = none, smooth; 1 = all of it. It is "
        "invented in the manner of the picture, not seen in it. Models of version 0.1 draw none." + told,
    )  # fmt: skip


def tile_input() -> io.Int.Input:
    """Optional, so that graphs from before it existed still run."""
    return io.Int.Input(
        "tile", default=0, min=0, max=8192, step=16, optional=True,
        tooltip="Side in pixels of the overlapping tiles in which a big picture is worked on, at least 64: 0 = "
        "automatic (the picture as a whole while that fits into the memory, then the tiles that fit).",
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
    """What the nodes that make the final picture share. Optional, so that graphs from before they existed still run."""
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
            tooltip="Whose colour cast the result has: 0 = the model's, which corrects it, 1 = the original's.",
            **ADVANCED,
        ),
    ]  # fmt: skip
