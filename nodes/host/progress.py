"""Progress bar, previews and cancellation."""

from __future__ import annotations

import comfy.model_management as mm
import comfy.utils
import latent_preview
from torch import Tensor

from .latents import PixelSpace


class StepProgress:
    """Progress bar of a node over `total` steps of all frames, with previews of x0 if the host shows any."""

    def __init__(self, total: int) -> None:
        self.bar, self.total, self.done, self.before = comfy.utils.ProgressBar(total), total, 0, 0
        self.previewer = latent_preview.get_previewer(mm.get_torch_device(), PixelSpace())

    def __call__(self, step: float = 1, steps: int = 1, x0: Tensor | None = None) -> None:
        """Callback of the library, for one picture after the other. Raises the host's exception on cancellation."""
        mm.throw_exception_if_processing_interrupted()
        self.done = self.before + step
        if step == steps:
            self.before += steps
        preview = None
        if self.previewer is not None and x0 is not None:
            preview = self.previewer.decode_latent_to_preview_image("JPEG", x0.float())
        self.bar.update_absolute(self.done, self.total, preview)
