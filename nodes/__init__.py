"""The host side: schemas, BHWC <-> BCHW, memory, progress, errors. All maths lives in `jores`."""
