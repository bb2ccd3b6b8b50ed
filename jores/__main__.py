"""`python -m jores`, or `python path/to/jores`: see `jores.cli`."""

from __future__ import annotations

import os
import sys

if not __package__:  # run as a folder: the one above, where `jores` is found, may not be on sys.path
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from jores.cli import main  # noqa: E402  (found through the line above)

sys.exit(main())
