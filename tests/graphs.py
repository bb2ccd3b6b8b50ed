"""Nodes of the pack and of the host in one process, run as a graph runs them; `pack` is the fixture."""

from __future__ import annotations

from types import SimpleNamespace

import torch

SIZE, SEED, STEPS = (48, 64), 5, 2

SHIPPED = "jores-compact.safetensors (shipped)"
SEGMENTER = "deeplab-ade20k (shipped)"
FOREIGN = {
    "continuous": ("ModelSamplingContinuousEDM", ("v_prediction", 120.0, 0.002)),
    "discrete eps": ("ModelSamplingDiscrete", ("eps", False)),
    "discrete v": ("ModelSamplingDiscrete", ("v_prediction", True)),
    "edm": ("ModelSamplingContinuousEDM", ("edm", 80.0, 0.002)),
    "sd3": ("ModelSamplingSD3", (3.0,)),
    "flux": ("ModelSamplingFlux", (1.15, 0.5, 64, 48)),
    "cascade": ("ModelSamplingStableCascade", (2.0,)),
}


def run(pack, node_id, **inputs):
    with torch.inference_mode():
        return pack.nodes[node_id].execute(**inputs).result


def conditioned(pack, model, nets, image):
    retinex = run(pack, "JoReSDecompose", nets=nets, image=image)[0]
    condition = run(pack, "JoReSAdjust", nets=nets, retinex=retinex, exposure=0.0, denoise=1.0)[0]
    positive, negative, latent = run(pack, "JoReSCondition", condition=condition)
    model = refine(pack, model, nets, condition)
    return SimpleNamespace(model=model, condition=condition, positive=positive, negative=negative, latent=latent)


def refine(pack, model, nets, condition, start=0.0, end=1.0):
    return run(
        pack, "JoReSApplyRefinement", model=model, nets=nets, condition=condition, start_percent=start, end_percent=end
    )[0]  # fmt: skip


def stock(node, *inputs):
    """First output of one of the host's nodes, which are of either kind, as the release has it."""
    function = node.execute if hasattr(node, "execute") else getattr(node(), node.FUNCTION)
    with torch.inference_mode():
        outputs = function(*inputs)
    return getattr(outputs, "result", outputs)[0]


def custom_sample(pack, given, sampler, sigmas, *, cfg=None, noise=None, model=None):
    """RandomNoise, BasicGuider or CFGGuider, SamplerCustomAdvanced, wired as a user does."""
    node, model = pack.custom, model or given.model
    noise = noise or stock(node.RandomNoise, SEED)
    if cfg is None:
        guider = stock(node.BasicGuider, model, given.positive)
    else:
        guider = stock(node.CFGGuider, model, given.positive, given.negative, cfg)
    return stock(node.SamplerCustomAdvanced, noise, guider, sampler, sigmas, given.latent)["samples"]


def our_sample(pack, given, steps, eta=0.0, model=None):
    inputs = {"positive": given.positive, "latent": given.latent, "steps": steps, "seed": SEED, "eta": eta}
    return run(pack, "JoReSSample", model=model or given.model, **inputs)[0]["samples"]


def scene(seed: int, count: int = 1) -> torch.Tensor:
    """Dark pictures with a structure of their own."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 4, 5, generator=generator)
    picture = torch.nn.functional.interpolate(coarse, size=SIZE, mode="bicubic").clamp(0, 1) * 0.2
    return picture.movedim(1, -1).contiguous()


def ksample(host, model, given, latent=None, **more):
    options = {"sampler_name": "euler", "scheduler": "simple", "steps": STEPS, "cfg": 1.0} | more
    with torch.inference_mode():
        return host.stock.KSampler().sample(
            model, 5, options["steps"], options["cfg"], options["sampler_name"], options["scheduler"], given.positive,
            given.negative, given.latent if latent is None else latent, 1.0,
        )[0]  # fmt: skip


def patched(host, model, kind):
    node, arguments = FOREIGN[kind]
    return stock(getattr(host.model_advanced, node), model, *arguments)
