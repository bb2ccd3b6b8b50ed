"""The ComfyUI nodes: schemas, conversion BHWC <-> BCHW, memory, progress, errors. All mathematics is in `jores`."""
