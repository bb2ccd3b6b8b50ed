"""Hosts that stream weights to an NVIDIA device ("dynamic VRAM") build and copy the nets in a way of their own.

Streaming itself needs such a device. What comes before it, how the nets are built and loaded, does not.
"""

from __future__ import annotations

import importlib

import pytest
import torch

SHIPPED = "jores-compact.safetensors (shipped)"


@pytest.fixture
def streaming(comfy_inprocess, monkeypatch):
    import comfy.model_patcher

    if not hasattr(comfy.model_patcher, "ModelPatcherDynamic"):
        pytest.skip("this ComfyUI does not stream weights")
    memory = importlib.import_module("comfy.memory_management")
    monkeypatch.setattr(memory, "aimdo_enabled", True)
    monkeypatch.setattr(comfy.model_patcher, "CoreModelPatcher", comfy.model_patcher.ModelPatcherDynamic)
    return memory


def sampled(nodes, model, nets):
    def run(node_id, **inputs):
        return nodes[node_id].execute(**inputs).result

    image = torch.rand(1, 60, 80, 3, generator=torch.Generator().manual_seed(0)) * 0.1
    with torch.inference_mode():
        retinex = run("JoReSDecompose", nets=nets, image=image)[0]
        condition = run("JoReSAdjust", nets=nets, retinex=retinex, exposure=0.4, denoise=1.0)[0]
        positive, _negative, latent = run("JoReSCondition", condition=condition)
        return run("JoReSSample", model=model, positive=positive, latent=latent, steps=2, seed=0, eta=0.0)[0]["samples"]


def test_nets_built_for_streaming_are_the_same_nets(jores_pack_nodes, streaming, monkeypatch):
    nodes = jores_pack_nodes
    model, nets, _vae = nodes["JoReSLoadModel"].execute(model_name=SHIPPED).result
    for net in (model.model.diffusion_model, *(patcher.model for patcher in nets.parts.values())):
        assert {parameter.dtype for parameter in net.parameters()} == {torch.float32}
    monkeypatch.setattr(streaming, "aimdo_enabled", False)  # from here on it would ask the device
    usual, usual_nets, _vae = nodes["JoReSLoadModel"].execute(model_name=SHIPPED).result
    assert torch.equal(sampled(nodes, model, nets), sampled(nodes, usual, usual_nets))


def test_the_host_can_make_a_copy_that_does_not_stream(jores_pack_nodes, comfy_inprocess):
    """For TorchCompileModel, hooks, and other devices: it calls the loader that it finds with the MODEL."""
    import comfy.model_patcher

    nodes = jores_pack_nodes
    model, nets, _vae = nodes["JoReSLoadModel"].execute(model_name=SHIPPED).result
    load, arguments = model.cached_patcher_init
    copy = load(*arguments, disable_dynamic=True)
    assert type(copy) is comfy.model_patcher.ModelPatcher and copy.model is not model.model
    assert torch.equal(sampled(nodes, copy, nets), sampled(nodes, model, nets))
