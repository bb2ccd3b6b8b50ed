"""Adapts the library to ComfyUI: memory, sampling, progress, pictures, folders. Holds no node classes."""
