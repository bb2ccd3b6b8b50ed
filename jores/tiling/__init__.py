"""Windows that cover a picture of any size, and the memory that decides on theirs. Knows nothing of diffusion."""
