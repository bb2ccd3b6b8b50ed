"""The diffusion UNet as a native MODEL: stock samplers, previews, LoRA and offloading work on it."""

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
from torch import Tensor

from ...jores.checkpoint import load_bundle
from ...jores.conditions import SEMANTIC_STRIDE, cut_features
from ...jores.config import DenoiserConfig, JoReSConfig
from ...jores.diffusion.schedule import NoiseSchedule
from ...jores.nets.denoiser import DenoisingUNet, velocity_for
from ...jores.tiling.tiler import Tiler
from ...jores.tiling.windows import Window, size_of
from .budget import denoiser_bytes, refinement_bytes
from .checks import check_counts, check_finite, check_inner_patches, check_pixels, check_schedule, expect
from .conds import CoarseMap, CoarseMaps
from .latents import PixelSpace
from .model_sampling import model_sampling
from .patchers import Adjusted
from .pictures import shown_size
from .windows import MEAN_KEY, TILE_KEY, TILED_KEY, tiler_of, window_pixels

CONDITION_KEY, SEMANTIC_KEY = "jores_condition", "jores_semantic"  # in the conditioning's dictionary
FOREIGN_KEYS = ("control", "gligen")  # of other models, in the same dictionary
OWN_LATENT = "connect the latent of 'Condition JoReS Diffusion'"
LoadedPatcher = getattr(comfy.model_patcher, "CoreModelPatcher", comfy.model_patcher.ModelPatcher)


class _OtherNetError(KeyError, ValueError):
    """What another model's UNet would have. Its text is a sentence, where KeyError's own would be in quotes."""

    def __str__(self) -> str:
        return self.args[0]


class _UNetConfig(dict):
    """Nodes that patch Stable Diffusion's UNet ask for its sizes here: they learn that this is another net."""

    def __missing__(self, key: str) -> Any:
        raise _OtherNetError(
            f"a JoReS model has no {key!r}: the node asks for it to patch Stable Diffusion's UNet, and this is another "
            "net: take the node out (FreeU or the like)"
        )

    def copy(self) -> _UNetConfig:
        return _UNetConfig(self)


class JoReSModelConfig(comfy.supported_models_base.BASE):
    unet_config: dict[str, Any] = {}
    unet_extra_config: dict[str, Any] = {}
    latent_format = PixelSpace
    # A dark picture at 5 % brightness loses a quarter of an 8-bit level to bfloat16, and is then brightened; the UNet
    # is small enough for float32. ComfyUI's --fp16-unet and --bf16-unet still override this.
    supported_inference_dtypes = [torch.float32]

    def inpaint_model(self) -> bool:
        return False


class NativeUNet(DenoisingUNet):
    """`DenoisingUNet` behind the host's calling convention.

    A picture too big for the memory is done in tiles, and what the net says of them is blended at every step: x0 is
    linear in it. So any stock sampler takes a picture of any size. `tiler` (H, W, batch) chooses the tile.
    """

    tiler: Callable[[tuple[int, int], int], Tiler] = staticmethod(lambda size, batch: Tiler())
    in_channels = out_channels = 3  # as stock nodes ask for them: of the latent, without what is concatenated to it

    def __init__(self, config: DenoiserConfig, *, dtype: torch.dtype, device: Any, operations: Any) -> None:
        super().__init__(config, operations=operations, device=device, dtype=dtype)
        self.dtype = dtype
        self.tilers: dict[Any, Tiler] = {}

    def begin(self) -> None:
        """A new sampling: what fits may have changed since the last."""
        self.tilers.clear()

    def tiler_for(self, key: Any, make: Callable[[], Tiler]) -> Tiler:
        """The same one at every step, so that memory runs out at one of them only."""
        if key not in self.tilers:
            self.tilers[key] = make()
        return self.tilers[key]

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
        """x (B, 10, H, W): x_t, then low, R' and L' from c_concat; timesteps (B,): sqrt(alpha_bar) by now."""
        check_inner_patches(transformer_options)
        size, told = size_of(x), transformer_options or {}
        if told.get(MEAN_KEY):
            x_t, _, reflectance, illumination = x.split((3, 3, 3, 1), 1)
            return velocity_for(reflectance * illumination * 2 - 1, x_t, timesteps).to(x)

        def work(window: Window) -> tuple[Tensor]:
            mm.throw_exception_if_processing_interrupted()
            x_t, low, reflectance, illumination = window.cut(x).split((3, 3, 3, 1), 1)
            features, semantics = cut_features(jores_features, window), jores_semantics
            if semantics is not None and window.size != size:
                semantics = window.sample(semantics, size, SEMANTIC_STRIDE)
            net = super(NativeUNet, self).forward
            return (net(x_t, timesteps, low, reflectance, illumination, features, semantics),)

        if told.get(TILED_KEY):
            return work(Window.whole(size))[0]
        tiler = self.tiler_for((size, len(x)), lambda: self.tiler(size, len(x)))
        return tiler.run(size, work)[0]


