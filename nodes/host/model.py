"""The diffusion UNet as a native MODEL of ComfyUI: stock samplers, previews, LoRA and offloading work with it."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import comfy.conds
import comfy.model_base
import comfy.model_management as mm
import comfy.model_patcher
import comfy.ops
import comfy.supported_models_base
import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import CallbacksMP
from torch import Tensor

from ...jores.budget import denoiser_bytes, refinement_bytes, shared_bytes
from ...jores.checkpoint import JoReSNets, load_bundle
from ...jores.conditions import SEMANTIC_STRIDE, Given, RetinexCondition, cut_features
from ...jores.config import DenoiserConfig, JoReSConfig
from ...jores.diffusion.schedule import NoiseSchedule
from ...jores.nets.denoiser import DenoisingUNet, Guides, v_for
from ...jores.nets.layout import in_fast_layout
from ...jores.nets.refinement import Modulation
from ...jores.tiling.tiler import Tiler
from ...jores.tiling.windows import Window, rounded_up, size_of
from .border import plain_errors
from .checks import check_counts, check_finite, check_inner_patches, check_pixels, check_schedule, expect
from .conds import CoarseMap, CoarseMaps
from .flow_sampling import sample_from_the_mean
from .joined import CONDITION_KEY, check_number, refuse_what_does_not_join
from .latents import PixelSpace
from .model_sampling import model_sampling
from .patchers import Adjusted, as_precise, check_same_model, warn_of_mixing
from .pictures import shown_size
from .shared import SharedByKey, SharedByMaps
from .windows import CUT_KEY, MEAN_KEY, TILE_KEY, TILED_KEY, tiler_of, window_pixels

SEMANTIC_KEY = "jores_semantic"  # key in the conditioning's dictionary, as CONDITION_KEY
FOREIGN_KEYS = ("control", "gligen")  # keys of other models in the same dictionary
OWN_LATENT = "connect the latent of 'Condition JoReS Diffusion'"
ForRNet = tuple[RetinexCondition, tuple[Modulation, Modulation]]
"""R' and L' without the features, and the modulations that FRCM takes from these."""
LoadedPatcher = getattr(comfy.model_patcher, "CoreModelPatcher", comfy.model_patcher.ModelPatcher)


class OtherNetError(KeyError, ValueError):
    """A missing field of Stable Diffusion's UNet. `str` gives the plain message; KeyError would quote it."""

    __module__ = "builtins"  # it is raised in nodes of others, and the host shows any other module, a path of the disk

    def __str__(self) -> str:
        return self.args[0]


class _UNetConfig(dict):
    """Raises a clear error when a node that patches Stable Diffusion's UNet reads sizes of that net."""

    def __missing__(self, key: str) -> Any:
        raise OtherNetError(
            f"a JoReS model has no {key!r}: a node before the sampler (FreeU or similar) patches Stable Diffusion's "
            "UNet, and this is another net: take the node out"
        )

    def copy(self) -> _UNetConfig:
        return _UNetConfig(self)


class JoReSModelConfig(comfy.supported_models_base.BASE):
    unet_config: dict[str, Any] = {}
    unet_extra_config: dict[str, Any] = {}
    latent_format = PixelSpace
    # bfloat16 rounds a dark picture (5 % brightness) by a quarter of an 8-bit level, which brightening amplifies. So
    # inputs, outputs and weights are float32, and `as_precise` chooses what lies between. ComfyUI's --fp16-unet and
    # --bf16-unet still override this.
    supported_inference_dtypes = [torch.float32]

    def inpaint_model(self) -> bool:
        return False


class NativeUNet(DenoisingUNet):
    """`DenoisingUNet` with the host's calling convention.

    A picture that is too big for the memory is processed in tiles, and the net's outputs are blended at every step,
    which is correct because x0 is linear in them. So stock samplers work with any size. `tiler` chooses the tile from
    the size (H, W) and the batch.
    """

    tiler: Callable[[tuple[int, int], int], Tiler] = staticmethod(lambda size, batch: Tiler())
    in_channels = out_channels = 3  # of the latent alone, as stock nodes expect, without the concatenated maps

    def __init__(self, config: DenoiserConfig, *, dtype: torch.dtype, device: Any, operations: Any) -> None:
        super().__init__(config, operations=operations, device=device, dtype=dtype)
        self.dtype = dtype
        self.tilers: SharedByKey[Tiler] = SharedByKey()  # the same at every step, so that memory runs out only once
        self.guides_of: SharedByMaps[Guides] = SharedByMaps()
        self.for_rnet: SharedByKey[ForRNet] = SharedByKey()

    def begin(self) -> None:
        """Before and after a sampling: forgets what its steps share; the free memory may have changed, too."""
        for shared in (self.tilers, self.guides_of, self.for_rnet):
            shared.clear()

    def forward(
        self,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor | None = None,
        control: Any = None,
        transformer_options: dict[str, Any] | None = None,
        *,
        jores_features: list[Tensor],
        jores_semantics: Tensor | None = None,
        **_unused: Any,
    ) -> Tensor:
        """x (B, 10, H, W): x_t, then the dark picture, R' and L' from c_concat; timesteps (B,): sqrt(alpha_bar)."""
        check_inner_patches(transformer_options)
        size, options = size_of(x), transformer_options or {}
        if options.get(MEAN_KEY):
            x_t, _, reflectance, illumination = x.split((3, 3, 3, 1), 1)
            return v_for(reflectance * illumination * 2 - 1, x_t, timesteps).to(x)

        def work(window: Window) -> tuple[Tensor]:
            mm.throw_exception_if_processing_interrupted()
            x_t, low, reflectance, illumination = window.cut(x).split((3, 3, 3, 1), 1)
            features, semantics = cut_features(jores_features, window), jores_semantics
            if semantics is not None and window.size != size:
                semantics = window.sample(semantics, size, SEMANTIC_STRIDE)
            given = Given(low, RetinexCondition(reflectance, illumination, features), semantics)
            net, guides = super(NativeUNet, self).forward, None
            if window.size == size and not options.get(CUT_KEY):  # what tiles share is computed again, to save memory
                maps = (reflectance, illumination, *features, semantics)
                guides = self.guides_of.get(maps, lambda: self.guides(given))
            return (net(x_t, timesteps, given, guides),)

        if options.get(TILED_KEY):
            return work(Window.whole(size))[0]
        tiler = self.tilers.get((size, len(x)), lambda: self.tiler(size, len(x)))
        return tiler.run(size, work)[0]


