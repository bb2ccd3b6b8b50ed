"""Select JoReS Sampler and Schedule JoReS Sigmas: the method's own recipe for the host's SamplerCustomAdvanced."""

from __future__ import annotations

import comfy.samplers
from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io

from ..jores.options import SampleOptions
from .host.model import jores_model
from .host.model_sampling import sampling_sigmas
from .host.sampler import recipe_sampler
from .schema import LOW_LIGHT, eta_input, node_schema, steps_input, texture_input


class JoReSSampler(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return node_schema(
            node_id="JoReSSampler",
            display_name="Select JoReS Sampler",
            description="The method's own sampler, for the stock 'SamplerCustomAdvanced'. It goes with the steps of "
            "'Schedule JoReS Sigmas', whichever guider and noise are used.",
            search_aliases=["KSamplerSelect", "custom sampler", "DDIM", *LOW_LIGHT],
            inputs=[eta_input(), texture_input()],
            outputs=[
                io.Sampler.Output(
                    "out_sampler", display_name="sampler",
                    tooltip="Gives the same result as 'Sample JoReS Diffusion' for the same seed. In a batch, however, "
                    "'RandomNoise' draws noise for each picture, while that node uses the same noise for all.",
                )
            ],
        )  # fmt: skip

    @classmethod
    def execute(cls, eta: float, texture: float = SampleOptions.texture) -> io.NodeOutput:
        return io.NodeOutput(comfy.samplers.KSAMPLER(recipe_sampler(eta, texture)))


class JoReSSigmas(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return node_schema(
            node_id="JoReSSigmas",
            display_name="Schedule JoReS Sigmas",
            description="The noise levels of the method's steps, for the stock 'SamplerCustomAdvanced', with our "
            "sampler or any stock one.",
            search_aliases=["scheduler", "BasicScheduler", "steps", *LOW_LIGHT],
            inputs=[io.Model.Input("model", tooltip="From 'Load JoReS Model': it has the schedule."), steps_input()],
            outputs=[
                io.Sigmas.Output(
                    "out_sigmas", display_name="sigmas",
                    tooltip="One noise level for each step, from pure noise down, and 0.",
                )
            ],
        )  # fmt: skip

    @classmethod
    def execute(cls, model: ModelPatcher, steps: int) -> io.NodeOutput:
        base = jores_model(model, "Schedule JoReS Sigmas")
        sampling = model.get_model_object("model_sampling")
        return io.NodeOutput(sampling_sigmas(sampling, base.schedule.timesteps(steps)))
