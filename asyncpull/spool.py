"""The spool: where a blob is received, so that nothing received is asked for twice.

::

    <spool root>/<algorithm>-<hex>/        0700
        blob, journal      see journal.py
        lock               held by the process that receives; nobody else writes

The rules:

1. Only the holder of the lock writes or removes. Whoever waited for it checks that the file it locked is still there,
   for the former holder may have removed the spool.
2. The lock is held while bytes are received, not while they are read: a reader has a descriptor of the blob instead,
   which stays good whoever removes the name.
3. The digest of the blob is not checked here. Whoever reads the blob does that.
4. All bytes are moved by one thread per spool, so that a slow disk stops neither the event loop nor another spool.
   While it works, its descriptors stay open and the lock stays held: every wait for it lasts until it is done, and a
   cancellation is passed on after that.
"""

from __future__ import annotations

import asyncio
import errno
import os
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING, TypeVar

from asyncpull.budget import Memory
from asyncpull.errors import StoreError, StoreWriteError
from asyncpull.journal import JournaledFile, read_records, store_errors
from asyncpull.lockfile import LockMode, locked, try_lock
from asyncpull.ranges import RangeSet
from asyncpull.waiting import finish

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from asyncpull.ranges import Range
    from asyncpull.spec.digest import Digest

T = TypeVar("T")

# A batch is written when it has this many bytes, or when its first byte has waited that long. What a killed process
# loses per connection is about one batch, so it is small; what a fast connection gathers while the thread is busy
# becomes one larger batch, up to the limit at which the reader of the socket has to wait.
BATCH_BYTES = 256 << 10
BATCH_SECONDS = 0.05
PENDING_LIMIT = 1 << 20

_LOCK_TRIES = 100


def spool_directory(root: Path, digest: Digest) -> Path:
    """Where the spool of ``digest`` is."""
    return root / f"{digest.algorithm}-{digest.encoded}"


def recorded_bytes(root: Path, digest: Digest, size: int) -> int:
    """How many bytes of a blob of ``size`` bytes the journal of its spool says are here.

    It is believed as it is, without the lock: good for telling people, not for leaving anything out. Blocks shortly.
    """
    ranges = (record.range for record in read_records(spool_directory(root, digest)))
    return RangeSet(item for item in ranges if item.end <= size).total


@asynccontextmanager
async def open_spool(root: Path, digest: Digest, size: int, memory: Memory | None = None) -> AsyncIterator[Spool]:
    """Hold the spool of a blob of ``size`` bytes, new or resumed, for the body; waits while another process has it.

    What was received stays for the next time; a spool with nothing in it is removed. What its writers have not written
    yet is held in ``memory``. Raises StoreWriteError, NoSpaceError, StoreError.
    """
    directory = spool_directory(root, digest)
    async with _owned(root, directory):
        with JournaledFile(directory) as file:
            async with Spool(file, digest, size, memory) as spool:
                try:
                    yield spool
                finally:
                    # Only here, where the journal was read to its end, does "nothing" mean that there is nothing.
                    if not spool.received:
                        with suppress(StoreError):
                            _unlink(directory)


async def remove_spool(root: Path, digest: Digest) -> bool:
    """Remove the spool of ``digest`` unless somebody is receiving it; true if it is gone. Raises StoreError."""
    directory = spool_directory(root, digest)
    return await _to_the_end(directory, lambda: _remove(directory))


async def move_spooled(root: Path, digest: Digest, fd: int, path: Path) -> bool:
    """Make the complete blob that ``fd`` is open on the file ``path``, synced and readable to all, by moving it there.

    Its spool is gone then. False, and nothing done, where another process has moved or removed it already, or where
    ``path`` is on another file system. Waits for a process that has the spool. Raises StoreError.
    """
    directory = spool_directory(root, digest)
    loop = asyncio.get_running_loop()
    syncing = loop.run_in_executor(None, _publish, fd, path)
    await finish(syncing)
    syncing.result()
    async with _owned(root, directory):
        moving = loop.run_in_executor(None, _move, directory, fd, path)
        await finish(moving)
        return moving.result()


async def sweep_spools(root: Path, older_than_seconds: float) -> int:
    """Remove the spools that nobody receives and that nothing came into for so long: how many. Raises StoreError."""
    before = time.time() - older_than_seconds
    return await _to_the_end(root, lambda: _sweep(root, before))