class JoReSDiffusion(comfy.model_base.BaseModel):
    """`bundle`: the file that it was loaded from. `mixed_with`: another one whose condition it was given last."""

    mixed_with: Path | None = None

    def __init__(self, model_config: JoReSModelConfig, jores: JoReSConfig, device: Any, bundle: Path) -> None:
        kind = (
            comfy.model_base.ModelType.V_PREDICTION
            if jores.schedule.prediction == "v"
            else comfy.model_base.ModelType.EPS
        )
        super().__init__(model_config, kind, device=device, unet_model=NativeUNet)
        self.jores, self.schedule, self.bundle = jores, NoiseSchedule(jores.schedule), bundle
        self.diffusion_model.tiler = lambda size, batch: tiler_of(0, jores, size, batch)
        self.model_sampling = model_sampling(jores.schedule)
        self.noise_levels = self.schedule.alphas_cumprod.sqrt().float()

    def apply_model(self, *args: Any, **kwargs: Any) -> Tensor:
        """Also tells the net whether its weights have changed. Hooks may change them between two calls."""
        if (kwargs.get("transformer_options") or {}).get("context_window") is not None:
            raise ValueError(
                "Context Windows cut the batch, but not the JoReS model's condition: take that node out; for clips "
                "'Enhance Low Light' and 'Sample JoReS Diffusion' go frame by frame"
            )
        patcher = self.current_patcher
        hooked = getattr(patcher, "current_hooks", None) is not None
        self.diffusion_model.guides_of.valid_for(object() if hooked else getattr(patcher, "patches_uuid", None))
        return super().apply_model(*args, **kwargs)

    def process_timestep(self, timestep: Tensor, **_kwargs: Any) -> Tensor:
        """The host's index 0..T-1 -> noise level sqrt(alpha_bar), bit by bit as in the library."""
        index = timestep.round().long().clamp(0, len(self.noise_levels) - 1)
        return self.noise_levels.to(timestep.device)[index]

    def noise_level(self, sigma: Tensor, sampling: Any = None) -> Tensor:
        """Noise level sqrt(alpha_bar) of a sigma.

        Outside of sampling, pass the MODEL's `sampling`: `self.model_sampling` may be the patch of another MODEL.
        """
        return self.process_timestep((sampling or self.model_sampling).timestep(sigma).float())

    def extra_conds(self, **kwargs: Any) -> dict[str, comfy.conds.CONDRegular]:
        adjusted, noise = kwargs.get(CONDITION_KEY), kwargs["noise"]
        if adjusted is None:
            raise ValueError(
                "The JoReS model was given a conditioning that carries no picture (a text prompt?). "
                "Connect positive and negative of 'Condition JoReS Diffusion'."
            )
        check_schedule(self.model_sampling, self.jores.schedule, "The sampler")
        self._check(adjusted, noise, kwargs)
        self.diffusion_model.begin()
        condition, (height, width) = adjusted.condition, adjusted.condition.size
        maps = torch.cat([adjusted.low, condition.reflectance, condition.illumination], 1)  # (B, 7, H, W)
        # When sampling in tiles, the maps stay where they are, and are moved to the device tile by tile.
        device = maps.device if kwargs.get(TILE_KEY) else kwargs["device"]
        padded = (rounded_up(height), rounded_up(width))
        conds = {
            "c_concat": comfy.conds.CONDNoiseShape(maps.to(device)),
            "jores_features": CoarseMaps([f.to(device) for f in condition.features], padded),
        }
        prior = kwargs.get(SEMANTIC_KEY)
        if prior is not None:
            conds["jores_semantics"] = CoarseMap(prior.probabilities.to(device), (height, width))
        return conds

    def extra_conds_shapes(self, **kwargs: Any) -> dict[str, list[int]]:
        return {TILE_KEY: [1, 3, kwargs[TILE_KEY], kwargs[TILE_KEY]]} if kwargs.get(TILE_KEY) else {}

    def memory_required(self, input_shape: list[int], cond_shapes: Any = None) -> float:
        """Bytes for the UNet, or RNet if that needs more: stock samplers run it between the steps (sampler.py)."""
        if len(input_shape) != 4 or min(input_shape) < 1:  # the host calls this first when a sampling starts
            check_pixels(torch.empty(tuple(input_shape), device="meta"), "The JoReS model's latent", OWN_LATENT)
        batch, size = input_shape[0], (input_shape[2], input_shape[3])
        pixels = window_pixels(tiler_of(0, self.jores, size, batch), size)
        if tiles := (cond_shapes or {}).get(TILE_KEY):
            pixels = min(pixels, max(math.prod(shape[2:]) for shape in tiles))
        shared = shared_bytes(self.jores, batch * pixels) if pixels == math.prod(size) else 0
        pixels *= batch
        return shared + max(
            denoiser_bytes(self.jores.denoiser, pixels), refinement_bytes(self.jores.refinement, pixels)
        )

    def _check(self, adjusted: Adjusted, noise: Tensor, options: dict[str, Any]) -> None:
        node, condition = "The JoReS model", adjusted.condition
        if noise.ndim != 4 or size_of(noise) != condition.size or noise.shape[1] != 3:
            raise ValueError(
                f"{node}'s latent is {shown_size(noise)} with {noise.shape[1]} channels, its conditioning "
                f"was made from a picture of {shown_size(condition.reflectance)}. Connect the latent of 'Condition "
                "JoReS Diffusion': this model works on pixels, and a latent has the picture's own size."
            )
        if (latent := options.get("latent_image")) is not None:
            check_finite(latent, f"{node}'s latent")
        for name in FOREIGN_KEYS:
            if options.get(name) is not None:
                raise ValueError(f"{node} cannot use {name} of other models (ControlNet, GLIGEN): take that node out")
        check_number(options, node)
        check_same_model(self.jores.denoiser.feature_widths, adjusted, node)
        self.mixed_with = warn_of_mixing(self.bundle, adjusted.nets, node, self.mixed_with)
        check_counts(len(adjusted.low), len(noise), node)
        if (prior := options.get(SEMANTIC_KEY)) is not None:
            check_counts(len(prior.probabilities), len(noise), node)


