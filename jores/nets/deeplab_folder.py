"""DeepLabV3+ as a model of transformers, for Hugging Face folders whose config has the type "jores-deeplab-plus".

Imported only when such a folder is written or trained, because importing transformers is slow; `deeplab` has what it
takes to use one.
"""

from __future__ import annotations

from torch import Tensor
from transformers import AutoConfig, AutoModelForSemanticSegmentation, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SemanticSegmenterOutput

from .deeplab import MODEL_TYPE, DeepLabPlus


class DeepLabPlusConfig(PretrainedConfig):
    """The class names; the architecture is fixed."""

    model_type = MODEL_TYPE


class DeepLabPlusForSemanticSegmentation(PreTrainedModel):
    """pixel_values (B, 3, H, W) in [-1, 1], H and W multiples of 8 -> logits (B, classes, H / 4, W / 4)."""

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
    """Registers the model with transformers' Auto classes; further calls have no effect."""
    AutoConfig.register(DeepLabPlusConfig.model_type, DeepLabPlusConfig, exist_ok=True)
    AutoModelForSemanticSegmentation.register(DeepLabPlusConfig, DeepLabPlusForSemanticSegmentation, exist_ok=True)
