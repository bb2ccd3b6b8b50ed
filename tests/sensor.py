"""The small sensor that took the dark pictures and clips of workflows and benchmarks (workflows/README.md)."""

from __future__ import annotations

import torch

from jores.training.darkening import Darkening

SENSOR_SEED = 1000  # with one seed for both, the sensor's noise would be the noise that sampling starts from
SENSOR = Darkening(1 / 50, read_noise=0.0008, shot_noise=0.003, cast=(0.95, 1.0, 1.06))


def sensor(number: int = 0) -> torch.Generator:
    """Draws the sensor's noise of photograph `number`."""
    return torch.Generator().manual_seed(SENSOR_SEED + number)
