"""Sizes of the nets and the noise schedule. Every bundle stores its config in the header."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any

SEMANTIC_CLASSES = 150
FEATURE_LEVELS = 3  # ANet's F^k, at strides 4, 8 and 16


@dataclass(frozen=True)
class DecompositionConfig:
    """DNet: a small U-Net like KinD's decomposition net, on a picture folded by space-to-depth 2.

    `deband`: the steps of 8 bits in deep shadows are smoothed first; not by bundles of release 0.1.
    """

    width: int = 24
    blocks: int = 2
    deband: bool = False


@dataclass(frozen=True)
class AdjustmentConfig:
    """ANet: a U-Net of residual blocks. `widths` are the channels at strides 2, 4, 8 and 16.

    `light_bins` is the number of brightness bins of the bilateral gain grid, with which gains follow edges; the nets
    also get the target `shadow_share` as input. 0: gains do not depend on the brightness, as in release 0.1.
    `light_experts` is the number of experts that propose the light; 1: one head for all pictures. `scene` is the number
    of values that tell them what the picture shows (`nets.scene`); 0: they see its brightness alone.
    """

    widths: tuple[int, ...] = (48, 96, 160, 256)
    encoder: tuple[int, ...] = (2, 2, 2, 3)
    decoder: tuple[int, ...] = (3, 2, 2)
    exposure_width: int = 1024
    grid_width: int = 64
    light_bins: int = 0
    light_experts: int = 1
    scene: int = 0


@dataclass(frozen=True)
class DenoiserConfig:
    """The diffusion UNet.

    Attributes:
        fold: space-to-depth factor of the input.
        widths, blocks: channels and residual blocks per level; level 0 is the finest.
        retinex_levels, semantic_levels: levels with attention to that prior, in the encoder and, if `attention_upwards`
            is set, in the decoder, too.
        feature_widths: channels of ANet's F^k.
        picture_std, residual_scale: preconditioning of a "v" prediction around R' * L' (see the net); 0 for none.
        detail_std: above 0 the net is a flow to the fine detail that R' * L' lacks (see the net). It is the standard
            deviation of that detail, for pictures in [-1, 1].
    """

    fold: int = 4
    widths: tuple[int, ...] = (64, 128, 192)
    blocks: tuple[int, ...] = (2, 2, 2)
    heads: int = 4
    embedding: int = 256
    semantic_width: int = 32
    semantic_levels: tuple[int, ...] = (1, 2)
    retinex_levels: tuple[int, ...] = (0, 1, 2, 3, 4)
    attention_upwards: bool = True
    feature_widths: tuple[int, ...] = (96, 160, 256)
    picture_std: float = 0.03
    residual_scale: float = 0.15
    detail_std: float = 0.0


@dataclass(frozen=True)
class RefinementConfig:
    """RNet = FRCM (features) + IRCM (image), on x0 folded by space-to-depth `fold`."""

    fold: int = 4
    widths: tuple[int, ...] = (64, 96)
    blocks: int = 1
    embedding: int = 128
    feature_widths: tuple[int, ...] = (96, 160, 256)


@dataclass(frozen=True)
class ScheduleConfig:
    """Noise schedule. `zero_terminal_snr` rescales it so that the last step is pure noise (needs prediction "v").

    `detail_std` above 0 replaces the betas: the time steps are then evenly spaced in the time of a flow from noise to
    detail of this standard deviation (see `diffusion.schedule`). It must equal the `detail_std` of the UNet. Both hold
    it, because the UNet and the schedule are each made from their own part of a bundle's header alone.

    Raises:
        ValueError: the fields contradict each other.
    """

    timesteps: int = 1000
    beta_start: float = 1e-4
    beta_end: float = 2e-2
    prediction: str = "v"
    zero_terminal_snr: bool = True
    detail_std: float = 0.0

    def __post_init__(self) -> None:
        if self.prediction not in ("v", "eps"):
            raise ValueError(f"prediction must be 'v' or 'eps', not {self.prediction!r}")
        if self.zero_terminal_snr and self.prediction == "eps":
            raise ValueError("zero_terminal_snr needs prediction 'v': eps says nothing about x0 at zero signal")
        if self.detail_std and not self.zero_terminal_snr:
            raise ValueError("detail_std needs zero_terminal_snr: a flow starts at pure noise")


@dataclass(frozen=True)
class JoReSConfig:
    """The config of all nets. Raises ValueError for parts that do not fit together."""

    name: str = "compact"
    decomposition: DecompositionConfig = field(default_factory=DecompositionConfig)
    adjustment: AdjustmentConfig = field(default_factory=AdjustmentConfig)
    denoiser: DenoiserConfig = field(default_factory=DenoiserConfig)
    refinement: RefinementConfig = field(default_factory=RefinementConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)

    def __post_init__(self) -> None:
        given = self.adjustment.widths[1:]
        for part in (self.denoiser, self.refinement):
            if len(given) != FEATURE_LEVELS or tuple(part.feature_widths) != tuple(given):
                raise ValueError(f"feature_widths {part.feature_widths} must be ANet's lower widths {given}")
        if self.denoiser.picture_std and self.schedule.prediction != "v":
            raise ValueError("picture_std is defined for prediction 'v' only")
        if self.denoiser.detail_std != self.schedule.detail_std:
            raise ValueError("denoiser and schedule must have the same detail_std")

    def to_dict(self) -> dict[str, Any]:
        """All fields as nested dictionaries, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> JoReSConfig:
        """Inverse of `to_dict`, also after JSON. Raises ValueError for unknown or malformed entries."""
        try:
            parts = {f.name: values[f.name] for f in fields(cls) if f.name in values}
            for name, part_type in _PARTS.items():
                if name in parts:
                    entries = {k: tuple(v) if isinstance(v, list) else v for k, v in parts[name].items()}
                    parts[name] = part_type(**entries)
            return cls(**parts)
        except (TypeError, AttributeError) as error:
            raise ValueError(f"not a JoReS config: {error}") from error


