"""Numbers that come from other nodes, whose range the host does not check: every input of every node refuses them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from host.client import PromptError
from tests.graphs import SEGMENTER, SHIPPED, run

NO_NUMBERS = {"text": "0.5", "nothing": None, "a list": [0.5], "a complex number": 0.5j}


def numbers(pack):
    """(node id, display name, input) of all numeric inputs."""
    for node_id, node in pack.nodes.items():
        schema = node.define_schema()
        for slot in schema.inputs:
            if slot.io_type in ("INT", "FLOAT"):
                yield node_id, schema.display_name, slot


def refusal(pack, node_id, slot, value):
    """The message for a value; nothing else is connected, so it is the number that is refused, and before any work."""
    with pytest.raises(ValueError) as refused:
        run(pack, node_id, **{slot.id: value})
    return str(refused.value)


def test_every_number_beyond_its_range_is_refused_by_name(pack):
    found = list(numbers(pack))
    assert len(found) > 25 and {node_id for node_id, *_ in found} > {"JoReSEnhance", "JoReSAdjust", "JoReSSegment"}
    for node_id, name, slot in found:
        whole = slot.io_type == "INT"
        for value in (slot.min - 1, slot.max + 1, *(() if whole else (math.nan, math.inf, -math.inf))):
            message = refusal(pack, node_id, slot, value)
            assert message.startswith(f"{name}: {slot.id} must be between ") and f", not {value}: " in message
        for value in (*NO_NUMBERS.values(), *((slot.min + 0.5, float(slot.min)) if whole else ())):
            assert refusal(pack, node_id, slot, value).startswith(f"{name}: {slot.id} is "), value


def test_every_number_in_its_range_is_taken(pack):
    check = pack.load("nodes.host.border").check_number
    for _node_id, name, slot in numbers(pack):
        kinds = (int, np.int64) if slot.io_type == "INT" else (int, float, np.float32, np.float64)
        for kind in kinds:
            check(kind(slot.min), slot, name)
            check(kind(slot.default), slot, name)
        check(slot.max, slot, name)


def test_the_bounds_are_said_as_people_write_them(pack):
    slots = {(node_id, slot.id): slot for node_id, _name, slot in numbers(pack)}
    for key, words in {
        ("JoReSEnhance", "brightness"): "must be between -2 and 2, not 99",
        ("JoReSEnhance", "seed"): f"must be between 0 and {2**64 - 2}, not {2**64}",
        ("JoReSAdjust", "denoise"): "must be between 0 and 1, not 99",
    }.items():
        assert words in refusal(pack, key[0], slots[key], 2**64 if key[1] == "seed" else 99)


@pytest.mark.parametrize(
    ("node", "name", "value"),
    [("3", "denoise", -1.0), ("3", "denoise", 2.0), ("3", "brightness", 9.0), ("4", "threshold", 2.0),
     ("6", "texture", -1.0), ("6", "start_percent", 2.0)],
)  # fmt: skip
def test_a_number_behind_a_link_is_refused_in_a_running_host(comfy_client, node, name, value):
    graph = {
        "1": {"class_type": "JoReSLoadModel", "inputs": {"model_name": SHIPPED}},
        "2": {"class_type": "JoReSDecompose", "inputs": {"nets": ["1", 1], "image": ["9", 0]}},
        "3": {"class_type": "JoReSAdjust",
              "inputs": {"nets": ["1", 1], "retinex": ["2", 0], "exposure": 0.0, "denoise": 1.0}},
        "4": {"class_type": "JoReSSegment",
              "inputs": {"segmenter": ["5", 0], "image": ["9", 0], "class_name": "sky", "condition": ["3", 0]}},
        "5": {"class_type": "JoReSLoadSegmenter", "inputs": {"segmenter_name": SEGMENTER}},
        "6": {"class_type": "JoReSApplyRefinement",
              "inputs": {"model": ["1", 0], "nets": ["1", 1], "condition": ["3", 0], "start_percent": 0.0,
                         "end_percent": 1.0}},
        "7": {"class_type": "PreviewImage", "inputs": {"images": ["4", 1]}},
        "8": {"class_type": "JoReSSigmas", "inputs": {"model": ["6", 0], "steps": 1}},
        "9": {"class_type": "EmptyImage", "inputs": {"width": 48, "height": 32, "batch_size": 1, "color": 657930}},
        "10": {"class_type": "PrimitiveFloat", "inputs": {"value": value}},
        "11": {"class_type": "PreviewAny", "inputs": {"source": ["8", 0]}},
    }  # fmt: skip
    graph[node]["inputs"][name] = ["10", 0]
    with pytest.raises(
        PromptError, match=f": {name} must be between .*, not {value}: change it in the node"
    ) as refused:
        comfy_client.run(graph)
    assert refused.value.details["node_id"] == node and refused.value.details["exception_type"] == "ValueError"
