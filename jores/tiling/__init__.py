"""Overlapping windows that cover a picture, and the choice of their size by memory. Independent of diffusion."""