_PARTS = {
    "decomposition": DecompositionConfig,
    "adjustment": AdjustmentConfig,
    "denoiser": DenoiserConfig,
    "refinement": RefinementConfig,
    "schedule": ScheduleConfig,
}

# "texture": the shipped model. Its UNet samples the fine detail that R' * L' lacks. It works at half resolution, with
# attention only where that is cheap.
# "compact": the same DNet and ANet, with the UNet of release 0.1, which corrects R' * L'.
# "paper": as close to PyDiff, the closest predecessor of the paper, as accessible text allows: a wide eps-prediction
# UNet at full resolution, and the linear schedule 1e-6..1e-2 over 2000 steps. Users train it themselves, on GPUs.
PRESETS: dict[str, JoReSConfig] = {
    "compact": JoReSConfig(
        decomposition=DecompositionConfig(deband=True), adjustment=AdjustmentConfig(light_bins=8, light_experts=2)
    ),
    "paper": JoReSConfig(
        name="paper",
        decomposition=DecompositionConfig(width=32, blocks=3, deband=True),
        adjustment=AdjustmentConfig(widths=(64, 128, 256, 384), encoder=(2, 2, 4, 4), decoder=(4, 2, 2), light_bins=8),
        denoiser=DenoiserConfig(
            fold=1,
            widths=(64, 128, 256, 512, 512),
            blocks=(2, 2, 2, 2, 2),
            semantic_levels=(1, 2, 3, 4),
            semantic_width=64,
            feature_widths=(128, 256, 384),
            picture_std=0.0,
        ),
        refinement=RefinementConfig(fold=2, widths=(64, 128), blocks=2, feature_widths=(128, 256, 384)),
        schedule=ScheduleConfig(
            timesteps=2000, beta_start=1e-6, beta_end=1e-2, prediction="eps", zero_terminal_snr=False
        ),
    ),
    "texture": JoReSConfig(
        name="texture",
        decomposition=DecompositionConfig(deband=True),
        adjustment=AdjustmentConfig(light_bins=8, light_experts=3, scene=8),
        denoiser=DenoiserConfig(
            fold=2,
            widths=(32, 64, 128),
            semantic_levels=(2,),
            retinex_levels=(1, 2),
            attention_upwards=False,
            picture_std=0.0,
            detail_std=0.12,
        ),
        schedule=ScheduleConfig(detail_std=0.12),
    ),
}
