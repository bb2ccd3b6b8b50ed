"""JoReS-Diff: joint Retinex and semantic priors in a diffusion model for low-light image enhancement.

A re-implementation of Wu et al., ACM MM 2024 (arXiv 2312.12826) from its abstract, its figure captions and the
code of its predecessors. This package does not depend on ComfyUI: pictures are (B, C, H, W) float tensors in [0, 1],
progress is reported by a callback, and randomness comes from an explicit seed. `jores.pipeline.enhance` runs the
complete method with the nets of `jores.checkpoint.load_bundle` and `jores.semantics.load_segmenter`,
`jores.video.enhance_frames` over the frames of a clip; `jores.options` has their settings. METHOD.md beside this file
has its formulas, and says of each whether it is the paper's, an ancestor's, inferred or ours.
"""
