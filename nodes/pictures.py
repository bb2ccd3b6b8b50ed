"""The nodes Load Example Photograph and Compare Before and After, the first and the last node of templates."""

from __future__ import annotations

from fractions import Fraction

import torch
from comfy_api.latest import InputImpl, Types, io, ui
from torch import Tensor
from torch.nn import functional as F

from ..jores.imaging.metal import detour
from ..jores.imaging.resize import reduced_size
from ..jores.tiling.windows import size_of
from .host.folders import EXAMPLES, example_path, file_stamp
from .host.pictures import from_image, to_image
from .schema import SHOWS_FROM_CACHE, node_schema

GAP = 8  # pixels between two pictures, at least
SHOWN = 1600  # pixels, longer side of the preview under the node


class JoReSLoadExample(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return node_schema(
            node_id="JoReSLoadExample",
            display_name="Load Example Photograph",
            description="Dark pictures to try the nodes on, shipped with them. For your own use Load Image or Load "
            "Video in its place.",
            search_aliases=["example", "sample picture", "test image", "demo", "dark photo", "JoReS"],
            **SHOWS_FROM_CACHE,
            inputs=[
                io.Combo.Input(
                    "picture", options=list(EXAMPLES), default=next(iter(EXAMPLES)),
                    tooltip="Which of the shipped pictures. The clip is a short film.",
                ),
            ],
            outputs=[
                io.Image.Output("out_image", display_name="image", tooltip="The picture, or the frames of the clip."),
                io.Mask.Output(
                    "out_mask", display_name="mask",
                    tooltip="What is painted over in 'region', white; all white for the others.",
                ),
                io.Video.Output("out_video", display_name="video", tooltip="The same as a film, for video nodes."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(cls, picture: str) -> io.NodeOutput:
        path = example_path(picture)
        if path.suffix == ".mp4":
            video = InputImpl.VideoFromFile(str(path))
            image = video.get_components().images
            mask = torch.ones(image.shape[:3])
        else:
            from ..jores.files.pictures import read_image  # imported late, because Pillow slows down the host's start

            pixels = read_image(path).pixels[None]
            image = pixels[:, :3].movedim(1, -1).contiguous()
            mask = 1 - pixels[:, 3] if pixels.shape[1] == 4 else torch.ones(image.shape[:3])
            video = InputImpl.VideoFromComponents(Types.VideoComponents(images=image, frame_rate=Fraction(1)))
        return io.NodeOutput(image, mask, video, ui=ui.PreviewImage(image[:1]))

    @classmethod
    def fingerprint_inputs(cls, picture: str | None) -> str:
        return file_stamp(example_path(picture) if picture else None)


class JoReSCompare(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return node_schema(
            node_id="JoReSCompare",
            display_name="Compare Before and After",
            description="Puts a picture before and after an enhancement into one, side by side or split by a line.",
            search_aliases=["compare", "before after", "side by side", "split", "difference", "JoReS"],
            is_output_node=True,
            inputs=[
                io.Image.Input("before", tooltip="The picture as it was. It is brought to the size of 'after'."),
                io.Image.Input("after", tooltip="The picture as it is now."),
                io.Combo.Input(
                    "mode", options=["side by side", "split"], default="side by side",
                    tooltip="How they are put together. side by side: both as a whole. split: one "
                    "picture, the left part as it was.",
                ),
                io.Float.Input(
                    "position", default=0.5, min=0.0, max=1.0, step=0.01, display_mode=io.NumberDisplay.slider,
                    tooltip="Where the line of 'split' stands: 0 = at the left edge, 1 = at the right one.",
                ),
            ],
            outputs=[
                io.Image.Output("out_image", display_name="image", tooltip="Both in one picture, to be saved."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(cls, before: Tensor, after: Tensor, mode: str, position: float) -> io.NodeOutput:
        node = "Compare Before and After"
        left, right = from_image(before, node, "before")[:, :3], from_image(after, node, "after")[:, :3]
        if len(left) != len(right) and 1 not in (len(left), len(right)):
            raise ValueError(
                f"{node}: before holds {len(left)} pictures and after {len(right)}: give one, or as many of each"
            )
        count, size = max(len(left), len(right)), size_of(right)
        left, right = resized(left, size).expand(count, -1, -1, -1), right.expand(count, -1, -1, -1)
        made = to_image(split(left, right, position) if mode == "split" else side_by_side(left, right))
        return io.NodeOutput(made, ui=ui.PreviewImage(preview(made[:1])))


def preview(image: Tensor) -> Tensor:
    """An IMAGE (1, H, W, 3) with at most SHOWN pixels on its longer side, averaged, so that grain looks as it would."""
    pictures = image.movedim(-1, 1)
    return to_image(resized(pictures, reduced_size(size_of(pictures), SHOWN)))


def resized(pictures: Tensor, size: tuple[int, int]) -> Tensor:
    """Resizes (B, 3, H, W) to `size` (H, W), bilinear; a side that gets shorter is averaged."""
    return F.interpolate(detour(pictures), size, mode="bilinear", antialias=True).to(pictures.device)


def side_by_side(left: Tensor, right: Tensor) -> Tensor:
    """Joins two (B, 3, H, W) side by side, with a white gap that is seen in the preview, too."""
    gap = max(GAP, left.shape[-1] // 100)
    return torch.cat([left, left.new_ones((*left.shape[:-1], gap)), right], -1)


def split(left: Tensor, right: Tensor, position: float) -> Tensor:
    """`left` up to `position` (0..1 of the width), `right` after it, and a white line between; all (B, 3, H, W)."""
    width = left.shape[-1]
    cut, made = round(position * width), right.clone()
    made[..., :cut] = left[..., :cut]
    line = max(1, width // 400)
    if 0 < cut < width:
        made[..., max(0, cut - line) : cut + line] = 1
    return made