async def _to_the_end(directory: Path, job: Callable[[], T]) -> T:
    """Do ``job``, about ``directory``, in a thread. Raises StoreError.

    A cancellation waits for its end: left behind it has a lock that others find taken.
    """
    future = asyncio.get_running_loop().run_in_executor(None, job)
    try:
        await finish(future)
    except asyncio.CancelledError:
        future.exception()  # taken note of; nobody else will ask
        raise
    with store_errors(directory):
        return future.result()


class Spool:
    """One blob while this process receives it, from ``open_spool``.

    ``on_advance`` is called, on the event loop, whenever ``received`` has grown. ``resumed`` is how many bytes were
    here at the beginning, ``origins`` how many of all came from whom, as far as that is known.
    """

    def __init__(self, file: JournaledFile, digest: Digest, size: int, memory: Memory | None = None) -> None:
        self.digest, self.size, self.path = digest, size, file.path
        self.memory = memory or Memory(PENDING_LIMIT)
        self.received = RangeSet()
        self.resumed = 0
        self.origins: Counter[str] = Counter()
        self.on_advance: Callable[[], None] = lambda: None
        self._file = file
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"spool-{digest.encoded[:12]}")

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        try:
            job = loop.run_in_executor(self._thread, self._file.verified, self.size)
            await finish(job, self._file.stop)
        except BaseException:
            self._thread.shutdown(wait=False)
            raise
        for record in job.result():
            self._note(record.range, record.origin)
        self.resumed = self.received.total
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Its writers have ended, so the thread is idle: nothing is waited for.
        self._thread.shutdown(wait=False)

    @property
    def front(self) -> int:
        """How many bytes are here without a gap from byte zero on."""
        return self.received.front

    @property
    def is_complete(self) -> bool:
        """Whether all of the blob is here."""
        return self.front == self.size

    def missing(self) -> Iterator[Range]:
        """The holes, in ascending order."""
        return self.received.missing(0, self.size)

    def open_reader(self) -> int:
        """A descriptor of the blob for reading, which stays good when the spool is closed or removed."""
        return self._file.open_reader()

    def writer(self, position: int, origin: str = "") -> SpoolWriter:
        """A writer of consecutive bytes from ``position`` on, which ``origin`` sends.

        Several may be open, for bytes of their own.
        """
        return SpoolWriter(self, position, origin)

    async def reset(self) -> None:
        """Forget all that was received. No writer may be open; whoever reads the old bytes may go on."""
        self.received.clear()
        self.origins.clear()
        self.resumed = 0
        await finish(asyncio.get_running_loop().run_in_executor(self._thread, self._file.reset))

    def submit(self, offset: int, batch: Sequence[bytes], origin: str) -> asyncio.Future[Range]:
        """Have the thread write and record ``batch`` at ``offset``; the result is where it is now."""
        return asyncio.get_running_loop().run_in_executor(self._thread, self._file.store, offset, batch, origin)

    def has_received(self, item: Range, origin: str) -> None:
        """Take note of a range that was recorded."""
        self._note(item, origin)
        self.on_advance()

    def _note(self, item: Range, origin: str) -> None:
        self.received.add(item.start, item.end)
        if origin:
            self.origins[origin] += len(item)

    def __repr__(self) -> str:
        return f"<Spool {self.digest} {self.received.total}/{self.size} in {len(self.received)} ranges>"


