"""Functions on pictures: sizes, exposure, filters, compositing, clips. Tensors are (B, C, H, W) in [0, 1]."""
