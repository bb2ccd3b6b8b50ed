"""Parts of two bundles in one graph, where their sizes fit: it goes on, and the log says so."""

from __future__ import annotations

import logging
import shutil
from types import SimpleNamespace

import pytest
import torch

from jores.checkpoint import SHIPPED_WEIGHTS
from tests.graphs import conditioned, ksample, our_sample, refine, run, scene

MIXED = "they were not trained together"
OTHER = "other.safetensors"


@pytest.fixture(scope="module")
def other(host):
    """MODEL and nets of a second bundle of the same sizes."""
    folder = host.base / "models" / "jores"
    folder.mkdir(exist_ok=True)
    shutil.copy(SHIPPED_WEIGHTS, folder / OTHER)
    model, nets, _vae = run(host, "JoReSLoadModel", model_name=OTHER)
    return SimpleNamespace(model=model, nets=nets)


def warnings(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def test_one_bundle_is_no_mixture(host, graph, caplog):
    again = run(host, "JoReSLoadModel", model_name="jores-compact.safetensors (shipped)", precision="float32")
    model = refine(host, again[0], again[1], graph.one.condition)
    our_sample(host, graph.one, 1, model=model)
    ksample(host, model, graph.one)
    assert not [message for message in warnings(caplog) if MIXED in message]


def test_nets_of_another_bundle(host, graph, other, caplog):
    refine(host, graph.plain, other.nets, graph.one.condition)
    (message,) = warnings(caplog)
    assert message.startswith(f"Apply RNet Refinement: nets comes from {OTHER}, the condition from jores-compact.")
    assert MIXED in message and message.endswith("Use one 'Load JoReS Model' for the whole graph")


@pytest.mark.parametrize("sampler", ["ours", "stock", "stock with RNet of the condition's bundle"])
def test_a_model_of_another_bundle(host, graph, other, caplog, sampler):
    """Said once for a sampling, not for every conditioning, picture and step, and again for the next prompt's other."""
    batch, model = graph.batch, other.model
    if "RNet" in sampler:
        model = refine(host, model, graph.nets, batch.condition)
    sample = (lambda: our_sample(host, batch, 2, model=model)) if sampler == "ours" else (
        lambda: ksample(host, model, batch)["samples"]
    )  # fmt: skip
    own = conditioned(host, other.model, other.nets, scene(0))
    ksample(host, own.model, own)
    assert not warnings(caplog)
    assert torch.isfinite(sample()).all()
    (message,) = warnings(caplog)
    assert message.startswith(f"The JoReS model comes from {OTHER}, the condition from jores-compact.")
    ksample(host, own.model, own)
    sample()
    assert warnings(caplog) == [message] * 2
