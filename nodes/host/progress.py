"""Progress, previews and cancel."""

from __future__ import annotations

import comfy.model_management as mm
import comfy.utils
import latent_preview
from torch import Tensor

from .latents import PixelSpace


class StepProgress:
    """The node's progress bar over all steps of all frames, with x0 as live preview where the host shows previews."""

    def __init__(self, total: int) -> None:
        self.bar, self.total, self.done, self.before = comfy.utils.ProgressBar(total), total, 0, 0
        self.previewer = latent_preview.get_previewer(mm.get_torch_device(), PixelSpace())

    def __call__(self, step: float = 1, steps: int = 1, x0: Tensor | None = None) -> None:
        """A library callback; raises the host's exception when the user cancelled. Picture after picture."""
        mm.throw_exception_if_processing_interrupted()
        self.done = self.before + step
        if step == steps:
            self.before += steps
        preview = None
        if self.previewer is not None and x0 is not None:
            preview = self.previewer.decode_latent_to_preview_image("JPEG", x0.float())
        self.bar.update_absolute(self.done, self.total, preview)
