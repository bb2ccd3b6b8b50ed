"""`python -m jores`: see `jores.cli`."""

from __future__ import annotations

import sys

from .cli import main
from .heap import keep_freed_memory

keep_freed_memory()
sys.exit(main())
