"""Workshops: hidden directories in or beside a destination, for what is not a part of it yet.

::

    <workshop>/                 ".asyncpull" in a directory, ".NAME.asyncpull" beside a file called NAME
        lock                    held by every copy that is at work here
        index.lock              held while an index is read and written again
        spool/                  blobs that are being received (spool.py): the next copy goes on with them
        kept/                   blobs that are whole, where they wait for the commit: the next copy need not bring them
        new-*                   files that are not whole

1. A workshop is on the file system of its destination, so that what is ready is moved out of it by a rename.
2. Whoever works in it holds the lock: shared where several may write to one destination, exclusively where one may.
3. Who has the lock alone removes what a dead one left, ``new-*``; and, leaving, the workshop, unless something is kept.
   The lock file goes last, by whoever has it exclusively. Who waited for it sees that it is gone, and makes another.
"""

from __future__ import annotations

import os
import shutil
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING

from asyncpull import waiting
from asyncpull.errors import StoreError, StoreWriteError
from asyncpull.lockfile import LockMode, locked, try_lock
from asyncpull.store.files import disk_errors, sync_file, write_new

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path
    from typing import TypeVar

    T = TypeVar("T")

NAME = ".asyncpull"
"""What the workshop in a directory is called."""

_LOCK = "lock"
_INDEX_LOCK = "index.lock"
_NEW = "new-"
_MODE = 0o644
_TRIES = 100
_ELSEWHERE = "choose another place, or run as the owner of this one"


class Workshop:
    """The workshop at ``path`` while its lock is held, from ``open_workshop``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.is_done = False
        """Set it when the copy has reached its end, so that nothing is kept for another try."""

    @property
    def spool_root(self) -> Path:
        """Where blobs are received."""
        return self.path / "spool"

    @property
    def kept(self) -> Path:
        """Where blobs are that are whole; made by whoever puts the first one there."""
        return self.path / "kept"

    @property
    def index_lock(self) -> Path:
        """The lock under which an index is read and written again."""
        return self.path / _INDEX_LOCK

    def new(self) -> Path:
        """A path for a file that is not whole yet; what is left there is removed."""
        return self.path / f"{_NEW}{os.urandom(8).hex()}"

    def publish(self, new: Path, target: Path) -> None:
        """Let a file that is whole and on the disk be ``target``, readable for all. Blocks. Raises OSError."""
        new.chmod(_MODE)
        try:
            new.rename(target)
        except FileNotFoundError:
            target.parent.mkdir(parents=True, exist_ok=True)
            new.rename(target)

    def write(self, target: Path, data: bytes) -> None:
        """Replace ``target`` by ``data``, which is on the disk then; its directory need not be. Blocks.

        Raises OSError.
        """
        new = self.new()
        try:
            write_new(new, data, _MODE)
            sync_file(new)
            self.publish(new, target)
        finally:
            new.unlink(missing_ok=True)


@asynccontextmanager
async def open_workshop(path: Path, *, alone: bool) -> AsyncIterator[Workshop]:
    """Work at ``path`` for the body, ``alone`` or beside others; waits while others do not let us in.

    The directories above it are made, and are removed in the end if they are empty. Raises StoreWriteError,
    NoSpaceError, StoreError.
    """
    workshop = Workshop(path)
    made: list[Path] = []
    try:
        async with AsyncExitStack() as held:
            await _enter(path, made, held, LockMode.EXCLUSIVE if alone else LockMode.SHARED)
            yield workshop
    finally:
        await in_thread(path, lambda: _leave(workshop, made))


async def in_thread(path: Path, work: Callable[[], T], stop: Callable[[], object] = lambda: None) -> T:
    """Do what blocks in a thread, to its end even if we are cancelled, and then give its result.

    ``stop`` is called at a cancellation, to bring the end nearer. Raises NoSpaceError, StoreWriteError, StoreError for
    an OSError, about ``path`` if it names no file.
    """
    with disk_errors(path, _ELSEWHERE):
        return await waiting.in_thread(work, stop)


async def _enter(path: Path, made: list[Path], held: AsyncExitStack, mode: LockMode) -> None:
    """Have the lock held until ``held`` is closed; ``made`` gets the directories that were not there."""
    failure: StoreError | None = None
    for _ in range(_TRIES):
        try:
            await in_thread(path, lambda: _prepare(path, made))
            lock = await held.enter_async_context(locked(path / _LOCK, mode, is_brief=False))
        except StoreError as error:
            if not isinstance(error.__cause__, FileNotFoundError):
                raise
            failure = error  # one who left has removed what we made
            continue
        if lock.is_current():
            return
        await held.aclose()
    raise StoreWriteError("no directory stays there", str(path), _ELSEWHERE) from failure


def _prepare(path: Path, made: list[Path]) -> None:
    """Make the workshop, and remove what the dead left in it, if nobody is in there. Raises OSError."""
    missing = [each for each in path.parents if not each.exists()]
    for each in (*reversed(missing), path):
        _make(each, 0o700 if each == path else 0o777)
    made += missing
    with _alone(path) as is_alone:
        if is_alone:
            _sweep(path)


def _make(path: Path, mode: int) -> None:
    try:
        path.mkdir(mode)
    except FileExistsError:
        if not path.is_dir() and os.path.lexists(path):
            raise


def _leave(workshop: Workshop, made: list[Path]) -> None:
    """Tidy up, unless others are at work. What cannot be removed is not worth an error."""
    path = workshop.path
    with suppress(OSError), _alone(path, unlink=True) as is_alone:
        if is_alone:
            _sweep(path)
            workshop.index_lock.unlink(missing_ok=True)
            for place in (workshop.spool_root, workshop.kept):
                if workshop.is_done:
                    shutil.rmtree(place, ignore_errors=True)
                with suppress(OSError):
                    place.rmdir()
    for directory in (path, *made):
        with suppress(OSError):  # not empty, or gone
            directory.rmdir()


@contextmanager
def _alone(path: Path, *, unlink: bool = False) -> Iterator[bool]:
    """Hold the lock for the body if nobody else has it, and tell it so; ``unlink`` it afterwards."""
    try:
        lock = try_lock(path / _LOCK)
    except StoreError:  # gone, or not ours to write in: whoever needs it will say so
        lock = None
    if lock is None:
        yield False
        return
    try:
        yield True
    finally:
        lock.close(unlink=unlink)


def _sweep(path: Path) -> None:
    for entry in path.iterdir():
        if entry.name.startswith(_NEW):
            entry.unlink(missing_ok=True)
