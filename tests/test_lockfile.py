"""Locks against real other processes, tasks of this one, cancellation, and what a lock file says."""

from __future__ import annotations

import asyncio
import fcntl
import os
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from asyncpull.errors import StoreWriteError
from asyncpull.lockfile import LockMode, LockWait, hearing_waits, is_locked, locked, try_lock
from tests.support.filelocks import waiters

if TYPE_CHECKING:
    from collections.abc import Iterator

EXCLUSIVE, SHARED = LockMode.EXCLUSIVE, LockMode.SHARED

# A program that locks as podman does: a POSIX record lock on the whole file, until its standard input ends.
_HOLDER = """
import fcntl, os, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o644)
fcntl.lockf(fd, fcntl.LOCK_SH if sys.argv[2] == "shared" else fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def other_program(path: Path, mode: str = "exclusive") -> Iterator[subprocess.Popen[bytes]]:
    """A process that holds a POSIX lock on ``path`` until ``stdin`` is closed."""
    command = [sys.executable, "-c", _HOLDER, str(path), mode]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == b"held\n"
        try:
            yield process
        finally:
            process.stdin.close()


def open_descriptors(path: Path) -> int:
    """How many descriptors of ``path`` this process has."""
    found = 0
    for fd in os.listdir("/proc/self/fd"):
        try:
            found += os.path.samestat(os.stat(f"/proc/self/fd/{fd}"), path.stat())
        except FileNotFoundError:
            continue
    return found


async def until(condition: object) -> None:
    """Let other tasks and threads run until ``condition()`` holds."""
    assert callable(condition)
    while not condition():
        await asyncio.sleep(0.001)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "some.lock"


async def test_two_tasks_exclude_each_other(path: Path) -> None:
    inside: list[str] = []

    async def hold(name: str) -> None:
        async with locked(path, EXCLUSIVE):
            inside.append(name)
            await asyncio.sleep(0)
            assert inside.pop() == name

    async with asyncio.TaskGroup() as group:
        for number in range(30):
            group.create_task(hold(str(number)))
    assert open_descriptors(path) == 0


async def test_readers_share_and_exclude_a_writer(path: Path) -> None:
    async with locked(path, SHARED), locked(path, SHARED):
        writer = asyncio.create_task(_hold(path))
        await until(lambda: waiters(path) == 1)
        assert not writer.done()
    await writer


async def _hold(path: Path) -> None:
    async with locked(path, EXCLUSIVE):
        pass


async def test_waits_for_another_program_without_blocking_the_loop(path: Path) -> None:
    with other_program(path) as holder:
        ours = asyncio.create_task(_hold(path))
        await until(lambda: waiters(path) == 1)
        assert not ours.done()
        assert holder.stdin is not None
        holder.stdin.close()
        await ours
    assert open_descriptors(path) == 0


async def test_shares_with_another_reader_but_not_with_its_writer(path: Path) -> None:
    with other_program(path, "shared"):
        async with locked(path, SHARED):
            pass
        assert try_lock(path) is None


async def test_another_program_waits_for_us(path: Path) -> None:
    async with locked(path, EXCLUSIVE):
        command = [sys.executable, "-c", _HOLDER, str(path), "exclusive"]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        await until(lambda: waiters(path) == 1)
    out, _ = await asyncio.to_thread(process.communicate, b"")
    assert out == b"held\n"


async def test_closing_another_descriptor_of_the_file_does_not_release(path: Path) -> None:
    async with locked(path, EXCLUSIVE):
        os.close(os.open(path, os.O_RDWR))
        assert try_lock(path) is None


async def test_a_child_that_inherited_the_descriptor_does_not_keep_the_lock(path: Path) -> None:
    async with locked(path, EXCLUSIVE) as lock:
        child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, pass_fds=(lock.fd,))
    held = try_lock(path)
    assert held is not None
    held.close()
    child.communicate()


async def test_a_child_that_inherited_a_held_lock_keeps_it_when_we_die(path: Path) -> None:
    program = """
