"""`python -m jores`, or `python path/to/jores`: see `jores.cli`."""

from __future__ import annotations

import os
import sys

if not __package__:  # run as a folder: that is on sys.path then, where its statistics.py hides Python's
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [os.path.dirname(here), *(path for path in sys.path if os.path.abspath(path) != here)]

from jores.cli import main  # noqa: E402  (found through the line above)

sys.exit(main())
