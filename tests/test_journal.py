"""What a journal remembers, and what it does not believe."""

from __future__ import annotations

import errno
import os
import resource
import signal
from typing import TYPE_CHECKING

import pytest
from fastcrc import crc64

from asyncpull.errors import NoSpaceError, StoreError, StoreWriteError
from asyncpull.journal import JournaledFile, is_as_recorded, read_records, store_errors
from asyncpull.ranges import Range

if TYPE_CHECKING:
    from pathlib import Path

SIZE = 1000


def remembered(directory: Path, size: int = SIZE) -> list[Range]:
    with JournaledFile(directory) as file:
        return [record.range for record in file.verified(size)]


def stored(directory: Path, *pieces: tuple[int, bytes]) -> None:
    with JournaledFile(directory) as file:
        file.verified(SIZE)
        for offset, data in pieces:
            assert file.store(offset, [data]) == Range(offset, offset + len(data))


def test_ranges_are_remembered_with_their_bytes(tmp_path: Path) -> None:
    stored(tmp_path, (0, b"abc"), (10, b"defg"))
    stored(tmp_path, (3, b"x"))
    assert remembered(tmp_path) == [Range(0, 3), Range(10, 14), Range(3, 4)]
    assert (tmp_path / "blob").read_bytes() == b"abcx" + bytes(6) + b"defg"
    line = b"10 4 %016x\n" % crc64.go_iso(b"defg")
    assert (tmp_path / "journal").read_bytes().splitlines(keepends=True)[2] == line
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}


def test_a_batch_is_one_record_however_many_pieces_it_has(tmp_path: Path) -> None:
    pieces = [bytes([number % 251]) for number in range(3000)]
    with JournaledFile(tmp_path) as file:
        file.verified(5000)
        assert file.store(7, pieces) == Range(7, 3007)
    assert remembered(tmp_path, 5000) == [Range(7, 3007)]
    assert (tmp_path / "blob").read_bytes()[7:] == b"".join(pieces)


def test_changed_bytes_are_a_hole(tmp_path: Path) -> None:
    stored(tmp_path, (0, b"abc"), (3, b"def"), (6, b"ghi"))
    with open(tmp_path / "blob", "r+b") as blob:
        blob.seek(4)
        blob.write(b"!")
    assert remembered(tmp_path) == [Range(0, 3), Range(6, 9)]


def test_bytes_that_never_reached_the_disk_are_a_hole(tmp_path: Path) -> None:
    stored(tmp_path, (0, b"abc"), (3, b"def"))
    os.truncate(tmp_path / "blob", 5)
    assert remembered(tmp_path) == [Range(0, 3)]
    os.truncate(tmp_path / "blob", 0)
    assert remembered(tmp_path) == []


@pytest.mark.parametrize("cut", range(1, 23))
def test_a_torn_line_was_never_written(tmp_path: Path, cut: int) -> None:
    stored(tmp_path, (0, b"abc"), (3, b"def"))
    journal = tmp_path / "journal"
    os.truncate(journal, journal.stat().st_size - cut)
    expected = [Range(0, 3)] if cut < 22 else []
    assert remembered(tmp_path)[:1] == expected[:1] or cut == 22
    stored(tmp_path, (6, b"ghi"))
    assert Range(6, 9) in remembered(tmp_path)
    assert Range(3, 6) not in remembered(tmp_path)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"0 3",
        b"0 3 zz",
        b"0 3 0 0",
        b"-1 3 0000000000000000",
        b"0 0 0000000000000000",
        b"0 -3 0000000000000000",
        b"0 3 0000000000000000",
        b"999 3 %016x" % crc64.go_iso(b"abc"),
        b"\0" * 30,
        b"\xff\xfe",
        b"9" * 5000 + b" 3 0",
    ],
)
def test_a_line_of_another_form_is_no_record(tmp_path: Path, line: bytes) -> None:
    stored(tmp_path, (0, b"abc"))
    with open(tmp_path / "journal", "ab") as journal:
        journal.write(line + b"\n")
    assert remembered(tmp_path) == [Range(0, 3)]


