"""The node Segment Semantic Prior: a class map and a class mask of a dark picture."""

from __future__ import annotations

import functools
from dataclasses import replace

import comfy.model_management as mm
import torch
from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io
from torch import Tensor

from ..jores import pipeline
from ..jores.budget import lit_bytes, segmenter_bytes
from ..jores.conditions import Keeper, SemanticPrior, join_frames
from ..jores.config import SEMANTIC_CLASSES
from ..jores.nets.segmentation import Segmenter as SegmenterNet
from ..jores.semantics import class_mask, everyday_names, find_classes
from ..jores.tiling.windows import size_of
from .host.checks import expect
from .host.fingerprints import fingerprints, same_pictures
from .host.folders import class_names
from .host.patchers import Adjusted, NetPatchers, each_frame, memory_advice
from .host.pictures import from_image, shown_size, to_image, to_mask
from .schema import ADVANCED, Condition, Segmenter, Semantic, node_schema

GOLDEN = 0.618034
OKABE_ITO = ((0, 114, 178), (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (213, 94, 0), (204, 121, 167))
"""The palette of Okabe and Ito (2008) for colour-blind people, without black."""


class JoReSSegment(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return node_schema(
            node_id="JoReSSegment",
            display_name="Segment Semantic Prior",
            description="Finds what is where in a dark picture (150 ADE20K classes): the diffusion's semantic prior, "
            "and a mask of any class for your own use.",
            search_aliases=["segmentation", "mask by class", "ADE20K", "semantic", "JoReS"],
            inputs=[
                Segmenter.Input("segmenter", tooltip="From 'Load Semantic Segmenter'."),
                io.Image.Input(
                    "image",
                    tooltip="The dark picture as it is: it is brightened for the segmenter inside.",
                ),
                io.Combo.Input(
                    "class_name", options=[*class_names(), *everyday_names()], default="person",
                    tooltip="The class that the mask shows, or at the end of the list a group of them, such as "
                    "'plants (all)'. It has no influence on the semantic prior.",
                ),
                io.String.Input(
                    "more_classes", default="", optional=True,
                    tooltip="Further classes for the mask, by the names in the menu above: 'sky, tree'.",
                ),
                io.Float.Input(
                    "threshold", default=0.0, min=0.0, max=1.0, step=0.01, optional=True,
                    tooltip="0 = a soft mask (probabilities); above, a hard one: white where the classes are at least "
                    "this likely.",
                    **ADVANCED,
                ),
                io.Boolean.Input(
                    "invert", default=False, optional=True, tooltip="Mask everything but these classes.", **ADVANCED
                ),
                Condition.Input(
                    "condition", optional=True,
                    tooltip="From 'Adjust Retinex Condition' of the same picture: the segmenter then sees the "
                    "picture as its nets brighten it, and recognises far more in the dark. The settings of that node "
                    "have no effect here.",
                ),
            ],
            outputs=[
                Semantic.Output("jores_semantic", display_name="semantic", tooltip="For 'Condition JoReS Diffusion'."),
                io.Image.Output(
                    "out_map", display_name="class map",
                    tooltip="The likeliest class of each place, in colours.",
                ),
                io.Mask.Output(
                    "out_mask", display_name="class mask",
                    tooltip="How likely the chosen classes are, 0..1; for the mask of 'Finish Enhancement', too.",
                ),
            ],
        )  # fmt: skip

    @classmethod
    def execute(
        cls,
        segmenter: ModelPatcher,
        image: Tensor,
        class_name: str,
        more_classes: str = "",
        threshold: float = 0.0,
        invert: bool = False,
        condition: Adjusted | None = None,
    ) -> io.NodeOutput:
        node = "Segment Semantic Prior"
        expect(segmenter, ModelPatcher, node, "segmenter", "connect 'Load Semantic Segmenter'")
        if not isinstance(segmenter.model, SegmenterNet):
            raise ValueError(f"{node}: segmenter is some other model: connect 'Load Semantic Segmenter'")
        pixels = from_image(image, node)
        classes = chosen_classes(node, class_name, more_classes)  # raises errors before the work
        source = fingerprints(image)
        nets = lighting_nets(node, condition, source)
        needed, loaded = segmenter_bytes(segmenter.model, size_of(pixels)), None
        if nets is not None:
            needed = max(needed, lit_bytes(nets.config))

        def segment(i: int) -> tuple[SemanticPrior, Tensor]:
            keeper = Keeper() if nets is None else kept_priors(nets, segmenter, image[i : i + 1], needed)
            prior = keeper(("prior",), lambda: pipeline.segment(segmenter.model, pixels[i : i + 1], loaded))
            prior = prior.to(mm.intermediate_device())
            mask = class_mask(prior, classes, threshold=threshold, inverted=invert)
            return prior, mask.to(mm.intermediate_device())

        with memory_advice(node, shown_size(pixels)):
            if nets is None:
                mm.load_models_gpu([segmenter], memory_required=needed, force_full_load=True)
            else:
                loaded = nets.load(needed, "decomposition", "adjustment", beside=(segmenter,))
            priors, masks = zip(*each_frame(len(pixels), segment), strict=True)
        prior: SemanticPrior = replace(join_frames(priors), source=source)
        return io.NodeOutput(prior, to_image(coloured(prior)), to_mask(torch.cat(masks)))


def chosen_classes(node: str, class_name: str, more: str) -> list[int]:
    """Indices of the classes for the mask. All segmenters have ADE20K's order, even if names are spelled differently.

    Raises:
        ValueError: an unknown class.
    """
    names = class_names()
    known = [*names, *everyday_names()]
    if class_name not in known:  # ComfyUI 0.3 does not check the menus of V3 nodes
        raise ValueError(f"{node}: class_name '{class_name}' is none of {', '.join(known)}")
    first = [names.index(class_name)] if class_name in names else find_classes(class_name, names)
    try:
        return list(dict.fromkeys([*first, *find_classes(more, names)]))
    except ValueError as error:
        raise ValueError(f"{node}: more_classes: {error}") from error


def lighting_nets(node: str, condition: Adjusted | None, source: Tensor) -> NetPatchers | None:
    """DNet and ANet of a condition, None without one. Raises ValueError for a condition of other pictures."""
    if condition is None:
        return None
    expect(condition, Adjusted, node, "condition", "connect 'Adjust Retinex Condition'")
    if not same_pictures(condition.source, source):
        raise ValueError(f"{node}: condition is of another picture than image: connect the same picture to both")
    return condition.nets


def kept_priors(nets: NetPatchers, segmenter: ModelPatcher, image: Tensor, needed: int) -> Keeper:
    """Keeps the prior of an IMAGE (1, H, W, C), so that another choice of classes costs nothing but their mask."""
    room = needed if mm.is_device_cpu(mm.get_torch_device()) else 0
    return nets.results.of(image, str(segmenter.patches_uuid), needed=room)


def coloured(prior: SemanticPrior) -> Tensor:
    """(B, 3, H, W) in [0, 1]: the most likely class in its colour, at each position; black for "others"."""
    p = prior.probabilities
    rest = (1 - p.sum(1, keepdim=True)).clamp_min(0)
    best = torch.cat([p, rest], 1).argmax(1)  # (B, h, w)
    colours = torch.tensor(class_colours(), device=p.device)[best].movedim(-1, 1)  # (B, 3, h, w)
    return torch.nn.functional.interpolate(colours, size=prior.size, mode="nearest-exact")


@functools.lru_cache(maxsize=1)
def class_colours() -> tuple[tuple[float, float, float], ...]:
    """150 colours and black: OKABE_ITO for the most common classes, which come first, then shades and tints of it."""
    colours = []
    for i in range(SEMANTIC_CLASSES):
        pure, turn = [c / 255 for c in OKABE_ITO[i % len(OKABE_ITO)]], i // len(OKABE_ITO)
        light = turn * GOLDEN % 1  # from a shade to a tint
        colours.append(tuple(c if turn == 0 else (0.35 + 0.35 * light) * c + 0.3 * light for c in pure))
    return (*colours, (0.0, 0.0, 0.0))
