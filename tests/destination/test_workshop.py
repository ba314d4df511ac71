"""Workshops: who may be in one, what is left in it, and what is removed by whom."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from asyncpull.destination.workshop import open_workshop
from asyncpull.errors import StoreError, StoreWriteError
from asyncpull.lockfile import is_locked

_KILLED = """
import asyncio, sys
from pathlib import Path
from asyncpull.destination.workshop import open_workshop

async def main():
    async with open_workshop(Path(sys.argv[1]), alone=sys.argv[2] == "alone") as workshop:
        workshop.new().write_bytes(b"half")
        workshop.kept.mkdir()
        (workshop.kept / "blob").write_bytes(b"whole")
        print("here", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


def names(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


def started(path: Path, mode: str) -> subprocess.Popen[str]:
    """Another process that works at ``path`` until it is killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", _KILLED, str(path), mode],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "here\n"
    return process


def kill(process: subprocess.Popen[str]) -> None:
    with process:
        process.send_signal(signal.SIGKILL)


async def test_nothing_is_left_of_a_workshop_in_which_nothing_was_done(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / ".asyncpull"
    async with open_workshop(path, alone=False) as workshop:
        assert path.stat().st_mode & 0o777 == 0o700
        workshop.new().write_bytes(b"half")
        workshop.spool_root.mkdir()
    assert names(tmp_path) == []


async def test_directories_that_were_there_stay(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    async with open_workshop(tmp_path / "a" / "b" / ".asyncpull", alone=True):
        pass
    assert names(tmp_path) == ["a"]


async def test_what_can_be_used_again_is_kept_until_the_copy_is_done(tmp_path: Path) -> None:
    for is_done in (False, True):
        async with open_workshop(tmp_path / "w", alone=True) as workshop:
            workshop.kept.mkdir(exist_ok=True)
            (workshop.spool_root / "sha256-x").mkdir(parents=True, exist_ok=True)
            (workshop.kept / "blob").write_bytes(b"whole")
            workshop.is_done = is_done
        assert names(tmp_path) == ([] if is_done else ["w", "w/kept", "w/kept/blob", "w/spool", "w/spool/sha256-x"])


async def test_a_file_is_whole_and_readable_when_it_has_its_name(tmp_path: Path) -> None:
    async with open_workshop(tmp_path / "w", alone=True) as workshop:
        workshop.write(tmp_path / "deep" / "er" / "file", b"one")
        workshop.write(tmp_path / "deep" / "er" / "file", b"two")
    file = tmp_path / "deep" / "er" / "file"
    assert (file.read_bytes(), file.stat().st_mode & 0o777) == (b"two", 0o644)
    assert names(tmp_path) == ["deep", "deep/er", "deep/er/file"]


@pytest.mark.parametrize("mode", ["alone", "beside"])
async def test_the_next_one_removes_what_a_killed_one_left_half(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "w"
    kill(started(path, mode))
    assert len([name for name in names(path) if name.startswith("new-")]) == 1
    async with open_workshop(path, alone=mode == "alone"):
        assert [name for name in names(path) if name.startswith("new-")] == []
        assert (path / "kept" / "blob").read_bytes() == b"whole"
    assert names(path) == ["kept", "kept/blob"]


async def test_those_who_work_side_by_side_leave_each_other_alone(tmp_path: Path) -> None:
    path = tmp_path / "w"
    other = started(path, "beside")
    try:
        before = names(path)
        async with open_workshop(path, alone=False) as workshop:
            workshop.is_done = True
            assert names(path) == before
        assert names(path) == before
    finally:
        kill(other)


async def test_one_who_works_alone_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "w"
    other = started(path, "alone")

    async def enter() -> None:
        async with open_workshop(path, alone=True):
            assert other.poll() is not None

    waiting = asyncio.create_task(enter())
    assert is_locked(path / "lock")
    await asyncio.sleep(0.05)
    assert not waiting.done()
    kill(other)
    await waiting


async def test_many_come_and_go(tmp_path: Path) -> None:
    path, inside, at_once = tmp_path / "w", 0, 0

    async def work(number: int) -> None:
        nonlocal inside, at_once
        async with open_workshop(path, alone=number % 3 == 0) as workshop:
            assert number % 3 or not inside
            inside += 1
            at_once = max(at_once, inside)
            file = workshop.new()
            file.write_bytes(b"half")
            await asyncio.sleep(0)
            assert file.exists()
            inside -= 1

    await asyncio.gather(*(work(number) for number in range(40)))
    assert names(tmp_path) == []
    assert at_once > 1


async def test_a_cancelled_wait_leaves_no_sign(tmp_path: Path) -> None:
    path = tmp_path / "w"

    async def enter() -> None:
        async with open_workshop(path, alone=True):
            pass

    async with open_workshop(path, alone=True):
        waiting = asyncio.create_task(enter())
        for _ in range(20):
            await asyncio.sleep(0.001)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert names(path) == ["lock"]
    # Who gave up may get the lock for a moment yet (lockfile.py, rule 4), and be taken for one who is at work.
    assert names(tmp_path) in ([], ["w", "w/lock"])


async def test_a_place_that_cannot_be_written_is_told_of(tmp_path: Path) -> None:
    with pytest.raises(StoreWriteError, match="/sys/w") as caught:
        async with open_workshop(Path("/sys/w"), alone=True):
            pass
    assert caught.value.hint == "choose another place, or run as the owner of this one"
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match="file"):
        async with open_workshop(tmp_path / "file" / "w", alone=True):
            pass
    assert names(tmp_path) == ["file"]
