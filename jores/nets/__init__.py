"""The networks. Each takes `operations=` (default torch.nn), so that a host can use its own layers."""