@plain_errors()
def load_native(
    path: Path, precision: str = "float32", disable_dynamic: bool = False
) -> comfy.model_patcher.ModelPatcher:
    """The MODEL of a bundle's UNet, see `as_precise`. Raises CheckpointError, ValueError.

    Newer hosts store this function in the MODEL and call it again when they need another copy: with `disable_dynamic`
    for nodes that need permanently loaded weights (TorchCompileModel, hooks), without it for another device.
    """
    load, offload = mm.get_torch_device(), mm.unet_offload_device()
    nets = load_bundle(path, parts=("denoiser",), operations=comfy.ops.manual_cast, runs_on=load)
    weights = nets.unet.state_dict()
    config = JoReSModelConfig(_UNetConfig(config=nets.config.denoiser))
    count = sum(w.numel() for w in weights.values())
    dtype = mm.unet_dtype(load, count, config.supported_inference_dtypes)
    config.set_inference_dtype(dtype, mm.unet_manual_cast(dtype, load, config.supported_inference_dtypes))
    model = JoReSDiffusion(config, nets.config, offload, path)
    in_fast_layout(model.diffusion_model, load).load_state_dict(weights)
    if dtype == torch.float32:
        as_precise(JoReSNets(nets.config, denoiser=model.diffusion_model), precision)
    patcher_class = comfy.model_patcher.ModelPatcher if disable_dynamic else LoadedPatcher
    patcher = patcher_class(model, load_device=load, offload_device=offload)
    patcher.cached_patcher_init = (load_native, (path, precision))
    refuse_what_does_not_join(patcher)  # the first of the wrappers: before any work
    if nets.config.denoiser.detail_std:
        sample_from_the_mean(patcher)
    patcher.add_callback(CallbacksMP.ON_CLEANUP, lambda patcher: patcher.model.diffusion_model.begin())
    return patcher


def jores_model(model: ModelPatcher, node: str) -> JoReSDiffusion:
    """The JoReS model in a MODEL. Raises ValueError for other models, and if the noise schedule was replaced.

    All clones of a MODEL share it, and it may still hold patches of another clone. So objects that can be patched must
    be read from the MODEL, by get_model_object.
    """
    wanted = "connect the model of 'Load JoReS Model'"
    expect(model, ModelPatcher, node, "model", wanted)
    if not isinstance(model.model, JoReSDiffusion):
        raise ValueError(f"{node}: model is a {type(model.model).__name__}, not a JoReS model: {wanted}")
    check_schedule(model.get_model_object("model_sampling"), model.model.jores.schedule, node)
    return model.model
