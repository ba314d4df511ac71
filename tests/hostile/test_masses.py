"""Layers of nothing but headers: how much memory they take, as the kernel counted it for a process of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.command import PROJECT

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.root

FULL = os.environ.get("ASYNCPULL_TEST_FULL") == "1"

APPLY = """
import sys
from pathlib import Path
from asyncpull.extract.apply import ApplyOptions, apply_layer
from asyncpull.tree.marks import Marks
from tests.support.tar_blocks import END, member

def archive(count, name):
    for start in range(0, count, 2000):
        yield b"".join(member(name % number) for number in range(start, min(start + 2000, count)))
    yield END

layer = archive(int(sys.argv[2]), sys.argv[3].encode())
applied = apply_layer(layer, Path(sys.argv[1]), len, ApplyOptions(Marks.TRUSTED))
status = Path("/proc/self/status").read_text()  # what getrusage tells includes the parent before exec
print(applied.entries, status.partition("VmHWM:")[2].split()[0])
"""


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("name", "count"),
    [("f%d", 1_000_000 if FULL else 30_000), ("d%d/.wh..wh..opq", 100_000 if FULL else 10_000)],
    ids=["empty entries", "opaque entries"],
)
def test_masses_of_entries_take_some_hundred_bytes_each(tmp_path: Path, name: str, count: int) -> None:
    command = [sys.executable, "-c", APPLY, str(tmp_path), str(count), name]
    done = subprocess.run(command, capture_output=True, text=True, cwd=PROJECT, check=False)
    assert done.stderr == ""
    entries, kibibytes = map(int, done.stdout.split())
    assert entries == count
    assert kibibytes * 1024 < (64 << 20) + 600 * count
