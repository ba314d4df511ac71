"""The critical sections of a store: which locks, in which order, and where the work under them is done.

Locks are taken in the one order that all programs of the store share, and given back in the opposite one::

    storage.lock  ->  layers.lock  ->  mountpoints.lock  ->  images.lock  ->  containers.lock

1. A section is as short as the disk allows: every start of podman takes these locks exclusively. Nothing is downloaded,
   extracted, copied or deleted in one.
2. The work of a section is synchronous code in a thread, and runs to its end even if the task that waits for it is
   cancelled: only then are the locks given back.
3. Those threads never wait for a lock, so that a holder can always finish. Slow work without a lock (deleting trees,
   syncing a file system) has threads of its own, and does not keep a holder waiting.
4. Trees to be deleted are moved aside in a section and deleted after it.
"""

from __future__ import annotations

import asyncio
import functools
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from asyncpull.errors import StoreError
from asyncpull.lockfile import LockMode, locked
from asyncpull.store.containers import Containers, ContainerWriter
from asyncpull.store.images import Images, ImageWriter
from asyncpull.store.layers import Layers, LayerWriter
from asyncpull.store.mounts import Mounts
from asyncpull.waiting import finish

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from concurrent.futures import Executor

    from asyncpull.lockfile import LockedFile
    from asyncpull.store.config import StoreConfig
    from asyncpull.store.driver import Driver
    from asyncpull.store.table import Rows, Table, View

P = ParamSpec("P")
T = TypeVar("T")
V = TypeVar("V", bound="View")


@dataclass(frozen=True, slots=True)
class Everything:
    """All records, locked exclusively and up to date; ``mounts_lock`` guards the counts of ``Mounts``."""

    layers: LayerWriter
    images: ImageWriter
    containers: ContainerWriter
    mounts_lock: LockedFile


@dataclass(frozen=True, slots=True)
class RecordLocks:
    """The locks of the three tables, held."""

    layers: LockedFile
    images: LockedFile
    containers: LockedFile


class Sections:
    """The parts of one store, and the ways to lock them."""

    def __init__(self, config: StoreConfig, driver: Driver) -> None:
        self.driver = driver
        self.layers = Layers(config.graph_root, driver, is_synced=config.is_synced)
        self.images = Images(config.graph_root, driver.name)
        self.containers = Containers(config.graph_root, config.run_root, driver.name)
        self.mounts = Mounts(config.run_root, driver)
        self._storage_lock = config.graph_root / "storage.lock"
        self._holders = ThreadPoolExecutor(8, thread_name_prefix="store")
        self._chores = ThreadPoolExecutor(2, thread_name_prefix="store-chore")
        self._closed = False

    def close(self) -> None:
        """End the threads, when what they do now is done."""
        self._closed = True
        self._holders.shutdown(wait=False)
        self._chores.shutdown(wait=False)

    async def work(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do the work of a section; it has ended when this returns or raises, a cancellation included."""
        return await self._to_the_end(self._holders, functools.partial(function, *args, **kwargs))

    async def chore(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do slow work that no lock is held for; it too has ended when this returns or raises."""
        return await self._to_the_end(self._chores, functools.partial(function, *args, **kwargs))

    async def read(self, table: Table[V]) -> Rows[V]:
        """The records of one table as they are now, under its lock, shared, for the time of reading them."""
        async with locked(table.lock_path, LockMode.SHARED) as lock:
            return await self.work(table.load, lock)

    @asynccontextmanager
    async def reading_everything(self) -> AsyncIterator[RecordLocks]:
        """All locks of records, shared, that of the mount counts among them."""
        await self.work(self.mounts.prepare)
        async with (
            locked(self.layers.table.lock_path, LockMode.SHARED) as layers,
            locked(self.mounts.lock_path, LockMode.SHARED),
            locked(self.images.table.lock_path, LockMode.SHARED) as images,
            locked(self.containers.table.lock_path, LockMode.SHARED) as containers,
        ):
            yield RecordLocks(layers, images, containers)

    @asynccontextmanager
    async def writing_layers(self) -> AsyncIterator[LayerWriter]:
        """layers.lock, exclusively. What was moved aside is deleted when the lock has been given back."""
        trash = self.layers.trash()
        try:
            async with locked(self.layers.table.lock_path, LockMode.EXCLUSIVE) as lock:
                yield await self.work(LayerWriter, self.layers, lock, trash)
        finally:
            if not trash.is_empty:
                await self.chore(trash.delete)

    @asynccontextmanager
    async def writing_images(self) -> AsyncIterator[ImageWriter]:
        """images.lock, exclusively; layers.lock, if it is needed, is taken before."""
        async with locked(self.images.table.lock_path, LockMode.EXCLUSIVE) as lock:
            yield await self.work(ImageWriter, self.images, lock)

    @asynccontextmanager
    async def writing_everything(self) -> AsyncIterator[Everything]:
        """All locks of records, exclusively. What removed containers leave is deleted after."""
        await self.work(self.mounts.prepare)
        removed: list[str] = []
        try:
            async with AsyncExitStack() as stack:
                layers = await stack.enter_async_context(self.writing_layers())
                mounts_lock = await stack.enter_async_context(locked(self.mounts.lock_path, LockMode.EXCLUSIVE))
                images = await stack.enter_async_context(self.writing_images())
                containers = await stack.enter_async_context(self.writing_containers(removed))
                yield Everything(layers, images, containers, mounts_lock)
        finally:
            if removed:
                await self.chore(self.containers.remove_directories, removed)

    @asynccontextmanager
    async def writing_containers(self, removed: list[str] | None = None) -> AsyncIterator[ContainerWriter]:
        """containers.lock, exclusively; other locks, if they are needed, are taken before. ``removed`` gets IDs."""
        async with locked(self.containers.table.lock_path, LockMode.EXCLUSIVE) as lock:
            yield await self.work(ContainerWriter, self.containers, lock, [] if removed is None else removed)

    @asynccontextmanager
    async def mounting(self) -> AsyncIterator[tuple[LockedFile, LayerWriter, LockedFile]]:
        """What mounting and unmounting need: storage.lock, the layers, the lock of the counts."""
        await self.work(self.mounts.prepare)
        async with AsyncExitStack() as stack:
            storage_lock = await stack.enter_async_context(locked(self._storage_lock, LockMode.EXCLUSIVE))
            layers = await stack.enter_async_context(self.writing_layers())
            counts_lock = await stack.enter_async_context(locked(self.mounts.lock_path, LockMode.EXCLUSIVE))
            yield storage_lock, layers, counts_lock

    async def _to_the_end(self, executor: Executor, job: Callable[[], T]) -> T:
        if self._closed:
            raise StoreError("the store is closed")
        future = asyncio.get_running_loop().run_in_executor(executor, job)
        try:
            await finish(future)
        except asyncio.CancelledError:
            future.exception()  # it has ended; nobody else will ask how
            raise
        return future.result()
