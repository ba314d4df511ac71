"""What the kernel says of locks, read as data; that it is true, test_lockfile shows."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from asyncpull.lockholders import FileIdentity, LockHolder, holders_of, identity_of, parse_locks

if TYPE_CHECKING:
    from pathlib import Path

FILE = FileIdentity(0xFE, 0x00, 2146497)


@pytest.mark.parametrize(
    ("text", "pids"),
    [
        ("", []),
        ("1: OFDLCK ADVISORY  WRITE -1 fe:00:2146497 0 EOF\n", [-1]),
        (
            "1: POSIX  ADVISORY  READ 77 fe:00:2146497 0 EOF\n2: POSIX  ADVISORY  READ 78 fe:00:2146497 0 EOF\n",
            [77, 78],
        ),
        ("pos:\t0\nflags:\t02100002\nlock:\t1: OFDLCK ADVISORY  WRITE -1 fe:00:2146497 0 EOF\n", [-1]),
        (f"1: POSIX  ADVISORY  READ {'7' * 5000} fe:00:2146497 0 EOF\n", []),
        (f"1: POSIX  ADVISORY  READ 77 fe:00:{'7' * 5000} 0 EOF\n", []),
        # one who waits, another kind of lock, another file, another device
        ("1: -> POSIX  ADVISORY  WRITE 79 fe:00:2146497 0 EOF\n", []),
        ("1: FLOCK  ADVISORY  WRITE 80 fe:00:2146497 0 EOF\n", []),
        ("1: POSIX  ADVISORY  WRITE 81 fe:00:21464970 0 EOF\n", []),
        ("1: POSIX  ADVISORY  WRITE 82 fe:01:2146497 0 EOF\n", []),
        ("1: POSIX  MSNFS     WRITE 83 fe:00:2146497 0 9223372036854775806\n", [83]),
    ],
)
def test_locks_of_one_file(text: str, pids: list[int]) -> None:
    assert parse_locks(text, FILE) == pids


def test_a_file_without_locks_has_no_holders(tmp_path: Path) -> None:
    fd = os.open(tmp_path / "free.lock", os.O_RDWR | os.O_CREAT)
    try:
        assert holders_of(identity_of(fd)) == ()
    finally:
        os.close(fd)


def test_a_holder_in_words() -> None:
    assert str(LockHolder(12, "podman pull x")) == "process 12 (podman pull x)"
    assert str(LockHolder(12, "")) == "process 12"
