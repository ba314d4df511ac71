"""Turns at a lock: what a reader waits for, what a newcomer waits for, and what becomes of the places of the dead."""

from __future__ import annotations

import asyncio
import fcntl
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from asyncpull import kernel
from asyncpull.lockfile import LockMode, locked
from asyncpull.turnstile import Turnstile
from tests.support.filelocks import waiters

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

EXCLUSIVE, SHARED = LockMode.EXCLUSIVE, LockMode.SHARED

# A process that queues as a reader of the first lock, until it is killed.
_QUEUER = """
import sys
from pathlib import Path
from asyncpull.turnstile import Turnstile
lock = Path(sys.argv[2])
turn = Turnstile(Path(sys.argv[1]), (lock,)).queue(lock, is_writer=False)
print("queued", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    path = tmp_path / "some.lock"
    path.touch()
    return path


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """The file where processes queue."""
    return tmp_path / "turnstile"


@pytest.fixture
def turnstile(place: Path, lock: Path) -> Iterator[Turnstile]:
    turnstile = Turnstile(place, (lock, lock.with_name("other.lock")))
    yield turnstile
    turnstile.close()
    assert _descriptors_of(place) == _descriptors_of(lock) == 0


def _descriptors_of(path: Path) -> int:
    if not path.exists():
        return 0
    return sum(os.path.realpath(f"/proc/self/fd/{fd}") == str(path.resolve()) for fd in os.listdir("/proc/self/fd"))


async def _until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


class _Queue:
    """Tasks that want the lock, and the order in which they got it."""

    def __init__(self, turnstile: Turnstile, lock: Path, place: Path) -> None:
        self._turnstile, self._lock, self._place = turnstile, lock, place
        self.got: list[str] = []
        self.tasks: list[asyncio.Task[None]] = []

    async def join(self, name: str, mode: LockMode) -> asyncio.Task[None]:
        """Start a task, and return when it waits."""
        before = self._waiting()
        task = asyncio.create_task(self._hold(name, mode))
        self.tasks.append(task)
        await _until(lambda: self._waiting() > before)
        return task

    def _waiting(self) -> int:
        return waiters(self._lock) + (waiters(self._place) if self._place.exists() else 0)

    async def _hold(self, name: str, mode: LockMode) -> None:
        async with locked(self._lock, mode, turnstile=self._turnstile):
            self.got.append(name)
            await asyncio.sleep(0.001)


@pytest.fixture
def queue(turnstile: Turnstile, lock: Path, place: Path) -> _Queue:
    return _Queue(turnstile, lock, place)


async def test_a_reader_waits_for_one_writer_of_all_that_queue_before_it(
    turnstile: Turnstile, lock: Path, queue: _Queue
) -> None:
    async with locked(lock, EXCLUSIVE, turnstile=turnstile):
        for number in range(5):
            await queue.join(f"writer {number}", EXCLUSIVE)
        await queue.join("reader", SHARED)
        await queue.join("late writer", EXCLUSIVE)
        assert queue.got == []
    await asyncio.gather(*queue.tasks)
    assert queue.got.index("reader") <= 1
    assert len(queue.got) == 7
    assert not turnstile.is_queued(lock)


async def test_a_reader_that_queues_first_comes_first(turnstile: Turnstile, lock: Path, queue: _Queue) -> None:
    async with locked(lock, EXCLUSIVE, turnstile=turnstile):
        await queue.join("reader", SHARED)
        for number in range(5):
            await queue.join(f"writer {number}", EXCLUSIVE)
    await asyncio.gather(*queue.tasks)
    assert queue.got[0] == "reader"
    assert len(queue.got) == 6


async def test_a_writer_that_comes_when_the_lock_is_free_leaves_it_to_who_queues(
    turnstile: Turnstile, lock: Path, queue: _Queue
) -> None:
    turn = turnstile.queue(lock, is_writer=False)
    assert turn is not None
    writer = await queue.join("writer", EXCLUSIVE)
    async with locked(lock, SHARED, turnstile=turnstile):
        turn.end()
        await _until(lambda: waiters(lock) == 1)
        assert not writer.done()
    await writer


async def test_a_reader_does_not_queue_for_a_free_lock(turnstile: Turnstile, lock: Path, place: Path) -> None:
    turn = turnstile.queue(lock, is_writer=True)
    assert turn is not None
    turn.wait()
    async with locked(lock, SHARED, turnstile=turnstile):
        assert turnstile.is_queued(lock)
    turn.end()
    assert not turnstile.is_queued(lock)
    assert place.read_bytes() == b""


async def test_locks_have_queues_of_their_own(turnstile: Turnstile, lock: Path) -> None:
    turn = turnstile.queue(lock, is_writer=False)
    assert turn is not None
    other = lock.with_name("other.lock")
    async with locked(other, EXCLUSIVE, turnstile=turnstile):
        assert (turnstile.is_queued(lock), turnstile.is_queued(other)) == (True, False)
    turn.end()


@pytest.mark.parametrize("mode", [SHARED, EXCLUSIVE])
async def test_a_wait_that_is_cancelled_leaves_the_queue(
    turnstile: Turnstile, lock: Path, queue: _Queue, mode: LockMode
) -> None:
    async with locked(lock, EXCLUSIVE, turnstile=turnstile):
        first = await queue.join("cancelled", mode)
        second = await queue.join("cancelled too", mode)
        await queue.join("writer", EXCLUSIVE)
        for task in (first, second):
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
    await queue.tasks[-1]
    assert queue.got == ["writer"]
    await _until(lambda: not turnstile.is_queued(lock))


async def test_the_place_of_a_process_that_dies_is_free(
    turnstile: Turnstile, lock: Path, place: Path, queue: _Queue
) -> None:
    command = [sys.executable, "-c", _QUEUER, str(place), str(lock)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"queued\n"
        writer = await queue.join("writer", EXCLUSIVE)
        assert not writer.done()
        process.kill()
    await writer
    assert queue.got == ["writer"]


async def test_where_nobody_can_queue_locks_work_as_ever(tmp_path: Path, lock: Path) -> None:
    turnstile = Turnstile(tmp_path / "missing" / "turnstile", (lock,))
    queue = _Queue(turnstile, lock, tmp_path / "missing" / "turnstile")
    async with locked(lock, EXCLUSIVE, turnstile=turnstile):
        assert not turnstile.is_queued(lock)
        await queue.join("reader", SHARED)
        await queue.join("writer", EXCLUSIVE)
    await asyncio.gather(*queue.tasks)
    assert sorted(queue.got) == ["reader", "writer"]


async def test_another_program_is_waited_for_as_ever(turnstile: Turnstile, lock: Path, queue: _Queue) -> None:
    fd = os.open(lock, os.O_RDWR | os.O_CREAT)
    try:
        assert kernel.lock_bytes(fd, fcntl.F_WRLCK)
        await queue.join("reader", SHARED)
        await queue.join("writer", EXCLUSIVE)
        assert queue.got == []
    finally:
        os.close(fd)
    await asyncio.gather(*queue.tasks)
    assert queue.got == ["reader", "writer"]
