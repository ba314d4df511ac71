"""Locks on files that other programs take too, waited for without blocking the event loop.

The rules, which every user of a lock file in this package relies on:

1. Locks are open file description locks (F_OFD_SETLK). They conflict with the POSIX record locks of podman, buildah
   and skopeo in both directions, and unlike those they exclude two tasks of one process from each other and survive
   the closing of another descriptor of the same file. ``flock`` would exclude nobody.
2. Each acquisition opens the file anew, 0644, and covers the whole file. A held lock is given back by an explicit
   unlock before the close: a child process that inherited the descriptor would keep it otherwise.
3. A wait blocks in the kernel's queue, in a daemon thread of its own. A poller starves behind blocked Go programs, and
   waiters in a shared executor starve the holder that needs a thread to finish.
4. A thread in that wait cannot be called back. A waiter that was cancelled leaves an order instead: unlock and close
   as soon as acquired.
5. A wait that lasts is told of, again and again at growing intervals, with who holds the lock: in the log, and to who
   listens (``hearing_waits``).
6. The kernel wakes all who wait for a lock at once, and who comes first gets it. Processes of ours queue besides, where
   they have a place for that (``turnstile``).
7. The content of a lock file is its change token: 64 bytes that a writer replaces, while it holds the lock
   exclusively and *before* it renames a changed record file into place. A crash between the two costs a needless
   reload. A reader compares the token with the one that it read *before* it last loaded the records. An empty file is
   a valid token: never written.

The descriptor of a lock with an exclusive holder must be writable, so all are opened read-write.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import itertools
import os
import struct
import threading
import time
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from enum import Enum
from typing import TYPE_CHECKING

from asyncpull import kernel
from asyncpull.dataclass import dataclass
from asyncpull.errors import StoreError, StoreWriteError
from asyncpull.lockholders import LockHolder, holders_of, identity_of
from asyncpull.log import Log

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from asyncpull.turnstile import Turn, Turnstile

_log = Log(__name__)

TOKEN_SIZE = 64
PATIENCE_SECONDS = 3.0
"""After so long a wait for a lock is told of."""

_writes = itertools.count(1)


class LockMode(Enum):
    """Shared with other readers, or exclusive."""

    SHARED = fcntl.F_RDLCK
    EXCLUSIVE = fcntl.F_WRLCK


@dataclass(frozen=True, slots=True)
class LockWait:
    """A wait for a lock that lasts: for which file, how long by now, and who holds it, as far as can be seen.

    ``holders`` may be empty (the lock was just given back, or its holder is in a place we cannot look into), and may
    hold this very process, of which another task has the lock.
    """

    path: Path
    mode: LockMode
    seconds: float
    holders: tuple[LockHolder, ...]


@dataclass(frozen=True, slots=True)
class _Listener:
    hear: Callable[[LockWait], None]
    patience: float


_listener: ContextVar[_Listener | None] = ContextVar("listener of waits", default=None)


@contextmanager
def hearing_waits(hear: Callable[[LockWait], None], *, patience: float = PATIENCE_SECONDS) -> Iterator[None]:
    """Have ``hear`` called, on the event loop, for every wait that lasts longer than ``patience`` seconds.

    Of this task, while the body runs, and of the tasks that are started in it. It must neither block nor raise. It is
    called again after twice, four times, eight times as long, for as long as the wait lasts.
    """
    token = _listener.set(_Listener(hear, patience))
    try:
        yield
    finally:
        _listener.reset(token)


class LockedFile:
    """A lock file while it is locked; ``fd`` belongs to whoever locked it."""

    __slots__ = ("fd", "mode", "path", "second")

    def __init__(self, path: Path, fd: int, mode: LockMode, second: LockedFile | None = None) -> None:
        self.path, self.fd, self.mode, self.second = path, fd, mode, second

    def with_second(self, second: LockedFile) -> LockedFile:
        """This lock and another that guards the same records: both get a token, readers look at this one only."""
        return LockedFile(self.path, self.fd, self.mode, second)

    def token(self) -> bytes:
        """The change token: 64 bytes, or none if the file was never written."""
        return os.pread(self.fd, TOKEN_SIZE, 0)

    def write_token(self) -> bytes:
        """Write a token that was never used before, and return it. Needs the lock exclusively.

        Its form is that of the newest writers: nanoseconds, a counter, the process, random bytes.
        """
        if self.mode is not LockMode.EXCLUSIVE:
            raise ValueError(f"{self.path} is not locked for writing")
        token = struct.pack("<QQI", time.time_ns(), next(_writes), os.getpid()) + os.urandom(44)
        if self.second is not None:
            self.second.write_token()
        os.pwrite(self.fd, token, 0)
        return token

    def is_current(self) -> bool:
        """Whether the locked file is still the one at its path: somebody may remove a lock file while holding it."""
        return _is_file_at(self.path, self.fd)

    def __repr__(self) -> str:
        return f"LockedFile({str(self.path)!r}, {self.mode.name})"


class HeldLock:
    """An exclusive lock without a scope: held until ``close``, or until every process that has ``fileno`` is gone."""

    __slots__ = ("_fd", "path")

    def __init__(self, path: Path, fd: int) -> None:
        self.path, self._fd = path, fd

    def fileno(self) -> int:
        """The descriptor, for a child process to inherit."""
        return self._fd

    def close(self, *, unlink: bool = False) -> None:
        """Give the lock back, for all who share the descriptor; ``unlink`` removes the file first, still locked."""
        if self._fd < 0:
            return
        try:
            if unlink:
                self.path.unlink(missing_ok=True)
        finally:
            fd, self._fd = self._fd, -1
            _release(fd)


def try_lock(path: Path) -> HeldLock | None:
    """Lock ``path`` exclusively if nobody else has it, creating it if need be; never waits.

    None also if the file was replaced or removed between the opening and the locking: then the lock guards nothing
    that others could see. Raises StoreWriteError, StoreError.
    """
    fd = _open(path)
    try:
        if kernel.lock_bytes(fd, fcntl.F_WRLCK) and _is_file_at(path, fd):
            return HeldLock(path, fd)
    except BaseException:
        os.close(fd)
        raise
    _release(fd)
    return None


def is_locked(path: Path) -> bool:
    """Tell whether somebody has a lock on ``path`` now; False too if it is not there. Takes no lock, makes no file.

    Whoever tries a lock only to see whether it is free is in the way of those who want it.
    Raises StoreError.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise _cannot_lock(path, error) from error
    try:
        return kernel.has_locked_bytes(fd)
    except OSError as error:
        raise _cannot_lock(path, error) from error
    finally:
        os.close(fd)


