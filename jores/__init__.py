"""JoReS-Diff: joint Retinex and semantic priors in a diffusion model for low-light image enhancement.

A re-implementation of Wu et al., ACM MM 2024 (arXiv 2312.12826) from its abstract, its figure captions and the
code of its ancestors. This package knows nothing of ComfyUI: tensors are (B, C, H, W) floats in [0, 1], progress is
a callback, randomness an explicit seed. `jores.pipeline.enhance` is the whole method.
"""

__version__ = "0.1.0"
