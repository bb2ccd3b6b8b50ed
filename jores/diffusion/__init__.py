"""Noise schedule and few-step sampler."""
