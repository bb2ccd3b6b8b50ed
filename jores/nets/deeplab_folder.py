"""DeepLabV3+ as a model of transformers: a Hugging Face folder with "jores-deeplab-plus" in its config loads like any
other. Imported only to load or write one, because transformers takes its time."""

from __future__ import annotations

from torch import Tensor
from transformers import AutoConfig, AutoModelForSemanticSegmentation, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SemanticSegmenterOutput

from .deeplab import DeepLabPlus


class DeepLabPlusConfig(PretrainedConfig):
    """Classes and their names; the rest of the net is fixed."""

    model_type = "jores-deeplab-plus"


class DeepLabPlusForSemanticSegmentation(PreTrainedModel):
    """pixel_values (B, 3, H, W) in [-1, 1], sides in multiples of 8 -> logits (B, classes, H / 4, W / 4)."""

    config_class = DeepLabPlusConfig
    base_model_prefix = "net"
    main_input_name = "pixel_values"

    def __init__(self, config: DeepLabPlusConfig) -> None:
        super().__init__(config)
        self.net = DeepLabPlus(len(config.id2label or {}))
        self.post_init()

    def forward(self, pixel_values: Tensor) -> SemanticSegmenterOutput:
        return SemanticSegmenterOutput(logits=self.net(pixel_values))


def register() -> None:
    """Makes the kind known to transformers' Auto classes; a second call changes nothing."""
    AutoConfig.register(DeepLabPlusConfig.model_type, DeepLabPlusConfig, exist_ok=True)
    AutoModelForSemanticSegmentation.register(DeepLabPlusConfig, DeepLabPlusForSemanticSegmentation, exist_ok=True)