class JoReSDiffusion(comfy.model_base.BaseModel):
    def __init__(self, model_config: JoReSModelConfig, jores: JoReSConfig, device: Any = None) -> None:
        kind = (
            comfy.model_base.ModelType.V_PREDICTION
            if jores.schedule.prediction == "v"
            else comfy.model_base.ModelType.EPS
        )
        super().__init__(model_config, kind, device=device, unet_model=NativeUNet)
        self.jores, self.schedule = jores, NoiseSchedule(jores.schedule)
        self.diffusion_model.tiler = lambda size, batch: tiler_of(0, jores, size, batch)
        self.model_sampling = model_sampling(jores.schedule)
        self.noise_levels = self.schedule.alphas_cumprod.sqrt().float()

    def process_timestep(self, timestep: Tensor, **_kwargs: Any) -> Tensor:
        """The host's index 0..T-1 -> noise level sqrt(alpha_bar), the library's own to the last bit."""
        index = timestep.round().long().clamp(0, len(self.noise_levels) - 1)
        return self.noise_levels.to(timestep.device)[index]

    def noise_level(self, sigma: Tensor, sampling: Any = None) -> Tensor:
        """While nothing is sampled, give the MODEL's own `sampling`: the one in here may be another MODEL's patch."""
        return self.process_timestep((sampling or self.model_sampling).timestep(sigma).float())

    def extra_conds(self, **kwargs: Any) -> dict[str, comfy.conds.CONDRegular]:
        adjusted, noise = kwargs.get(CONDITION_KEY), kwargs["noise"]
        if adjusted is None:
            raise ValueError(
                "The JoReS model was given a conditioning that carries no picture (a text prompt?). "
                "Connect positive and negative of 'Condition JoReS Diffusion'."
            )
        self._check(adjusted, noise, kwargs)
        self.diffusion_model.begin()
        condition, (height, width) = adjusted.condition, adjusted.condition.size
        maps = torch.cat([adjusted.low, condition.reflectance, condition.illumination], 1)  # (B, 7, H, W)
        # What is sampled in tiles waits where it is, and goes to the device tile by tile.
        device = maps.device if kwargs.get(TILE_KEY) else kwargs["device"]
        padded = (math.ceil(height / 16) * 16, math.ceil(width / 16) * 16)
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
        """Bytes of the UNet, or of RNet if that needs more: stock samplers run it in between (see sampler.py)."""
        if len(input_shape) != 4 or min(input_shape) < 1:  # it is the first to be asked when a sampling begins
            check_pixels(torch.empty(tuple(input_shape), device="meta"), "The JoReS model's latent", OWN_LATENT)
        batch, size = input_shape[0], (input_shape[2], input_shape[3])
        pixels = window_pixels(tiler_of(0, self.jores, size, batch), size)
        if tiles := (cond_shapes or {}).get(TILE_KEY):
            pixels = min(pixels, max(math.prod(shape[2:]) for shape in tiles))
        pixels *= batch
        return max(denoiser_bytes(self.jores.denoiser, pixels), refinement_bytes(self.jores.refinement, pixels))

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
                raise ValueError(f"{node} takes no {name} of other models (ControlNet, GLIGEN): take that node out")
        check_same_model(self.jores.denoiser.feature_widths, adjusted, node)
        check_counts(len(adjusted.low), len(noise), node)
        if (prior := options.get(SEMANTIC_KEY)) is not None:
            check_counts(len(prior.probabilities), len(noise), node)


def check_same_model(feature_widths: tuple[int, ...], adjusted: Adjusted, what: str) -> None:
    given = tuple(f.shape[1] for f in adjusted.condition.features)
    if given != tuple(feature_widths):
        raise ValueError(
            f"{what} expects features of {tuple(feature_widths)} channels, the condition has {given}: it was made "
            "by another JoReS model. Use one 'Load JoReS Model' for the whole graph."
        )


def load_native(path: Path, disable_dynamic: bool = False) -> comfy.model_patcher.ModelPatcher:
    """MODEL of a bundle's UNet. Raises CheckpointError.

    Newer hosts keep this function with the MODEL and call it again for a copy of its own: with `disable_dynamic` for
    nodes that cannot work on weights which come and go (TorchCompileModel, hooks), without for another device.
    """
    nets = load_bundle(path, parts=("denoiser",), operations=comfy.ops.manual_cast)
    weights = nets.unet.state_dict()
    load, offload = mm.get_torch_device(), mm.unet_offload_device()
    config = JoReSModelConfig(_UNetConfig(config=nets.config.denoiser))
    count = sum(w.numel() for w in weights.values())
    dtype = mm.unet_dtype(load, count, config.supported_inference_dtypes)
    config.set_inference_dtype(dtype, mm.unet_manual_cast(dtype, load, config.supported_inference_dtypes))
    model = JoReSDiffusion(config, nets.config, device=offload)
    model.diffusion_model.load_state_dict(weights)
    patcher_class = comfy.model_patcher.ModelPatcher if disable_dynamic else LoadedPatcher
    patcher = patcher_class(model, load_device=load, offload_device=offload)
    patcher.cached_patcher_init = (load_native, (path,))
    return patcher


def jores_model(model: ModelPatcher, node: str) -> JoReSDiffusion:
    """What the MODEL holds. Raises ValueError for other models, and for one whose noise schedule was replaced.

    It is shared by all clones of the MODEL and may still carry what another one had patched into it: what can be
    patched is read from the MODEL, by get_model_object.
    """
    wanted = "connect the model of 'Load JoReS Model'"
    expect(model, ModelPatcher, node, "model", wanted)
    if not isinstance(model.model, JoReSDiffusion):
        raise ValueError(f"{node}: model is a {type(model.model).__name__}, not a JoReS model: {wanted}")
    check_schedule(model.get_model_object("model_sampling"), model.model.jores.schedule, node)
    return model.model
