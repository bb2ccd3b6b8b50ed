"""The refinement stage on a native MODEL: Condition JoReS Diffusion, Apply RNet Refinement, Sample JoReS Diffusion."""

from __future__ import annotations

import comfy.sample
import comfy.samplers
import torch
from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io

from ..jores.conditions import SemanticPrior
from ..jores.diffusion.sampling import start_noise
from ..jores.options import SampleOptions
from ..jores.tiling.windows import size_of
from .host.checks import check_counts, check_latent_pictures, expect, latent_samples
from .host.fingerprints import among_pictures, known_pictures, same_pictures
from .host.joined import CONDITION_KEY, numbered
from .host.model import SEMANTIC_KEY, jores_model
from .host.model_sampling import sampling_sigmas
from .host.patchers import Adjusted, NetPatchers, check_same_model, memory_advice, warn_of_mixing
from .host.pictures import shown_size
from .host.progress import StepProgress
from .host.refinement import Refinement
from .host.sampler import few_step_sampler
from .host.texture import mix_after_sampling
from .host.windows import TILE_KEY, tiler_of
from .schema import (
    ADVANCED,
    LOW_LIGHT,
    Condition,
    Nets,
    Semantic,
    eta_input,
    node_schema,
    seed_input,
    steps_input,
    texture_input,
    tile_input,
)


