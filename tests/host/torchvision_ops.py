"""Let torchvision import where its compiled operators do not load (its wheel is for CUDA, the installed torch is not).

torchvision registers shapes for operators that its library would have defined, and fails when they do not exist.
Declaring the two names just before it is imported is enough for transforms and models; calling the operators
themselves still fails. `dev.py setup` copies this file into the environment, only where it is needed.
"""

from __future__ import annotations

import importlib.abc
import sys


class _DeclareOperators(importlib.abc.MetaPathFinder):
    """Waits for the first `import torchvision`, so that other programs of the environment do not load torch."""

    def find_spec(self, name, path=None, target=None):
        if name == "torchvision":
            sys.meta_path.remove(self)
            import torch

            library = torch.library.Library("torchvision", "DEF")
            for operator in ("nms", "qnms"):
                library.define(operator + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            self.__class__.library = library  # the declarations live as long as this object
        return None


sys.meta_path.insert(0, _DeclareOperators())
