"""From a host that has run nothing yet to the first enhanced picture, with the mouse alone.

In a file of its own, because Playwright runs once at a time, and the other browser tests share a page.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from host.browser import open_editor
from host.refresh_workflows import TITLES
from host.server import PACK_FOLDER, start_server
from tests.gallery import PREVIEWS

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def test_from_a_fresh_clone_to_the_first_picture(
    comfy_tree: Path, tmp_path: Path, browser: str, capsys: pytest.CaptureFixture[str]
):
    """A host that has run nothing yet, and the mouse alone: prints clicks and seconds, the host's start included."""
    title, clicks, start = TITLES["enhance_low_light"], 0, time.monotonic()
    with start_server(tmp_path, tree=comfy_tree) as server, open_editor(server.url, browser) as editor:
        ready = time.monotonic() - start
        for words in ("Templates", PACK_FOLDER, title, "Run"):
            editor.click(words)
            clicks += 1
        editor.wait_for_pictures(PREVIEWS)
        whole = time.monotonic() - start
        assert editor.problems() == [] and list((server.base / "output" / "JoReS").glob("enhanced_*.png"))
    with capsys.disabled():
        seconds = f"{whole:.0f} s, of which {ready:.0f} s are ComfyUI's start and page"
        # Not stdout: pytest's processes have none.
        sys.stderr.write(f"\nfirst picture: {clicks} clicks, {seconds}\n")
    assert clicks <= 4
