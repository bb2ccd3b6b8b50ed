"""Folders of Hugging Face models of toy size, for the tests of segmenters."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import SegformerConfig, SegformerForSemanticSegmentation

SMALL = {
    "depths": [1] * 4, "hidden_sizes": [8, 8, 16, 16], "num_attention_heads": [1, 1, 2, 2], "decoder_hidden_size": 16,
}  # fmt: skip


def write_model(folder: Path, names: tuple[str, ...], kind: type = SegformerForSemanticSegmentation) -> Path:
    torch.manual_seed(0)
    labels = dict(enumerate(names))
    config = SegformerConfig(id2label=labels, label2id={v: k for k, v in labels.items()}, **SMALL)
    kind(config).save_pretrained(folder)
    return folder
