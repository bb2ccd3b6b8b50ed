"""The stages of the method as nodes, from a picture to the sampler, with a `model` of the fixture of that name."""

from __future__ import annotations

import torch

from tests.graphs import run

STEPS, SIZE = 3, (37, 50)


def picture(batch=1, channels=3, size=SIZE, seed=0):
    return torch.rand(batch, *size, channels, generator=torch.Generator().manual_seed(seed)) * 0.12


def to_bchw(image):
    return image.movedim(-1, 1)


def conditioned(pack, model, image, semantic=True):
    retinex = run(pack, "JoReSDecompose", nets=model.nets, image=image)[0]
    condition = run(pack, "JoReSAdjust", nets=model.nets, retinex=retinex, exposure=0.0, denoise=1.0)[0]
    seen = {"segmenter": model.segmenter, "image": image, "class_name": "sky", "condition": condition}
    prior = run(pack, "JoReSSegment", **seen)[0] if semantic else None
    refined = run(
        pack, "JoReSApplyRefinement", model=model.model, nets=model.nets, condition=condition, start_percent=0.0,
        end_percent=1.0,
    )[0]  # fmt: skip
    return refined, condition, *run(pack, "JoReSCondition", condition=condition, semantic=prior)


def ksample(pack, model, positive, negative, latent, scheduler="simple", **more):
    inputs = {
        "seed": 5,
        "steps": 4,
        "cfg": 1.0,
        "sampler_name": "euler",
        "scheduler": scheduler,
        "denoise": 1.0,
        **more,
    }
    with torch.inference_mode():
        out = pack.stock.KSampler().sample(model, positive=positive, negative=negative, latent_image=latent, **inputs)
    return out[0]["samples"]
