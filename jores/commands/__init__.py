"""The commands of `python -m jores`, one per file; `jores.cli` parses their arguments."""
