"""The node Load Folder of Photographs: a list of pictures, which the following nodes process one by one."""

from __future__ import annotations

import logging
from pathlib import Path

from comfy_api.latest import io

from .host.cards import text_card
from .host.folders import SHIPPED_FOLDER, file_stamp, folder_names, folder_pictures
from .schema import SHOWS_FROM_CACHE, node_schema

log = logging.getLogger(__name__)
NODE = "Load Folder of Photographs"
SHOWN = 3  # damaged files that a message names


class JoReSLoadFolder(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return node_schema(
            node_id="JoReSLoadFolder",
            display_name=NODE,
            description="Loads the photographs of a folder inside ComfyUI's input folder one by one: the nodes that "
            "follow run once for each of them. Sizes may differ.",
            # As an output node, on older hosts, it would run, and could fail, where nothing is connected to it.
            **{key: value for key, value in SHOWS_FROM_CACHE.items() if key != "is_output_node"},
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

        images, names, damaged = [], [], {}
        taken, total = chosen(folder, first, count)
        for name, path in taken:
            try:
                images.append(read_image(path).pixels[None].movedim(1, -1).contiguous())
                names.append(f"JoReS/{name}")
            except (OSError, ValueError) as error:  # as on the command line, the others are still processed
                damaged[path.name] = str(error).removeprefix(f"{path}: ")
        if not images:
            raise ValueError(f"{NODE}: none of {len(damaged)} photograph(s) can be read: {_reasons(damaged)}")
        message = left_out(first, len(taken), total, damaged)
        if not message:
            return io.NodeOutput(images, names)
        log.warning("%s: %s", NODE, message)
        return io.NodeOutput(images, names, ui=text_card(message))

    @classmethod
    def fingerprint_inputs(cls, folder: str | None, first: int | None, count: int | None) -> str:
        if folder is None or first is None or count is None:
            return ""
        taken, total = chosen(folder, first, count)
        return "|".join([str(total), *(file_stamp(path) for _name, path in taken)])


def chosen(folder: str, first: int, count: int) -> tuple[list[tuple[str, Path]], int]:
    """Names and files of at most `count` photographs, from number `first` on (1 is the first); how many there are.

    Raises:
        ValueError: there is no such folder, it holds no picture, or fewer than `first`.
    """
    paths = folder_pictures(folder)
    if first > len(paths):
        raise ValueError(
            f"{NODE}: first is {first}, but '{folder}' holds {len(paths)} photograph(s): take a smaller number"
        )
    return paths[first - 1 : first - 1 + count], len(paths)


def left_out(first: int, taken: int, total: int, damaged: dict[str, str]) -> str:
    """What a user must know of photographs that are not among the outputs; "" if all are.

    `damaged`: names of files, and why each cannot be read.
    """
    said = []
    if (last := first - 1 + taken) < total:
        said.append(f"these are {first} to {last} of {total} photographs: to go on, set first to {last + 1}")
    if damaged:
        said.append(f"{len(damaged)} photograph(s) left out, which cannot be read: {_reasons(damaged)}")
    return "\n".join(said)


def _reasons(damaged: dict[str, str]) -> str:
    """Names and reasons of `left_out`; a reason is said once, and of more than SHOWN files the first."""
    names: dict[str, list[str]] = {}
    for name, reason in list(damaged.items())[:SHOWN]:
        names.setdefault(reason, []).append(name)
    named = "; ".join(f"{', '.join(files)}: {reason}" for reason, files in names.items())
    return named + ("; ..." if len(damaged) > SHOWN else "")
