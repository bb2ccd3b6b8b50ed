"""What adapts the library to ComfyUI: memory, sampling, progress, pictures, folders. No node classes."""
