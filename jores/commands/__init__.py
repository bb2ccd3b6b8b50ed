"""The commands of `python -m jores`, one a file; `cli` parses for them."""