@asynccontextmanager
async def locked(
    path: Path, mode: LockMode, *, is_brief: bool = True, turnstile: Turnstile | None = None
) -> AsyncIterator[LockedFile]:
    """Hold the lock on ``path`` for the body, waiting for it as long as it takes; the file is created if need be.

    A cancelled wait ends at once. One that lasts is told of: see ``hearing_waits``; in the log it is a warning if the
    lock ``is_brief``, held by everybody for milliseconds only. With a ``turnstile``, no more than one writer that
    has it too gets the lock before a reader that queues.
    Work that was started in another thread under the lock must have ended before the body does.
    Raises StoreWriteError, StoreError.
    """
    fd = _open(path)
    turn = await _acquired(path, fd, mode, is_brief=is_brief, turnstile=turnstile)
    try:
        yield LockedFile(path, fd, mode)
    finally:
        _give_back(fd, turn)


@asynccontextmanager
async def locked_if_there(path: Path) -> AsyncIterator[LockedFile | None]:
    """Hold the lock on ``path``, shared, in a place where nothing is ever created or written by us.

    None where there is no lock file: then nobody has changed anything there yet, or nobody can. Raises StoreError.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield None
        return
    except OSError as error:
        raise StoreError(f"cannot open the lock file: {error.strerror}", str(path)) from error
    await _acquired(path, fd, LockMode.SHARED, is_brief=True)
    try:
        yield LockedFile(path, fd, LockMode.SHARED)
    finally:
        _release(fd)


async def _acquired(
    path: Path, fd: int, mode: LockMode, *, is_brief: bool, turnstile: Turnstile | None = None
) -> Turn | None:
    """Return when the lock is held, with the turn that is to end with it.

    After any exception ``fd`` is closed, or will be by the thread that waits.
    """
    is_writer = mode is LockMode.EXCLUSIVE
    try:
        acquired = kernel.lock_bytes(fd, mode.value)
        if acquired and is_writer and turnstile is not None and turnstile.is_queued(path):
            kernel.lock_bytes(fd, fcntl.F_UNLCK)  # it was only just free: those who wait come first
            acquired = False
    except OSError as error:
        os.close(fd)
        raise _cannot_lock(path, error) from error
    if acquired:
        return None
    turn = turnstile.queue(path, is_writer=is_writer) if turnstile else None
    await _Wait(path, fd, mode, turn, is_brief=is_brief).finished()
    return turn


class _Wait:
    """One blocking wait for one lock. It owns descriptor and turn until ``finished`` has returned."""

    def __init__(self, path: Path, fd: int, mode: LockMode, turn: Turn | None, *, is_brief: bool) -> None:
        self._path, self._fd, self._mode, self._turn = path, fd, mode, turn
        self._log = _log.warning if is_brief else _log.info
        self._loop = asyncio.get_running_loop()
        self._result: asyncio.Future[None] = self._loop.create_future()
        self._mutex = threading.Lock()
        self._acquired = False
        self._abandoned = False

    async def finished(self) -> None:
        """Return when the lock is held; on any exception it is not, or will be given back at once."""
        threading.Thread(target=self._block, name=f"lock {self._path.name}", daemon=True).start()
        try:
            await self._told()
            self._result.result()
        except BaseException:
            self._result.cancel()
            with self._mutex:
                self._abandoned = True
                acquired = self._acquired
            if acquired:
                _give_back(self._fd, self._turn)
            raise

    async def _told(self) -> None:
        """Wait for the result, telling from time to time what is waited for."""
        listener = _listener.get()
        started, due = self._loop.time(), listener.patience if listener else PATIENCE_SECONDS
        while not self._result.done():
            await asyncio.wait((self._result,), timeout=started + due - self._loop.time())
            if self._result.done():
                return
            due *= 2
            wait = await self._look(self._loop.time() - started)
            holders = ", ".join(map(str, wait.holders)) or "unknown"
            self._log("waits for a lock", path=str(wait.path), seconds=round(wait.seconds, 1), held_by=holders)
            if listener:
                listener.hear(wait)

    async def _look(self, seconds: float) -> LockWait:
        try:
            identity = identity_of(self._fd)
        except OSError:  # no /proc here
            return LockWait(self._path, self._mode, seconds, ())
        holders = await self._loop.run_in_executor(None, holders_of, identity)
        return LockWait(self._path, self._mode, seconds, holders)

    def _block(self) -> None:
        failure: BaseException | None = None
        try:
            if self._turn is not None:
                self._turn.wait()
            if not self._abandoned:
                kernel.lock_bytes(self._fd, self._mode.value, wait=True)
            if self._turn is not None and self._mode is LockMode.SHARED:
                self._turn.end()  # only who writes goes on keeping others back
        except OSError as error:
            failure = _cannot_lock(self._path, error)
            failure.__cause__ = error
        with self._mutex:
            self._acquired = failure is None
            abandoned = self._abandoned
        if failure is not None:
            os.close(self._fd)
            if self._turn is not None:
                self._turn.end()
        elif abandoned:
            _give_back(self._fd, self._turn)
        if not abandoned:
            self._tell(failure)

    def _tell(self, failure: BaseException | None) -> None:
        try:
            self._loop.call_soon_threadsafe(self._settle, failure)
        except RuntimeError:  # the loop was closed under the waiter: nobody will ever take the lock over
            if failure is None:
                _give_back(self._fd, self._turn)

    def _settle(self, failure: BaseException | None) -> None:
        if self._result.done():
            return
        if failure is None:
            self._result.set_result(None)
        else:
            self._result.set_exception(failure)


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        if isinstance(error, PermissionError | FileNotFoundError) or error.errno == errno.EROFS:
            raise StoreWriteError(f"cannot open the lock file: {error.strerror}", str(path)) from error
        raise StoreError(f"cannot open the lock file: {error.strerror}", str(path)) from error


def _cannot_lock(path: Path, error: OSError) -> StoreError:
    return StoreError(
        f"cannot lock: {error.strerror}", str(path), "a network file system without locks cannot hold a store"
    )


def _release(fd: int) -> None:
    try:
        kernel.lock_bytes(fd, fcntl.F_UNLCK)
    finally:
        os.close(fd)


def _give_back(fd: int, turn: Turn | None) -> None:
    """Unlock, and only then let the next one queue no more."""
    try:
        _release(fd)
    finally:
        if turn is not None:
            turn.end()


def _is_file_at(path: Path, fd: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(fd))
    except FileNotFoundError:
        return False
