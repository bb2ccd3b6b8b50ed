"""Camera raw, developed by rawpy (LibRaw), an optional dependency: 16 bits, from the sensor's linear values.

A dark raw file holds much more detail than the camera's JPEG of the same scene.
"""

from __future__ import annotations

import importlib.util
import io

import numpy as np

from ..imaging.srgb import encode_srgb

SUFFIXES = (
    ".3fr", ".arw", ".cr2", ".cr3", ".dcr", ".dng", ".erf", ".fff", ".gpr", ".iiq", ".kdc", ".mef", ".mos", ".mrw",
    ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f",
)  # fmt: skip
WANTED = "camera raw needs rawpy: pip install rawpy"


def available() -> bool:
    """Whether rawpy is installed."""
    return importlib.util.find_spec("rawpy") is not None


def develop(data: bytes) -> np.ndarray:
    """uint16 levels (H, W, 3) in sRGB, upright, with the camera's white balance and without brightening.

    Raises:
        ValueError: rawpy is missing, or LibRaw cannot read the file.
    """
    try:
        import rawpy
    except ImportError as error:
        raise ValueError(WANTED) from error
    try:
        with rawpy.imread(io.BytesIO(data)) as raw:
            linear = raw.postprocess(
                output_bps=16, gamma=(1, 1), no_auto_bright=True, use_camera_wb=True,
                output_color=rawpy.ColorSpace.sRGB,
            )  # fmt: skip
    except rawpy.LibRawError as error:
        raise ValueError(f"LibRaw cannot develop it: {error}") from error
    curve = np.rint(encode_srgb(np.arange(65536) / 65535) * 65535).astype(np.uint16)
    return curve[linear]
