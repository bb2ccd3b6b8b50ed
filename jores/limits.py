"""Bounds, choices and defaults of settings, which the command line, the nodes and the library read here.

It imports nothing, so that --help is fast.
"""

MIN_TILE = 64  # pixels
MOST_STOPS = 2
"""Largest absolute value of `brightness` in EV."""

STEPS = 4  # of the diffusion, by default
TEXTURE = 1.0  # by default
QUALITIES = ("draft", "standard", "fine")
QUALITY = "standard"  # by default
DRAFT_SIZE = 1024  # pixels, longer side
FINE_STEPS = 8
"""More steps do not improve the results."""

PRECISIONS = ("auto", "float32", "bfloat16")
