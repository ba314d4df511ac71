"""Files that are handed over are closed, however many there are, and hold what was written."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from asyncpull.extract.writeback import Writeback

if TYPE_CHECKING:
    from pathlib import Path


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


@pytest.mark.parametrize("count", [0, 1, 100])
def test_every_file_is_closed_in_the_end(tmp_path: Path, count: int) -> None:
    writeback = Writeback()
    fds = [os.open(tmp_path / str(number), os.O_WRONLY | os.O_CREAT) for number in range(count)]
    for number, fd in enumerate(fds):
        os.write(fd, b"%d" % number)
    for fd in fds:
        writeback.close(fd)
    writeback.end()
    assert not any(map(is_open, fds))
    assert [(tmp_path / str(number)).read_text() for number in range(count)] == [str(n) for n in range(count)]


def test_a_pipe_which_no_disk_has_is_closed_too(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    writeback = Writeback()
    writeback.close(writer)
    writeback.end()
    assert os.read(reader, 1) == b""
    os.close(reader)
    writeback.end()
