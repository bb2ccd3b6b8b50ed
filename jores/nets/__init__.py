"""The networks. Every one takes `operations=` (default torch.nn), so that a host can bring its own layers."""
