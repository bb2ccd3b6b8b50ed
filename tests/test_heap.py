"""What a process on the command line does with memory that it frees."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MIB = 1 << 20
FREED = """
import ctypes, os, runpy, sys

def held():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

if sys.argv.pop(1) == "jores":
    sys.argv[1:] = ["--help"]
    try:
        runpy.run_module("jores", run_name="__main__")
    except SystemExit:
        pass
libc = ctypes.CDLL("libc.so.6")
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
size = 24 << 20
block = libc.malloc(ctypes.c_size_t(size))
ctypes.memset(block, 1, size)
full = held()
libc.free(block)
print(full - held(), file=sys.stderr)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc gives freed memory back at once")
@pytest.mark.parametrize("process", ["jores", "another"])
def test_the_command_line_keeps_freed_memory_and_no_other_process_does(process):
    command = [sys.executable, "-c", FREED, process]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=120)
    given_back = int(done.stderr)
    if process == "jores":
        assert given_back < MIB
    else:
        assert given_back > 20 * MIB
