"""The noise schedule and the few-step sampler."""