@pytest.mark.parametrize("content", [b"", b"asyncpull journal 2\n0 3 0\n", b"asyncpull jour", b"\0" * 50])
def test_another_journal_is_begun_anew(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "journal").write_bytes(content)
    (tmp_path / "blob").write_bytes(b"whatever")
    assert remembered(tmp_path) == []
    assert (tmp_path / "blob").read_bytes() == b""
    stored(tmp_path, (0, b"abc"))
    assert remembered(tmp_path) == [Range(0, 3)]


def test_ranges_beyond_the_size_are_left_alone(tmp_path: Path) -> None:
    stored(tmp_path, (0, b"abc"), (3, b"def"))
    assert remembered(tmp_path, 5) == [Range(0, 3)]
    assert remembered(tmp_path) == [Range(0, 3), Range(3, 6)]


def test_reset_forgets_and_stop_ends_early(tmp_path: Path) -> None:
    stored(tmp_path, (0, b"abc"))
    with JournaledFile(tmp_path) as file:
        file.stop()
        assert file.verified(SIZE) == []
    with JournaledFile(tmp_path) as file:
        assert [record.range for record in file.verified(SIZE)] == [Range(0, 3)]
        file.reset()
    assert remembered(tmp_path) == []


def test_a_reader_has_a_descriptor_of_its_own(tmp_path: Path) -> None:
    with JournaledFile(tmp_path) as file:
        file.verified(SIZE)
        fd = file.open_reader()
        file.store(0, [b"abc"])
    try:
        assert os.pread(fd, 10, 0) == b"abc"
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.write(fd, b"x")
    finally:
        os.close(fd)


def test_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("precious")
    (tmp_path / "blob").symlink_to("elsewhere")
    with pytest.raises(StoreWriteError), JournaledFile(tmp_path):
        pass
    assert (tmp_path / "elsewhere").read_text() == "precious"


def test_a_write_that_stops_short_is_gone_on_with_or_fails(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with JournaledFile(tmp_path) as file:
        file.verified(SIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (600, before[1]))
        try:
            with pytest.raises(StoreWriteError):
                file.store(0, [b"a" * 400, b"b" * 400])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            signal.signal(signal.SIGXFSZ, ignored)
    assert remembered(tmp_path) == []


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, NoSpaceError),
        (errno.EDQUOT, NoSpaceError),
        (errno.EACCES, StoreWriteError),
        (errno.EIO, StoreWriteError),
    ],
)
def test_what_the_system_says_becomes_what_the_person_can_do(
    tmp_path: Path, number: int, kind: type[StoreError]
) -> None:
    with pytest.raises(kind) as caught, store_errors(tmp_path):
        raise OSError(number, os.strerror(number))
    assert type(caught.value) is kind
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("origin", ["", "docker.io", "[::1]:5000/a/b", "mirror of\nmine", "spiegel-ü%20"])
def test_who_sent_a_range_is_remembered(tmp_path: Path, origin: str) -> None:
    with JournaledFile(tmp_path) as file:
        file.verified(SIZE)
        file.store(0, [b"abc"], origin)
        file.store(3, [b"def"])
    with JournaledFile(tmp_path) as file:
        assert [(record.range, record.origin) for record in file.verified(SIZE)] == [
            (Range(0, 3), origin),
            (Range(3, 6), ""),
        ]
    assert [record.origin for record in read_records(tmp_path)] == [origin, ""]


def test_records_can_be_read_and_compared_while_another_writes(tmp_path: Path) -> None:
    assert read_records(tmp_path) == []
    with JournaledFile(tmp_path) as file:
        file.verified(SIZE)
        file.store(0, [b"abc"], "one")
        before = read_records(tmp_path)
        reader = file.open_reader()
        file.reset()
        assert os.pread(reader, 10, 0) == b"abc"
        assert read_records(tmp_path) == []
        file.store(0, [b"abX"], "two")
        other = file.open_reader()
        assert [is_as_recorded(fd, record) for fd in (reader, other) for record in before] == [True, False]
        os.close(reader)
        os.close(other)
    (tmp_path / "journal").write_bytes(b"something else\n0 3 0\n")
    assert read_records(tmp_path) == []