class JoReSCondition(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return node_schema(
            node_id="JoReSCondition",
            display_name="Condition JoReS Diffusion",
            description="Turns the Retinex condition and the semantic prior into the sampler's conditioning and "
            "latent.",
            search_aliases=["conditioning", *LOW_LIGHT],
            inputs=[
                Condition.Input("condition", tooltip="From 'Adjust Retinex Condition'."),
                Semantic.Input(
                    "semantic", optional=True,
                    tooltip="From 'Segment Semantic Prior', of the same picture. Without it the semantic attention "
                    "is skipped.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(
                    "out_positive", display_name="positive", tooltip="Picture, Retinex condition and semantic prior."
                ),
                io.Conditioning.Output(
                    "out_negative", display_name="negative",
                    tooltip="The same without the semantic prior, for stock samplers. The model is made for cfg 1, "
                    "where it is not used; a cfg above 1 exaggerates what the semantics say.",
                ),
                io.Latent.Output(
                    "out_latent", display_name="latent",
                    tooltip="An empty latent of the picture's own size.",
                ),
            ],
        )  # fmt: skip

    @classmethod
    def execute(cls, condition: Adjusted, semantic: SemanticPrior | None = None) -> io.NodeOutput:
        node = "Condition JoReS Diffusion"
        expect(condition, Adjusted, node, "condition", "connect 'Adjust Retinex Condition'")
        negative: dict[str, Adjusted | SemanticPrior] = {CONDITION_KEY: condition}
        positive = dict(negative)
        if semantic is not None:
            expect(semantic, SemanticPrior, node, "semantic", "connect 'Segment Semantic Prior'")
            check_same_picture(condition, semantic)
            positive[SEMANTIC_KEY] = semantic
        placeholder, number = numbered()
        known = known_pictures(condition.source, condition.low, len(condition.low))
        latent = {"samples": torch.zeros_like(condition.low), **known}
        return io.NodeOutput([[placeholder, {**positive, **number}]], [[placeholder, {**negative, **number}]], latent)


class JoReSApplyRefinement(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return node_schema(
            node_id="JoReSApplyRefinement",
            display_name="Apply RNet Refinement",
            description="Lets RNet refine the picture inside the sampling loop, at every step of any sampler.",
            search_aliases=["refiner", "RNet", *LOW_LIGHT],
            inputs=[
                io.Model.Input("model", tooltip="From 'Load JoReS Model', with or without LoRAs and other patches."),
                Nets.Input("nets", tooltip="From the same 'Load JoReS Model'."),
                Condition.Input("condition", tooltip="From 'Adjust Retinex Condition': the same that is sampled."),
                io.Float.Input(
                    "start_percent", default=0.0, min=0.0, max=1.0, step=0.001,
                    tooltip="Where in the sampling the refinement begins: 0 = at the first step.", **ADVANCED,
                ),
                io.Float.Input(
                    "end_percent", default=1.0, min=0.0, max=1.0, step=0.001,
                    tooltip="Where in the sampling the refinement ends: 1 = after the last step.", **ADVANCED,
                ),
                texture_input(
                    " This one is for stock samplers; 'Sample JoReS Diffusion' and 'Select JoReS Sampler' have their "
                    "own."
                ),
            ],
            outputs=[io.Model.Output("out_model", display_name="model", tooltip="The model with RNet in its loop.")],
        )  # fmt: skip

    @classmethod
    def execute(
        cls,
        model: ModelPatcher,
        nets: NetPatchers,
        condition: Adjusted,
        start_percent: float,
        end_percent: float,
        texture: float = SampleOptions.texture,
    ) -> io.NodeOutput:
        node = "Apply RNet Refinement"
        base = jores_model(model, node)
        expect(nets, NetPatchers, node, "nets", "connect the nets of 'Load JoReS Model'")
        expect(condition, Adjusted, node, "condition", "connect 'Adjust Retinex Condition'")
        check_same_model(nets.config.refinement.feature_widths, condition, f"{node}: nets")
        warn_of_mixing(nets.bundle, condition.nets, f"{node}: nets")
        sampling, rnet = model.get_model_object("model_sampling"), nets.parts["refinement"]
        between = [
            float(base.noise_level(torch.tensor([sampling.percent_to_sigma(percent)]), sampling))
            for percent in (start_percent, end_percent)
        ]
        refined = model.clone()
        refined.set_model_sampler_post_cfg_function(Refinement(rnet, nets.config, condition, *between))
        refined.set_additional_models("jores_refinement", [rnet])
        if nets.config.denoiser.detail_std:
            mix_after_sampling(refined, texture)
        return io.NodeOutput(refined)


class JoReSSample(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return node_schema(
            node_id="JoReSSample",
            display_name="Sample JoReS Diffusion",
            description="The method's own few-step sampler. The frames of a batch share their noise and go one by one.",
            search_aliases=["sampler", "KSampler", *LOW_LIGHT],
            inputs=[
                io.Model.Input("model", tooltip="From 'Load JoReS Model', best with 'Apply RNet Refinement' after it."),
                io.Conditioning.Input("positive", tooltip="From 'Condition JoReS Diffusion'."),
                io.Latent.Input(
                    "latent",
                    tooltip="From 'Condition JoReS Diffusion'. Masks belong to 'Finish Enhancement'.",
                ),
                steps_input(),
                seed_input(),
                eta_input(),
                tile_input(),
                texture_input(),
            ],
            outputs=[
                io.Latent.Output(
                    "out_latent", display_name="latent",
                    tooltip="The enhanced picture, for 'Finish Enhancement'.",
                )
            ],
        )  # fmt: skip

    @classmethod
    def execute(
        cls,
        model: ModelPatcher,
        positive: list,
        latent: dict,
        steps: int,
        seed: int,
        eta: float,
        tile: int = 0,
        texture: float = SampleOptions.texture,
    ) -> io.NodeOutput:
        node = "Sample JoReS Diffusion"
        base = jores_model(model, node)
        samples = latent_samples(latent, node, "Condition JoReS Diffusion")
        check_positive(node, positive, latent)
        if not 1 <= steps <= base.schedule.most_steps:
            raise ValueError(f"{node}: steps must be 1 to {base.schedule.most_steps} for this model, not {steps}")
        sigmas = sampling_sigmas(model.get_model_object("model_sampling"), base.schedule.timesteps(steps))
        options = SampleOptions(steps, seed, eta=eta, texture=texture)
        noise = start_noise((1, *samples.shape[1:]), seed, samples)
        progress, result = StepProgress(len(samples) * steps), torch.empty_like(samples)
        tiler = tiler_of(tile, base.jores, size := size_of(samples))
        with memory_advice(node, shown_size(samples)):
            for i in range(len(samples)):
                recipe = few_step_sampler(options, i, tiler, progress)
                one = frame_of(positive, i, 0 if tiler.covers(size) else tiler.tile)
                sampler = comfy.samplers.KSAMPLER(recipe)
                result[i : i + 1] = comfy.sample.sample_custom(
                    model, noise, 1.0, sampler, sigmas, one, one, samples[i : i + 1], seed=seed, disable_pbar=True
                )
        adjusted = positive[0][1][CONDITION_KEY]
        known = known_pictures(adjusted.source, adjusted.low, len(result))
        return io.NodeOutput({**latent, **known, "samples": result})


def check_positive(node: str, positive: list, latent: dict) -> None:
    """Raises ValueError unless all parts of the conditioning were made from the pictures of the latent."""
    wanted = "connect 'Condition JoReS Diffusion'"
    expect(positive, list, node, "positive", wanted)
    parts = [part[1] for part in positive if isinstance(part, list | tuple) and len(part) == 2]
    parts = [options for options in parts if isinstance(options, dict) and CONDITION_KEY in options]
    if not parts or len(parts) < len(positive):
        raise ValueError(f"{node}: positive carries no picture (a text prompt?): {wanted}")
    count, first = len(latent["samples"]), parts[0][CONDITION_KEY]
    for options in parts:
        adjusted, mask = options[CONDITION_KEY], options.get("mask")
        check_counts(len(adjusted.low), count, node)
        if mask is not None and mask.ndim > 2 and len(mask) not in (1, count):
            raise ValueError(f"{node}: positive has {len(mask)} masks for {count} pictures: give one, or one for each")
        if not same_pictures(adjusted.source, first.source):
            raise ValueError(f"{node}: positive was joined from conditions of different pictures: use one picture's")
        check_latent_pictures(latent, adjusted.source, node)


def check_same_picture(condition: Adjusted, semantic: SemanticPrior) -> None:
    """Raises ValueError if a condition and a semantic prior were made from different pictures."""
    given, wanted = (len(semantic.probabilities), *semantic.size), (len(condition.low), *condition.condition.size)
    if given[1:] != wanted[1:] or given[0] not in (1, wanted[0]):
        raise ValueError(
            "Condition JoReS Diffusion: semantic was made from {} picture(s) of {}x{} (height x width), condition "
            "from {} of "
            "{}x{}: use the same picture for both".format(*given, *wanted)
        )
    if not among_pictures(semantic.source, condition.source):
        raise ValueError(
            "Condition JoReS Diffusion: semantic and condition were made from different pictures of one size: use the "
            "same picture for both"
        )


def frame_of(conditioning: list, index: int, tile: int) -> list:
    """The conditioning of picture `index` of a batch; conditions of a single picture are used for all."""
    frames = []
    for embedding, options in conditioning:
        options = {**options, TILE_KEY: tile}
        if (adjusted := options.get(CONDITION_KEY)) is not None:
            options[CONDITION_KEY] = adjusted.frame(index)
        if (semantic := options.get(SEMANTIC_KEY)) is not None:
            options[SEMANTIC_KEY] = semantic.frame(index % len(semantic.probabilities))
        if (mask := options.get("mask")) is not None and mask.ndim > 2:  # from the host's ConditioningSetMask
            options["mask"] = mask[index % len(mask)][None]
        frames.append([embedding, options])
    return frames
