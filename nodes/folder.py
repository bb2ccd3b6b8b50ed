"""The node Load Folder of Photographs: a list of pictures, which the following nodes process one by one."""

from __future__ import annotations

from pathlib import Path

from comfy_api.latest import io

from .host.folders import SHIPPED_FOLDER, file_stamp, folder_names, folder_pictures
from .schema import node_schema


class JoReSLoadFolder(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return node_schema(
            node_id="JoReSLoadFolder",
            display_name="Load Folder of Photographs",
            description="Loads the photographs of a folder inside ComfyUI's input folder one by one: the nodes that "
            "follow run once for each of them. Sizes may differ.",
            search_aliases=["folder", "load folder", "batch of photos", "many pictures", "directory", "JoReS"],
            inputs=[
                io.Combo.Input(
                    "folder", options=folder_names(), default=SHIPPED_FOLDER,
                    tooltip="A folder inside ComfyUI's input folder, or the shipped examples. Folders in it are left "
                    "out.",
                ),
                io.Int.Input(
                    "first", default=1, min=1, max=1000000,
                    tooltip="Where to begin, by name: 1 = the first photograph. To go on after 16, take 17.",
                ),
                io.Int.Input(
                    "count", default=16, min=1, max=1000,
                    tooltip="How many photographs at most. All of them are in memory at once: 24 megapixels take 300 "
                    "MB each.",
                ),
            ],
            outputs=[
                io.Image.Output("out_image", display_name="image", tooltip="The photographs.", is_output_list=True),
                io.String.Output(
                    "out_name", display_name="name", is_output_list=True,
                    tooltip="Folder and name of each without its ending, for 'filename_prefix' of Save Image.",
                ),
            ],
        )  # fmt: skip

    @classmethod
    def execute(cls, folder: str, first: int, count: int) -> io.NodeOutput:
        from ..jores.files.pictures import read_image  # imported late, because Pillow slows down the host's start

        images, names = [], []
        for name, path in chosen(folder, first, count):
            images.append(read_image(path).pixels[None].movedim(1, -1).contiguous())
            names.append(f"JoReS/{name}")
        return io.NodeOutput(images, names)

    @classmethod
    def fingerprint_inputs(cls, folder: str | None, first: int | None, count: int | None) -> str:
        if folder is None or first is None or count is None:
            return ""
        return "|".join(file_stamp(path) for _name, path in chosen(folder, first, count))


def chosen(folder: str, first: int, count: int) -> list[tuple[str, Path]]:
    """Names and files of at most `count` photographs, starting with number `first` (1 is the first).

    Raises:
        ValueError: there is no such folder, it holds no picture, or fewer than `first`.
    """
    paths = folder_pictures(folder)
    if first > len(paths):
        raise ValueError(
            f"Load Folder of Photographs: first is {first}, but '{folder}' holds {len(paths)} photograph(s): take a "
            "smaller number"
        )
    return paths[first - 1 : first - 1 + count]
