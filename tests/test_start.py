"""The start: what is imported before the first picture, and the shipped segmenter read without transformers."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from jores.checkpoint import SHIPPED_SEGMENTER
from jores.nets.segmentation import SegmenterError
from jores.semantics import load_segmenter, trainable_model

ROOT = Path(__file__).resolve().parents[1]


def test_the_shipped_segmenter_needs_no_transformers_and_is_the_same_with_it():
    shipped = load_segmenter(SHIPPED_SEGMENTER)
    program = (
        "import sys; from jores.commands import enhance, enhancer; enhancer.load_bundle(enhancer.SHIPPED_WEIGHTS)\n"
        "enhancer.load_segmenter(enhancer.SHIPPED_SEGMENTER)\n"
        "sys.exit(str([name for name in ('transformers', 'scipy') if name in sys.modules]))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stderr.strip() == "[]"  # seconds before the first picture
    trainable, seen = trainable_model(SHIPPED_SEGMENTER), torch.rand(1, 3, 64, 96) * 2 - 1
    assert list(trainable.state_dict()) == list(shipped.model.state_dict())
    assert trainable.config.id2label == shipped.model.config.id2label
    with torch.inference_mode():
        assert torch.equal(trainable(pixel_values=seen).logits, shipped.model(pixel_values=seen).logits)


@pytest.mark.parametrize(
    "damage, reason",
    [
        ({"id2label": {"0": "wall"}}, "size mismatch"),
        ({"id2label": None}, "cannot be loaded"),
        ({"id2label": {str(i + 1): f"class {i}" for i in range(151)}}, "cannot segment a picture"),
    ],
)
def test_a_damaged_folder_like_the_shipped_one_is_named(tmp_path, damage, reason):
    folder = tmp_path / "my model"
    shutil.copytree(SHIPPED_SEGMENTER, folder)
    config = json.loads((folder / "config.json").read_text("utf-8")) | damage
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    with pytest.raises(SegmenterError, match=f"(?s)my model.*{reason}"):
        load_segmenter(folder)
