"""The setting of the C library's memory, in processes of their own, because it cannot be taken back."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

from jores.heap import keep_freed_memory

ROOT = Path(__file__).parents[1]
COUNT_PAGES = """
import resource, sys, torch
from jores import pipeline
from jores.checkpoint import SHIPPED_WEIGHTS, load_bundle
from jores.heap import keep_freed_memory
from jores.options import SampleOptions
if sys.argv[1] == "keep" and not keep_freed_memory():
    sys.exit("no setting was made")
nets, low = load_bundle(SHIPPED_WEIGHTS), torch.rand(1, 3, 512, 640) * 0.1
for _ in range(3):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    pipeline.enhance(low, nets, None, SampleOptions(steps=1))
sys.stdout.write(str(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before))
"""


def new_pages(how: str) -> int:
    """How many new pages the third enhancement of a picture takes in a process of its own."""
    command = [sys.executable, "-c", COUNT_PAGES, how]
    return int(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has the setting")
def test_an_enhancement_takes_a_fraction_of_the_pages() -> None:
    assert new_pages("keep") < new_pages("give back") / 4


def test_other_systems_are_left_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    assert not keep_freed_memory()