import subprocess, sys
from pathlib import Path
from asyncpull.lockfile import try_lock
lock = try_lock(Path(sys.argv[1]))
child = subprocess.Popen(["cat"], stdin=0, stdout=subprocess.DEVNULL, pass_fds=(lock.fileno(),))
print("held", flush=True)
import os, signal
os.kill(os.getpid(), signal.SIGKILL)
"""
    reading, writing = os.pipe()
    process = subprocess.Popen([sys.executable, "-c", program, str(path)], stdin=reading, stdout=subprocess.PIPE)
    os.close(reading)
    out, _ = process.communicate()
    assert out == b"held\n"
    assert try_lock(path) is None
    os.close(writing)  # ends the child

    def released() -> bool:
        held = try_lock(path)
        if held is None:
            return False
        held.close()
        return True

    await until(released)


async def test_a_cancelled_waiter_gives_the_lock_back_as_soon_as_it_has_it(path: Path) -> None:
    with other_program(path) as holder:
        ours = asyncio.create_task(_hold(path))
        await until(lambda: waiters(path) == 1)
        ours.cancel()
        with pytest.raises(asyncio.CancelledError):
            await ours
        assert open_descriptors(path) == 1  # the thread still waits, and cannot be told otherwise
        assert holder.stdin is not None
        holder.stdin.close()
        await until(lambda: open_descriptors(path) == 0)
    held = try_lock(path)
    assert held is not None
    held.close()


async def test_a_wait_that_lasts_is_told_of_with_who_holds_the_lock(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[LockWait] = []
    with other_program(path) as holder, hearing_waits(heard.append, patience=0.01):
        ours = asyncio.create_task(_hold(path))
        await until(lambda: len(heard) >= 3)
        waits = tuple(heard)  # of later ones nobody knows whether the holder was there still
        assert holder.stdin is not None
        holder.stdin.close()
        await ours
    assert {wait.path for wait in waits} == {path}
    for wait in waits:
        assert [each.pid for each in wait.holders] == [holder.pid]
        assert "lockf" in wait.holders[0].command
    assert waits[0].seconds < waits[1].seconds < waits[2].seconds
    told = [vars(record) for record in caplog.records if record.message == "waits for a lock"]
    assert told[0]["path"] == str(path)
    assert f"process {holder.pid} (" in told[0]["held_by"]


async def test_a_holder_with_an_open_file_description_lock_is_found_too(path: Path) -> None:
    """The kernel's list has -1 for those: ours is found by its descriptor, and so is a child that shares it."""
    heard: list[LockWait] = []
    async with locked(path, EXCLUSIVE) as lock:
        child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, pass_fds=(lock.fd,))
        with hearing_waits(heard.append, patience=0.01):
            ours = asyncio.create_task(_hold(path))
        await until(lambda: heard)
    await ours
    child.communicate()
    assert {each.pid for each in heard[0].holders} == {os.getpid(), child.pid}


async def test_every_reader_that_holds_a_lock_is_named(path: Path) -> None:
    heard: list[LockWait] = []
    with (
        other_program(path, "shared") as one,
        other_program(path, "shared") as two,
        hearing_waits(heard.append, patience=0.01),
    ):
        ours = asyncio.create_task(_hold(path))
        await until(lambda: heard)
        ours.cancel()
        await asyncio.wait([ours])
    assert {each.pid for each in heard[0].holders} == {one.pid, two.pid}


async def test_who_listens_hears_of_its_own_tasks_only(path: Path) -> None:
    mine: list[LockWait] = []
    others: list[LockWait] = []
    with other_program(path):
        with hearing_waits(others.append, patience=0.01):
            pass
        with hearing_waits(mine.append, patience=0.01):
            ours = asyncio.create_task(_hold(path))
        await until(lambda: mine)
        ours.cancel()
        await asyncio.wait([ours])
    assert others == []


async def test_a_holder_that_is_killed_frees_its_lock(path: Path) -> None:
    with other_program(path) as holder:
        ours = asyncio.create_task(_hold(path))
        await until(lambda: waiters(path) == 1)
        holder.kill()
        await ours
    assert open_descriptors(path) == 0