class SpoolWriter:
    """Writes consecutive bytes of one blob, as an async context manager.

    Leaving the context, in whatever way, writes and records what was handed over before.
    """

    def __init__(self, spool: Spool, position: int, origin: str) -> None:
        self.position = position
        self._origin = origin
        self._spool = spool
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._settled: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._failure: BaseException | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        cancelled: asyncio.CancelledError | None = None
        self._submit()
        while self._settled is not None:
            try:
                await finish(self._settled)
            except asyncio.CancelledError as again:
                cancelled = again
            self._submit()
        self._give_up_pending()
        if cancelled is not None:
            raise cancelled
        if error is None:
            self._check()

    async def write(self, data: bytes) -> None:
        """Hand over the next bytes; waits while more than a megabyte is unwritten, or the memory is used up.

        Raises NoSpaceError, StoreWriteError, also for bytes that were handed over before.
        """
        self._check()
        await self._spool.memory.take(len(data))
        self._pending.append(data)
        self._pending_bytes += len(data)
        self.position += len(data)
        if self._pending_bytes >= BATCH_BYTES:
            self._submit()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(BATCH_SECONDS, self._submit)
        while self._pending_bytes >= PENDING_LIMIT and self._settled is not None:
            await asyncio.wait((self._settled,))
            self._check()

    def _submit(self) -> None:
        """Start writing what is pending, unless the last batch is still being written: its end does it then."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._settled is not None or not self._pending or self._failure is not None:
            return
        batch, self._pending = self._pending, []
        start, self._pending_bytes = self.position - self._pending_bytes, 0
        self._settled = asyncio.get_running_loop().create_future()
        job = self._spool.submit(start, batch, self._origin)
        count = self.position - start
        job.add_done_callback(lambda done: self._settle(count, done))

    def _settle(self, count: int, job: asyncio.Future[Range]) -> None:
        self._spool.memory.give_back(count)
        if self._settled is not None:
            self._settled.set_result(None)
            self._settled = None
        self._failure = job.exception()
        if self._failure is None:
            self._spool.has_received(job.result(), self._origin)
            if self._pending_bytes >= BATCH_BYTES or self._timer is None:
                self._submit()

    def _give_up_pending(self) -> None:
        """Let go of what cannot be written any more."""
        self._spool.memory.give_back(self._pending_bytes)
        self._pending, self._pending_bytes = [], 0

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure


@asynccontextmanager
async def _owned(root: Path, directory: Path) -> AsyncIterator[None]:
    """Hold the lock in ``directory`` for the body, with both made if need be."""
    for _ in range(_LOCK_TRIES):
        with store_errors(directory):
            try:
                directory.mkdir(mode=0o700, exist_ok=True)
            except FileNotFoundError:
                root.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                root.mkdir(mode=0o700, exist_ok=True)
                directory.mkdir(mode=0o700, exist_ok=True)
        stack = AsyncExitStack()
        try:
            lock = await stack.enter_async_context(locked(directory / "lock", LockMode.EXCLUSIVE, is_brief=False))
        except StoreWriteError as error:
            if not isinstance(error.__cause__, FileNotFoundError):
                raise
            continue  # removed by its former holder since we made it
        async with stack:
            if _is_at(directory / "lock", lock.fd):
                yield
                return
    raise StoreError("is made and removed again and again by others", str(directory))


def _is_at(path: Path, fd: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(fd))
    except FileNotFoundError:
        return False


def _unlink(directory: Path) -> None:
    """Remove a spool whose lock is held: the journal first, for without it the blob is nothing."""
    with store_errors(directory):
        for name in ("journal", "blob", "lock"):
            (directory / name).unlink(missing_ok=True)
        try:
            directory.rmdir()
        except OSError as error:
            # Somebody who waited for the lock may be making it anew.
            if error.errno not in (errno.ENOTEMPTY, errno.ENOENT):
                raise


def _publish(fd: int, path: Path) -> None:
    """What takes its time, before the lock."""
    with store_errors(path):
        os.fchmod(fd, 0o644)
        os.fsync(fd)


def _move(directory: Path, fd: int, path: Path) -> bool:
    """Move a blob out of a spool whose lock is held, if it is the one that ``fd`` is open on."""
    with store_errors(path):
        is_there = _is_at(directory / "blob", fd)
        if not is_there and (directory / "blob").exists():
            return False  # somebody receives it anew
        if is_there:
            try:
                os.rename(directory / "blob", path)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                return False
    _unlink(directory)
    return is_there


def _remove(directory: Path) -> bool:
    if not directory.is_dir():
        return True
    try:
        lock = try_lock(directory / "lock")
    except StoreWriteError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return True
        raise
    if lock is None:
        return False
    try:
        _unlink(directory)
    finally:
        lock.close()
    return True


def _sweep(root: Path, before: float) -> int:
    directories = sorted(root.iterdir()) if root.is_dir() else []
    return sum(_last_received(each) < before and _remove(each) for each in directories if each.is_dir())


def _last_received(directory: Path) -> float:
    """When a range was recorded last, or the spool was made, in seconds since the epoch."""
    for path in (directory / "journal", directory):
        with suppress(FileNotFoundError):
            return path.stat().st_mtime
    return float("inf")  # somebody else removed it meanwhile
