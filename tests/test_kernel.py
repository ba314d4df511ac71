"""What ``kernel`` asks of the C library and not of the kernel."""

from __future__ import annotations

import subprocess
import sys

import pytest

CODE = """
import re, sys
from asyncpull.kernel import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory(64 << 20)
block = bytes(20 << 20)
begin, end = re.search(r"^(\\w+)-(\\w+) .*\\[heap\\]$", open("/proc/self/maps").read(), re.M).groups()
print(int(begin, 16) <= id(block) < int(end, 16))
"""


@pytest.mark.parametrize(("how", "is_in_heap"), [("usual", "False"), ("kept", "True")])
def test_large_blocks_are_not_mapped_anew(how: str, is_in_heap: str) -> None:
    done = subprocess.run([sys.executable, "-c", CODE, how], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == is_in_heap
