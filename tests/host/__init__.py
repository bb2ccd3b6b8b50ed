"""A real ComfyUI for the tests and for `dev.py`: start it, talk to it, stop it. Standard library only."""
