"""The small sensor that took the dark pictures and clips of workflows and benchmarks (workflows/README.md)."""

from __future__ import annotations

from jores.training.darkening import Darkening

SENSOR = Darkening(1 / 50, read_noise=0.0008, shot_noise=0.003, cast=(0.95, 1.0, 1.06))
