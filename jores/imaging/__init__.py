"""Pictures around the networks: sizes, exposure, tiles and files. Tensors are (B, C, H, W) in [0, 1]."""
