"""Free memory that is really there, so that no run pays for what the one before it did not use.

A virtual machine may give free memory back to its host, page by page, and then the first use of each page costs more
than what is done with it. What is there when a run begins is what the last one had, so who comes after somebody with
few bytes would be measured with less of it: up to a quarter of a pull's wall. Before every run as much memory as it
fills is used and freed; who asks next is given what was freed last.
"""

from __future__ import annotations

import mmap
from pathlib import Path

_FLAGS = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE


def use_and_free(size: int) -> None:
    """Use ``size`` bytes of memory for a moment; half of what is available at most, so that no cache has to go."""
    size = min(size, _available() // 2)
    if size >= mmap.PAGESIZE:
        mmap.mmap(-1, size, flags=_FLAGS).close()


def _available() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) << 10
    return 0