async def test_a_program_of_ours_that_is_killed_frees_its_lock(path: Path) -> None:
    program = """
import asyncio, sys
from pathlib import Path
from asyncpull.lockfile import LockMode, locked
async def hold():
    async with locked(Path(sys.argv[1]), LockMode.EXCLUSIVE):
        print("held", flush=True)
        await asyncio.sleep(3600)
asyncio.run(hold())
"""
    holder = subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    ours = asyncio.create_task(_hold(path))
    await until(lambda: waiters(path) == 1)
    holder.kill()
    await ours
    holder.communicate()


async def test_cancelled_at_the_very_moment_of_success(path: Path) -> None:
    # Whichever of the two the loop sees first, nothing may stay locked or open.
    for delay in range(40):
        async with locked(path, EXCLUSIVE):
            ours = asyncio.create_task(_hold(path))
            await until(lambda: waiters(path) == 1)
        for _ in range(delay):
            await asyncio.sleep(0)
        ours.cancel()
        await asyncio.wait([ours])
        await until(lambda: open_descriptors(path) == 0)


def test_a_loop_that_is_closed_under_a_waiter_leaves_nothing(path: Path) -> None:
    with other_program(path) as holder:
        loop = asyncio.new_event_loop()
        waiting = loop.create_task(_hold(path))
        while waiters(path) == 0:
            loop.run_until_complete(asyncio.sleep(0.001))
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            loop.run_until_complete(waiting)
        loop.close()
        assert holder.stdin is not None
        holder.stdin.close()
    for thread in threading.enumerate():
        if thread.name.startswith("lock "):
            thread.join()
    assert open_descriptors(path) == 0


async def test_token_is_empty_at_first_and_new_every_time(path: Path) -> None:
    async with locked(path, EXCLUSIVE) as lock:
        assert lock.token() == b""
        first = lock.write_token()
        assert lock.token() == first
        assert lock.write_token() != first
        assert len(first) == 64
        assert path.stat().st_size == 64
    assert path.stat().st_mode & 0o777 == 0o644 & ~_umask()


async def test_only_a_writer_writes_a_token(path: Path) -> None:
    async with locked(path, SHARED) as lock:
        with pytest.raises(ValueError, match="not locked for writing"):
            lock.write_token()
    assert path.read_bytes() == b""


async def test_reports_a_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StoreWriteError) as caught:
        await _hold(tmp_path / "missing" / "some.lock")
    assert str(tmp_path / "missing" / "some.lock") in str(caught.value)


def test_to_ask_whether_a_file_is_locked_is_in_nobodys_way(path: Path) -> None:
    assert not is_locked(path)
    assert not path.exists()
    with other_program(path):
        assert is_locked(path)
    with other_program(path, "shared"):
        assert is_locked(path)
    held = try_lock(path)
    assert held is not None
    assert is_locked(path)
    held.close()
    assert not is_locked(path)


def test_try_lock_never_waits(path: Path) -> None:
    held = try_lock(path)
    assert held is not None
    assert try_lock(path) is None
    held.close()
    held.close()  # a second time does nothing
    again = try_lock(path)
    assert again is not None
    again.close(unlink=True)
    assert not path.exists()


async def test_a_removed_lock_file_is_noticed(path: Path) -> None:
    async with locked(path, EXCLUSIVE) as lock:
        assert lock.is_current()
        path.unlink()
        assert not lock.is_current()
        path.touch()
        assert not lock.is_current()


def test_a_lock_that_guards_nothing_is_not_given(path: Path) -> None:
    """Another program locks, removes and makes anew the same lock file, over and over; ours must be the one there."""
    program = """
import fcntl, os, sys
while not os.path.exists(sys.argv[1] + ".stop"):
    fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(sys.argv[1])
    except OSError:
        pass
    os.close(fd)
"""
    process = subprocess.Popen([sys.executable, "-c", program, str(path)])
    try:
        given = 0
        while given < 300:
            held = try_lock(path)
            if held is not None:
                assert os.path.samestat(os.fstat(held.fileno()), path.stat())
                given += 1
                held.close()
    finally:
        Path(f"{path}.stop").touch()
        process.wait()


def test_what_flock_would_do(path: Path) -> None:
    """The reason for rule 1: a lock of the other kind excludes nobody."""
    with other_program(path), path.open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _umask() -> int:
    value = os.umask(0o022)
    os.umask(value)
    return value
