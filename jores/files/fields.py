"""Interlaced video: each frame holds two fields, taken one after the other, in alternate rows."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import av
import av.filter
import numpy as np

Rows = tuple[slice, ...]

FIELDS = (2, 3, 4, 5)  # AVFieldOrder of interlaced streams; 3 and 4: bottom field first
PROGRESSIVE: Rows = (slice(None),)
TOP_FIRST: Rows = (slice(0, None, 2), slice(1, None, 2))
BOTTOM_FIRST: Rows = TOP_FIRST[::-1]


def rows_in_time(frame: Any, field_order: int | None) -> Rows:
    """The rows of each field of a frame (PyAV), in temporal order; PROGRESSIVE for a frame that is not interlaced.

    `field_order`: FFmpeg's AVFieldOrder of the stream, used if the frame does not tell the order.
    """
    if not frame.interlaced_frame:
        return PROGRESSIVE if field_order not in FIELDS else BOTTOM_FIRST if field_order in (3, 4) else TOP_FIRST
    if "separatefields" in av.filter.filters_available:
        graph = _graph(frame, ("separatefields", None))
        graph.push(frame)
        graph.push(None)
        first, both = (f.to_ndarray(format="gray16le") for f in (graph.pull(), frame))
        top, bottom = (np.array_equal(first[: len(both[r])], both[r][: len(first)]) for r in TOP_FIRST)
        if top != bottom:
            return TOP_FIRST if top else BOTTOM_FIRST
    return BOTTOM_FIRST if field_order in (3, 4) else TOP_FIRST


def take_field(frame: Any, rows: slice) -> Any:
    """One field of a frame with an even height, as a frame of half the height in the same pixel format."""
    field = av.VideoFrame(frame.width, frame.height // 2, frame.format.name)
    for source, target in zip(frame.planes, field.planes, strict=True):
        taken = _rows(source)[rows]
        kept = np.zeros((target.height, target.line_size), np.uint8)
        width = min(kept.shape[1], taken.shape[1])
        kept[: len(taken), :width] = taken[: len(kept), :width]
        kept[len(taken) :, :width] = taken[-1:, :width]  # odd number of chroma rows in 4:2:0
        target.update(kept.tobytes()[: target.buffer_size])
    field.colorspace, field.color_range = frame.colorspace, frame.color_range
    return field


def weave(fields: Sequence[Any], order: Rows) -> Any:
    """One interlaced frame of two fields, given in temporal order, and marked so; `order` are their rows."""
    first = fields[0]
    frame = av.VideoFrame(first.width, first.height * 2, first.format.name)
    for number, target in enumerate(frame.planes):
        kept = np.zeros((target.height, target.line_size), np.uint8)
        for field, rows in zip(fields, order, strict=True):
            taken, place = _rows(field.planes[number]), kept[rows]
            width = min(place.shape[1], taken.shape[1])
            place[:, :width] = taken[: len(place), :width]
        target.update(kept.tobytes()[: target.buffer_size])
    frame.colorspace, frame.color_range = first.colorspace, first.color_range
    return marked(frame, order)


def marked(frame: Any, order: Rows) -> Any:
    """The frame, marked with its field order; unchanged for PROGRESSIVE."""
    if order == PROGRESSIVE:
        return frame
    graph = _graph(frame, ("setfield", "tff" if order == TOP_FIRST else "bff"))
    graph.push(frame)
    made = graph.pull()
    made.colorspace, made.color_range = frame.colorspace, frame.color_range
    return made


def _graph(frame: Any, step: tuple[str, str | None]) -> Any:
    graph = av.filter.Graph()
    tick = frame.time_base or Fraction(1)
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=tick)
    middle, sink = graph.add(*step), graph.add("buffersink")
    source.link_to(middle)
    middle.link_to(sink)
    graph.configure()
    return graph


def _rows(plane: Any) -> np.ndarray:
    stored = np.frombuffer(bytes(plane), np.uint8)
    return stored[: plane.height * plane.line_size].reshape(plane.height, plane.line_size)
