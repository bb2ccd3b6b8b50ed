"""Converts the weights that Google published for DeepLabV3+ on ADE20K to the folder of the shipped segmenter.

    python -m jores.training.pretrained ade20k_teacher_fp16.safetensors ade20k_labels.txt FOLDER

Nothing is trained. The input file has PyTorch's names, and batch normalisations already folded into convolutions.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from safetensors.torch import load_file

from ..files.saving import write_atomically

SIDE = 416
"""Working size in pixels, a multiple of 32. The net was trained at 513; of noisy pictures it recognises more at 416."""

NOTICE = """Semantic segmenter for ADE20K: DeepLabV3+ on MobileNetV2 (deeplabv3_mnv2_ade20k_train_2018_12_03)

Copyright 2018 The TensorFlow Authors and Google Inc. Licensed under the Apache License, Version 2.0 (see LICENSE).

Source: the model zoo of TensorFlow's research models, research/deeplab.

Changes made: the weights were taken out of the frozen graph, the batch normalisations folded into the convolutions, all
of it rounded to half precision, named for PyTorch and put into a Hugging Face folder. They were not trained further.

Trained by its authors on ADE20K (Zhou et al., CVPR 2017), whose pictures are for non-commercial research and education,
from ImageNet's weights of MobileNetV2.
"""


def read_labels(path: Path) -> list[str]:
    """Labels from a file with one line "INDEX NAME" per class, "others" first."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line.split(None, 1)[1].strip() for line in lines if line.strip()]


def write_folder(weights: Path, labels: Path, folder: Path) -> None:
    """Writes config.json, model.safetensors (float16), preprocessor_config.json and NOTICE into a new folder.

    Raises:
        ValueError: the folder exists already, or the weights are not those of DeepLabV3+ on MobileNetV2.
    """
    from ..nets.deeplab_folder import DeepLabPlusConfig, DeepLabPlusForSemanticSegmentation

    if folder.exists():
        raise ValueError(f"{folder} exists already: name a new folder")
    names = dict(enumerate(read_labels(labels)))
    config = DeepLabPlusConfig(id2label=names, label2id={name: i for i, name in names.items()})
    model = DeepLabPlusForSemanticSegmentation(config)
    try:
        model.net.load_state_dict(load_file(weights))
    except RuntimeError as error:
        raise ValueError(f"{weights}: these are not the weights of DeepLabV3+ on MobileNetV2 ({error})") from error
    new = folder.with_name(f"{folder.name}.new")
    model.half().save_pretrained(new, safe_serialization=True)
    settings = {
        "do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": {"height": SIDE, "width": SIDE},
    }  # fmt: skip
    write_atomically(new / "preprocessor_config.json", (json.dumps(settings, indent=1) + "\n").encode())
    write_atomically(new / "NOTICE", NOTICE.encode())
    os.replace(new, folder)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("labels", type=Path, help="one label a line, 'INDEX NAME', 'others' first")
    parser.add_argument("folder", type=Path, help="where the Hugging Face folder goes; it must not exist yet")
    args = parser.parse_args(arguments)
    try:
        write_folder(args.weights, args.labels, args.folder)
    except (OSError, ValueError) as error:
        parser.exit(2, f"{error}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
