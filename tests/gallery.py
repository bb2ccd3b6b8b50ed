"""What the tests of the example graphs in the front end share."""

from __future__ import annotations

import os

from host.server import PACK

KINDS = os.environ.get("GALLERY_NODES", "classic").split()
"""Which nodes are drawn: classic, or modern, the front end's Nodes 2.0; `dev.py test --hosts` asks for both."""
BLUEPRINTS = sorted((PACK / "subgraphs").glob("*.json"))
PREVIEWS = ("JoReSEnhance", "JoReSCompare", "PreviewImage", "MaskPreview", "SaveImage", "SaveVideo")
QUICK = {"steps": 1, "working_size": 96, "semantic": False}
"""Widgets in the front end, where previews have the size of the picture all the same. What is shipped runs over the
interface, and as it is where screenshots are asked for."""
