"""Memory that runs out while a model is loaded is told as that, not as a damaged file."""

from __future__ import annotations

import contextlib

import pytest
import torch
from transformers import SegformerForSemanticSegmentation

from jores import checkpoint, cli, semantics
from jores.checkpoint import SHIPPED_SEGMENTER, SHIPPED_WEIGHTS, load_bundle
from jores.nets.deeplab import LabelledDeepLab
from jores.out_of_memory import is_out_of_memory
from jores.semantics import load_segmenter
from tests.segformers import write_model
from tests.tiny import NAMES


def too_much(*_given, **_named):
    return torch.empty(1 << 55, device="cpu")


def no_python_memory(*_given, **_named):
    raise MemoryError


def no_device_memory(*_given, **_named):
    raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


ENDS = pytest.mark.parametrize("end", [too_much, no_python_memory, no_device_memory])


@contextlib.contextmanager
def told_as_it_is():
    with pytest.raises((RuntimeError, MemoryError)) as caught:
        yield
    assert is_out_of_memory(caught.value) and not isinstance(caught.value, ValueError)


@ENDS
@pytest.mark.parametrize("where", ["weights", "first picture"])
def test_in_the_shipped_segmenter(end, where, monkeypatch):
    if where == "weights":
        monkeypatch.setattr(semantics, "load_file", end)
    else:
        monkeypatch.setattr(LabelledDeepLab, "forward", end)
    with told_as_it_is():
        load_segmenter(SHIPPED_SEGMENTER)


@ENDS
def test_in_a_segmenter_of_transformers(end, monkeypatch, tmp_path):
    folder = write_model(tmp_path, NAMES)
    monkeypatch.setattr(SegformerForSemanticSegmentation, "__init__", end)
    with told_as_it_is():
        load_segmenter(folder)


class OpenedFile:
    """A file of weights, for whose tensors there is no room."""

    def __init__(self, opened, end):
        self.opened, self.get_tensor = opened, end

    def __enter__(self):
        self.keys, self.metadata = self.opened.keys, self.opened.metadata
        return self

    def __exit__(self, *_given):
        return None


@ENDS
def test_in_a_bundle(end, monkeypatch, capsys):
    opened = checkpoint.safe_open
    monkeypatch.setattr(checkpoint, "safe_open", lambda path, framework: OpenedFile(opened(path, framework), end))
    with told_as_it_is():
        load_bundle(SHIPPED_WEIGHTS)
    monkeypatch.setattr("jores.commands.info.read_header", end)
    assert cli.main(["info"]) == 1
    assert capsys.readouterr().err.startswith("jores: out of memory")
