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
5. Additional image stores are read before a section, each under its own lock alone (see ``additional``).
6. Processes of ours take turns, so that no reader waits for more than the writer that has the lock and perhaps the next
   one (see ``turnstile``); the queue is in the graph root, ``asyncpull/turnstile``.
7. Where images are kept apart, layers have two locks, taken in the order graph root, image root. On read-only media
   nobody writes: there records are read under locks where there are lock files, and mounts are all that is locked.
"""

from __future__ import annotations

import asyncio
import functools
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from asyncpull.dataclass import dataclass
from asyncpull.errors import StoreCorruptError, StoreError, StoreWriteError
from asyncpull.lockfile import LockMode, locked, locked_if_there
from asyncpull.store.additional import AdditionalStore, Lent, LentImage
from asyncpull.store.containers import Containers, ContainerWriter
from asyncpull.store.files import disk_errors
from asyncpull.store.images import Images, ImageWriter
from asyncpull.store.layers import LayerReader, Layers, LayerWriter
from asyncpull.store.mounts import Mounts
from asyncpull.turnstile import Turnstile
from asyncpull.waiting import finish

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from concurrent.futures import Executor
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from asyncpull.lockfile import LockedFile
    from asyncpull.store.config import StoreConfig
    from asyncpull.store.driver import Driver
    from asyncpull.store.table import Rows, Table, View
    from asyncpull.store.views import ImageRecord, LayerRecord

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
    """The locks of the three tables, held, or None where nobody can write; and what other stores lend."""

    layers: LockedFile | None
    images: LockedFile | None
    containers: LockedFile | None
    lent: tuple[Lent, ...]


class Sections:
    """The parts of one store, and the ways to lock them."""

    def __init__(self, config: StoreConfig, driver: Driver) -> None:
        self.driver = driver
        self.is_read_only = config.is_read_only
        self.layers = Layers(
            config.graph_root,
            driver,
            is_synced=config.is_synced,
            image_root=config.image_root,
            volatile_root=config.run_root if config.is_transient else None,
        )
        self.images = Images(config.image_root or config.graph_root, driver.name)
        self.containers = Containers(config.graph_root, config.run_root, driver.name, is_transient=config.is_transient)
        self.mounts = Mounts(
            config.run_root,
            driver,
            binds_home=not config.skips_mount_home,
            allows_volatile=not config.disables_volatile,
        )
        # Images that lie beside the containers, from before a place of their own was configured, still serve.
        former = (config.graph_root,) if config.image_root else ()
        self.additional = tuple(AdditionalStore(root, driver.name) for root in (*former, *config.additional_roots))
        self._graph_root = config.graph_root
        self._storage_lock = config.graph_root / "storage.lock"
        self._turnstile = Turnstile(
            config.graph_root / "asyncpull" / "turnstile",
            (
                self.layers.table.lock_path,
                self.mounts.lock_path,
                self.images.table.lock_path,
                self.containers.table.lock_path,
            ),
        )
        self._holders = ThreadPoolExecutor(8, thread_name_prefix="store")
        self._chores = ThreadPoolExecutor(2, thread_name_prefix="store-chore")
        self._closed = False

    def close(self) -> None:
        """End the threads, when what they do now is done."""
        self._closed = True
        self._turnstile.close()
        self._holders.shutdown(wait=False)
        self._chores.shutdown(wait=False)

    async def work(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do the work of a section; it has ended when this returns or raises, a cancellation included.

        What it raises as an OSError is a StoreError, StoreWriteError or NoSpaceError.
        """
        return await self._to_the_end(self._holders, functools.partial(function, *args, **kwargs))

    async def chore(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do slow work that no lock is held for; as ``work``, it has ended when this returns or raises."""
        return await self._to_the_end(self._chores, functools.partial(function, *args, **kwargs))

    def locked(self, path: Path, mode: LockMode) -> AbstractAsyncContextManager[LockedFile]:
        """Hold one of the locks, as ``lockfile.locked``: those of records and of mounts by turns."""
        return locked(path, mode, turnstile=self._turnstile)

    async def read(self, table: Table[V]) -> Rows[V]:
        """The records of one table as they are now, under its lock, shared, for the time of reading them."""
        async with self._shared(table) as lock:
            return await self.work(table.load, lock)

    async def read_layers_and_images(self) -> tuple[Rows[LayerRecord], Rows[ImageRecord]]:
        """The records of both as they are at one moment: an image and its layers come and go under both locks."""
        async with self._shared(self.layers.table) as lock:
            layers = await self.work(self.layers.table.load, lock)
            return layers, await self.read(self.images.table)

    def tar_split_path(self, layer_id: str) -> Path:
        """The tar-split file of a layer, in whichever store has it; of the layer as our own if none has."""
        own = self.layers.tar_split_path(layer_id)
        lent = (store.tar_split_path(layer_id) for store in self.additional)
        return next((path for path in (own, *lent) if path.exists()), own)

    async def lent_layers(self) -> Mapping[str, LayerRecord]:
        """The complete layers of all additional stores, the first store's first. Takes their locks for a moment."""
        lent: dict[str, LayerRecord] = {}
        for store in self.additional:
            rows = await self._read_lent(store.layers)
            for layer in rows.by_id.values():
                if not layer.is_incomplete:
                    lent.setdefault(layer.id, layer)
        return lent

    async def lent_images(self) -> Mapping[str, ImageRecord]:
        """The images of all additional stores, the first store's first. Takes their locks for a moment."""
        lent: dict[str, ImageRecord] = {}
        for store in self.additional:
            for image in (await self._read_lent(store.images)).by_id.values():
                lent.setdefault(image.id, image)
        return lent

    async def lent_image(self, image_id: str) -> LentImage | None:
        """An image of an additional store, the first that has it, with its data. Takes their locks for a moment.

        Raises StoreError.
        """
        for store in self.additional:
            async with locked_if_there(store.images.lock_path) as lock:
                rows = await self.work(store.images.load, lock)
                image = await self.work(store.read_image, rows, image_id)
            if image is not None:
                return image
        return None

    def require_writable(self) -> None:
        """Raise StoreWriteError if the store is on read-only media."""
        if self.is_read_only:
            raise StoreWriteError(
                "the store is on read-only media, and can only be looked at and mounted read-only",
                str(self._graph_root),
                "name another store with --root, and this one as additionalimagestores in storage.conf",
            )

    @asynccontextmanager
    async def reading_everything(self) -> AsyncIterator[RecordLocks]:
        """All locks of records, shared, that of the mount counts among them."""
        await self.work(self.mounts.prepare)
        lent = tuple([await self._lent_by(store) for store in self.additional])
        async with (
            self._shared(self.layers.table) as layers,
            self.locked(self.mounts.lock_path, LockMode.SHARED),
            self._shared(self.images.table) as images,
            self._shared(self.containers.table) as containers,
        ):
            yield RecordLocks(layers, images, containers, lent)

    @asynccontextmanager
    async def writing_layers(self) -> AsyncIterator[LayerWriter]:
        """layers.lock, exclusively. What was moved aside is deleted when the lock has been given back."""
        self.require_writable()
        lent = await self.lent_layers()
        trash = self.layers.trash()
        try:
            async with self._locked(self.layers.table, LockMode.EXCLUSIVE) as lock:
                yield await self.work(LayerWriter, self.layers, lock, trash, lent)
        finally:
            if not trash.is_empty:
                await self.chore(trash.delete)

    @asynccontextmanager
    async def writing_images(self, lent: Mapping[str, ImageRecord] | None = None) -> AsyncIterator[ImageWriter]:
        """images.lock, exclusively; layers.lock, if it is needed, is taken before."""
        self.require_writable()
        async with self.locked(self.images.table.lock_path, LockMode.EXCLUSIVE) as lock:
            yield await self.work(ImageWriter, self.images, lock, lent)

    @asynccontextmanager
    async def writing_everything(self) -> AsyncIterator[Everything]:
        """All locks of records, exclusively. What removed containers leave is deleted after."""
        self.require_writable()
        await self.work(self.mounts.prepare)
        lent = await self.lent_images()
        removed: list[str] = []
        try:
            async with AsyncExitStack() as stack:
                layers = await stack.enter_async_context(self.writing_layers())
                mounts_lock = await stack.enter_async_context(self.locked(self.mounts.lock_path, LockMode.EXCLUSIVE))
                images = await stack.enter_async_context(self.writing_images(lent))
                containers = await stack.enter_async_context(self.writing_containers(removed))
                yield Everything(layers, images, containers, mounts_lock)
        finally:
            if removed:
                await self.chore(self.containers.remove_directories, removed)

    @asynccontextmanager
    async def writing_containers(self, removed: list[str] | None = None) -> AsyncIterator[ContainerWriter]:
        """containers.lock, exclusively; other locks, if they are needed, are taken before. ``removed`` gets IDs."""
        self.require_writable()
        async with self.locked(self.containers.table.lock_path, LockMode.EXCLUSIVE) as lock:
            yield await self.work(ContainerWriter, self.containers, lock, [] if removed is None else removed)

    @asynccontextmanager
    async def mounting(self) -> AsyncIterator[tuple[LockedFile | None, LayerReader, LockedFile]]:
        """What mounting and unmounting need: storage.lock, the layers, the lock of the counts.

        On read-only media that is the lock of the counts, which are in the run root.
        """
        await self.work(self.mounts.prepare)
        if self.is_read_only:
            rows, lent = await self.read(self.layers.table), await self.lent_layers()
            async with self.locked(self.mounts.lock_path, LockMode.EXCLUSIVE) as counts_lock:
                yield None, LayerReader(rows, lent), counts_lock
            return
        async with AsyncExitStack() as stack:
            storage_lock = await stack.enter_async_context(self.locked(self._storage_lock, LockMode.EXCLUSIVE))
            layers = await stack.enter_async_context(self.writing_layers())
            counts_lock = await stack.enter_async_context(self.locked(self.mounts.lock_path, LockMode.EXCLUSIVE))
            yield storage_lock, layers, counts_lock

    @asynccontextmanager
    async def _locked(self, table: Table[V], mode: LockMode) -> AsyncIterator[LockedFile]:
        async with self.locked(table.lock_path, mode) as lock:
            if table.second_lock_path is None:
                yield lock
                return
            async with self.locked(table.second_lock_path, mode) as second:
                yield lock.with_second(second)

    @asynccontextmanager
    async def _shared(self, table: Table[V]) -> AsyncIterator[LockedFile | None]:
        if self.is_read_only and table.lock_path.is_relative_to(self._graph_root):
            async with locked_if_there(table.lock_path) as there:
                yield there
        else:
            async with self._locked(table, LockMode.SHARED) as lock:
                yield lock

    async def _read_lent(self, table: Table[V]) -> Rows[V]:
        async with locked_if_there(table.lock_path) as lock:
            return await self.work(table.load, lock)

    async def _lent_by(self, store: AdditionalStore) -> Lent:
        unreadable = []
        layers = images = None
        try:
            layers = await self._read_lent(store.layers)
        except StoreCorruptError as error:
            unreadable.append(error)
        try:
            images = await self._read_lent(store.images)
        except StoreCorruptError as error:
            unreadable.append(error)
        return Lent(store, layers, images, tuple(unreadable))

    async def _to_the_end(self, executor: Executor, job: Callable[[], T]) -> T:
        if self._closed:
            raise StoreError("the store is closed")
        future = asyncio.get_running_loop().run_in_executor(executor, job)
        try:
            await finish(future)
        except asyncio.CancelledError:
            future.exception()  # it has ended; nobody else will ask how
            raise
        with disk_errors(self._graph_root):  # a disk can fail at every call, also those that nobody thinks of
            return future.result()
