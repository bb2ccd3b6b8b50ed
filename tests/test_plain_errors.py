"""What people read of an error: our sentence, without the path of a module in front of it."""

from __future__ import annotations

import asyncio
import importlib
import pkgutil

import pytest

from host.client import PromptError
from tests.graphs import SHIPPED


def own_errors(pack, base=Exception):
    """All of the pack's classes of errors."""
    for kind in base.__subclasses__():
        if kind.__module__.startswith("jores_pack."):
            yield kind
        yield from own_errors(pack, kind)


@pytest.fixture
def raising(pack):
    """A node that raises what it is given, behind the border of all nodes."""
    guarded, io = pack.load("nodes.host.border").guarded, importlib.import_module("comfy_api.latest").io

    class Raising(io.ComfyNode):
        @classmethod
        def define_schema(cls):
            return io.Schema(node_id="Raising", inputs=[], outputs=[])

        @classmethod
        def execute(cls, error):
            raise error

    return guarded(Raising)


def test_every_error_of_our_own_leaves_a_node_as_a_plain_one(pack, raising):
    library = importlib.import_module("jores_pack.jores")
    for module in pkgutil.walk_packages(library.__path__, "jores_pack.jores."):
        if ".training" not in module.name and not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    kinds = set(own_errors(pack))
    assert {"CheckpointError", "SegmenterError", "ImageFileError", "VideoFileError"} <= {k.__name__ for k in kinds}
    for kind in kinds:
        own = kind.__new__(kind, "our sentence")
        own.args = ("our sentence",)
        with pytest.raises(Exception) as shown:  # noqa: PT011
            raising.execute(error=own)
        assert type(shown.value) is ValueError and str(shown.value) == "our sentence" and shown.value.__cause__ is own


def test_errors_of_others_stay_what_they_are(raising):
    """The host treats some of them in a special way: out of memory, and the button that cancels."""
    mm = importlib.import_module("comfy.model_management")
    for error in (mm.InterruptProcessingException(), mm.OOM_EXCEPTION("full"), KeyError("x"), asyncio.TimeoutError()):
        with pytest.raises(type(error)) as shown:
            raising.execute(error=error)
        assert shown.value is error


def test_a_model_that_the_host_loads_again_itself_says_so_in_the_same_way(pack, tmp_path):
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(b"x" * 100)
    with pytest.raises(ValueError, match="not a readable .safetensors file") as shown:
        pack.native.load_native(bad)
    assert type(shown.value) is ValueError


def test_a_running_host_shows_our_sentence_alone(comfy_server, comfy_client):
    folder = comfy_server.base / "models" / "jores"
    folder.mkdir(exist_ok=True)
    (folder / "damaged.safetensors").write_bytes(b"x" * 100)
    load = {"class_type": "JoReSLoadModel", "inputs": {"model_name": "damaged.safetensors"}}
    free = {"class_type": "FreeU", "inputs": {"model": ["1", 0], "b1": 1.1, "b2": 1.2, "s1": 0.9, "s2": 0.2}}
    end = {"class_type": "JoReSSigmas", "inputs": {"model": ["2", 0], "steps": 1}}
    show = {"class_type": "PreviewAny", "inputs": {"source": ["3", 0]}}
    damaged = {"1": load, "2": load, "3": {**end, "inputs": {"model": ["1", 0], "steps": 1}}, "4": show}
    patched = {"1": {**load, "inputs": {"model_name": SHIPPED}}, "2": free, "3": end, "4": show}
    for graph, words in ((damaged, "not a readable .safetensors file"), (patched, "a JoReS model has no")):
        with pytest.raises(PromptError, match=words) as refused:
            comfy_client.run(graph)
        assert refused.value.details["exception_type"].isidentifier(), "no path, no module"
