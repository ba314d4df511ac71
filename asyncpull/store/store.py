"""The store: everything this package does to containers/storage goes through here.

How locks are held is told in ``sections``; each method here says which ones it takes. A method that was cancelled has
either done all of its work or none of it.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from asyncpull.errors import NotInStoreError, StoreWriteError
from asyncpull.lockfile import LockMode, locked
from asyncpull.log import Log
from asyncpull.spec.reference import parse_reference
from asyncpull.store import commit as committing
from asyncpull.store.catalog import find_container, require
from asyncpull.store.config import StoreConfig, StoreOverrides, load_config
from asyncpull.store.containers import ContainerSpec, checked_key
from asyncpull.store.creation import create_container
from asyncpull.store.driver.opening import open_driver
from asyncpull.store.exporter import Exporter
from asyncpull.store.files import disk_errors, make_directory
from asyncpull.store.images import find_image, own_name
from asyncpull.store.removal import name_to_untag, remove_container, remove_image, users_of
from asyncpull.store.sections import Sections
from asyncpull.store.staging import NewImage, Staging
from asyncpull.store.upkeep import Upkeep
from asyncpull.waiting import finish

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from asyncpull.spec.digest import Digest
    from asyncpull.store.additional import LentImage
    from asyncpull.store.containercommit import CommitOptions
    from asyncpull.store.images import ImageWriter
    from asyncpull.store.staging import StagedLayer
    from asyncpull.store.views import ContainerRecord, ImageRecord

# Seconds between two syncs while something is staged, and how long one may take for there to be another one.
_SYNC_PAUSE: Final = 0.25
_SLOW_SYNC: Final = 1.0

_log = Log(__name__)


class Store(Upkeep, Exporter):
    """An open store; made by ``Store.open``, and of no use after its body.

    Where podman and an obvious reading of a request differ, podman is followed: an image named by one of several names
    loses only that name, forced or not. Where podman would go ahead, two things are refused: a container that podman
    runs is not removed, and one that is mounted only by force.
    """

    def __init__(self, config: StoreConfig) -> None:
        super().__init__(config, Sections(config, open_driver(config)))
        self._is_syncing = False

    # ---------------------------------------------------------------------------------------------- opening

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        config: StoreConfig | None = None,
        *,
        root: Path | None = None,
        run_root: Path | None = None,
    ) -> AsyncIterator[Store]:
        """Open a store, making it if there is none, and clear away what dead programs left in it.

        A store on read-only media is opened too: it can be looked at, and what is in it mounted read-only.

        Without ``config`` it is what ``load_config`` finds; ``root`` and ``run_root`` win over either.
        Holds no lock of the store later; those of abandoned temporary directories are only tried, and where a program
        died in the body of ``mounted`` those of ``mount`` are taken, for the time of unmounting.
        Raises ConfigurationError, StoreWriteError, NoSpaceError, StoreError.
        """
        if config is None:
            config = load_config(overrides=StoreOverrides(root, run_root))
        elif root is not None or run_root is not None:
            roots = (root or config.graph_root).resolve(), (run_root or config.run_root).resolve()
            config = replace(config, graph_root=roots[0], run_root=roots[1])
        store = cls(config)
        try:
            await store._sections.work(store._prepare)
            if not store._sections.is_read_only:
                await store._sections.chore(store._sections.layers.remove_abandoned)
            await store._end_abandoned_mounts()
            yield store
        finally:
            store._sections.close()

    def _prepare(self) -> None:
        graph_root, image_root = self.config.graph_root, self.config.image_root
        if self._sections.is_read_only:
            if not self._sections.layers.directory.is_dir():
                self._sections.require_writable()
            self._sections.driver.prepare()
            return
        with disk_errors(graph_root):
            for root in filter(None, (graph_root, image_root)):
                for directory in (*reversed(root.parents), root):
                    if not directory.exists():
                        make_directory(directory, 0o700)
            self._sections.driver.prepare()
            if image_root is not None:
                make_directory(image_root / self._sections.layers.directory.name, 0o700)
            if self.config.is_transient:
                self._sections.mounts.prepare()
                make_directory(self._sections.containers.run_directory, 0o700)
            for part in (self._sections.layers, self._sections.images, self._sections.containers):
                make_directory(part.directory, 0o700)
            # Before anything is staged there, workers must be told of it (``Reach``).
            for directory in (self._private, self.spool_root, self._private / "locks", *self.staging_roots):
                make_directory(directory, 0o700)

    @asynccontextmanager
    async def image_lock(self, digest: Digest) -> AsyncIterator[None]:
        """Be the only one, among all processes of asyncpull, to pull the manifest ``digest`` into this store.

        Advisory: no other method looks at it. Waits as long as it takes; a task holds at most one of these, and takes
        it before any lock of the store. Raises StoreWriteError, StoreError.
        """
        self._sections.require_writable()
        path = self._private / "locks" / f"{digest.algorithm}-{digest.encoded}"
        while True:
            async with locked(path, LockMode.EXCLUSIVE, is_brief=False) as lock:
                if not lock.is_current():
                    continue  # whoever had it before has removed it
                try:
                    yield
                finally:
                    _remove_lock(path)
                return

    # ------------------------------------------------------------------------------------------- committing

    @asynccontextmanager
    async def stage(self, *, for_images: bool = True) -> AsyncIterator[Staging]:
        """Private room for layers, for as long as the body runs; no lock of the store is held.

        Layers of images may have a place of their own: ``for_images`` says whether it is those that are staged. What
        was not committed is deleted at the end. Raises StoreWriteError, also for a rootless store outside of its user
        namespace, NoSpaceError, StoreError.
        """
        self.config.require_trees()
        self._sections.require_writable()
        staging = Staging(self._sections.driver, self._sections.layers.temp_root, for_images=for_images)
        try:
            await self._sections.work(staging.open)
            yield staging
        finally:
            await self._sections.chore(staging.remove)

    @asynccontextmanager
    async def writing_out(self) -> AsyncIterator[None]:
        """Have the disk keep up with what is staged in the body, so that the commit after it has less to wait for.

        The file system is synced four times a second at most, until one sync takes longer than a second: so slow a disk
        has enough to do, and who cancels the body waits for a sync to end. What goes wrong is raised at the end of the
        body, since nobody else will be told. Takes no lock. Raises NoSpaceError, StoreWriteError, StoreError.
        """
        ended = asyncio.Event()
        keeping_up = asyncio.ensure_future(self._keep_up(ended))
        try:
            yield
        finally:
            ended.set()
            await finish(keeping_up)
            failure = keeping_up.exception()
        if failure is not None:
            raise failure

    async def _keep_up(self, ended: asyncio.Event) -> None:
        took = 0.0
        while took < _SLOW_SYNC:
            with suppress(TimeoutError):
                async with asyncio.timeout(_SYNC_PAUSE):
                    await ended.wait()
                    return
            if self._is_syncing:
                continue  # for another pull, and for this one too
            began, self._is_syncing = time.monotonic(), True
            try:
                await self._sections.chore(committing.sync, self._sections.layers)
            finally:
                self._is_syncing = False
            took = time.monotonic() - began

    async def new_layer(self, staging: Staging, parent: str | None, below: StagedLayer | None = None) -> StagedLayer:
        """Make room in ``staging`` for a layer on the layer ``parent``, which is ``below`` where that is staged too.

        Where the driver is not layered, the parent has to be complete. Takes no lock. Raises StoreWriteError,
        NoSpaceError, StoreError.
        """
        return await self._sections.work(staging.new_layer, parent, below)

    async def commit(self, staging: Staging, image: NewImage) -> ImageRecord:
        """Make staged layers, and the image on them, part of the store; after an error it is what it was.

        The staging must not be written to any more. Takes layers.lock and, inside of it, images.lock, exclusively,
        for the time of some renames and syncs. When this returns the image survives a power cut, unless the option
        ``sync`` is ``none``. Raises TooManyLayersError, NotInStoreError if a layer to be reused was removed meanwhile,
        StoreCorruptError, NoSpaceError, StoreWriteError, StoreError.
        """
        staging.require_open()
        committing.check_image(image)
        sections = self._sections
        await sections.chore(committing.prepare, sections.layers, image)
        lent = await sections.lent_image(image.id)
        async with sections.writing_layers() as layers, sections.writing_images() as images:
            return await sections.work(committing.commit, layers, images, image, lent)

    # --------------------------------------------------------------------------------------- names of images

    async def tag(self, image: ImageRecord | str, name: str) -> ImageRecord:
        """Give an image one more name, taking it from an image that has it. Takes images.lock, exclusively.

        An image that another store lends gets a record of this store's own, with all names that it has. That one counts
        from then on; removing it lets the lent one be seen again. Raises InvalidReferenceError, NotInStoreError,
        StoreWriteError, StoreError.
        """
        stored = parse_reference(name).store_name
        lent = await self._lent(_id_of(image))
        async with self._sections.writing_images() as images:
            target = lent.record if lent else require(find_image(images.rows, _id_of(image)), "image", _id_of(image))
            await self._sections.work(_add_name, images, target.id, stored, lent)
            return images.rows.by_id[target.id]

    async def untag(self, image: ImageRecord | str, name: str) -> ImageRecord:
        """Take a name from an image, which stays, nameless perhaps. Takes images.lock, exclusively.

        An image that another store lends gets a record of this store's own, as with ``tag``. Raises
        InvalidReferenceError, NotInStoreError, also if it is no name of this image, StoreWriteError, StoreError.
        """
        lent = await self._lent(_id_of(image))
        async with self._sections.writing_images() as images:
            target = lent.record if lent else require(find_image(images.rows, _id_of(image)), "image", _id_of(image))
            stored = own_name(target, name)
            if stored is None:
                raise NotInStoreError(f"image {target.id[:12]} has no name {name!r}")
            await self._sections.work(_remove_name, images, target.id, stored, lent)
            return images.rows.by_id[target.id]

    # -------------------------------------------------------------------------------------------- containers

    async def create_container(
        self, image: ImageRecord | str | None, name: str | None = None, *, spec: ContainerSpec | None = None
    ) -> ContainerRecord:
        """A container on an image, or on nothing if that is None: a writable layer, and a record as podman makes them.

        ``name`` comes before the names of ``spec``; without any it gets one. With ID mappings that the kernel cannot
        apply to a mount, it stands on a copy of the image's top layer with other owners, which is made first and stays
        with the image. Takes the locks of all records, exclusively, for the time of some renames. Raises
        NotInStoreError, TooManyLayersError, UsageError, StoreError also if a name is taken, NoSpaceError,
        StoreWriteError.
        """
        self._sections.require_writable()
        spec = spec or ContainerSpec()
        if name is not None:
            spec = replace(spec, names=(name, *spec.names))
        if self.config.is_transient:
            spec = replace(spec, is_volatile=True)
        found = await self.image(image) if isinstance(image, str) else image
        top = found.layer if found else None
        if found and spec.mappings:
            from asyncpull.store.mapped import top_for  # here, for no pull needs it

            async with self.stage() as staging:
                top = await top_for(self._sections, staging, found, spec.mappings, in_userns=self.config.rootless)
        async with self.stage(for_images=False) as staging:
            staged = await self.new_layer(staging, top)
            await self._sections.chore(staged.copy_base, in_userns=self.config.rootless)
            async with self._sections.writing_everything() as every:
                image_id = found.id if found else None
                return await self._sections.work(create_container, every, staged, image_id, spec, top)

    async def set_container_data(self, container: ContainerRecord | str, items: Mapping[str, bytes]) -> ContainerRecord:
        """Store items with a container, replacing those of the same keys. Takes containers.lock, exclusively.

        Raises NotInStoreError, UsageError for a key that no file can have, NoSpaceError, StoreWriteError, StoreError.
        """
        pairs = [(checked_key(key), data) for key, data in items.items()]
        async with self._sections.writing_containers() as containers:
            found = find_container(containers.rows, _id_of(container))
            return await self._sections.work(containers.set_big_data, found.id, pairs)

    async def commit_container(
        self, container: ContainerRecord | str, options: CommitOptions | None = None
    ) -> ImageRecord:
        """Make an image of a container: what it changed as a new layer, on the layers of its image.

        The tree is copied and hashed without any lock, while the container may go on; then as ``commit``, with its
        locks. Where trees must be mounted to be compared, also the locks of ``mount`` are taken for a moment.
        Raises UsageError for options that cannot be meant, NotInStoreError, UnsupportedMemberError for what no layer
        can hold, DocumentError if the config of its image is none, MountError, StoreError, and what ``commit`` raises.
        """
        from asyncpull.store.containercommit import CommitOptions, Packer, check_options, image_of

        options = options or CommitOptions()
        check_options(options)
        packer = Packer(self.config, self._sections)
        found = await self.container(_id_of(container))
        layer = await self.layer(found.layer)
        base = await packer.base_of(found, layer)
        async with self.stage() as staging:
            staged, packed = await packer.pack(staging, layer, base)
            return await self.commit(staging, image_of(base, staged, packed, options))

    async def remove_container(self, container: ContainerRecord | str, *, force: bool = False) -> None:
        """Remove a container and its layer; ``force`` unmounts it first.

        Takes the locks of all records, exclusively; its tree is deleted after them. Raises NotInStoreError,
        InUseError if it is mounted or podman runs it, StoreError.
        """
        self.config.require_trees()
        sections, target = self._sections, _id_of(container)
        if force:
            await self._unmount_if_mounted([(await self.container(target)).layer])
        async with sections.writing_everything() as every:
            found = find_container(every.containers.rows, target)
            await sections.work(remove_container, every, sections.containers, sections.mounts, found)

    async def remove_image(self, image: ImageRecord | str, *, force: bool = False) -> tuple[str, ...]:
        """Remove an image and the layers that nothing else needs; the names and the image ID that are gone.

        As podman does it: named by one of several names, it only loses that name; by ID, several names need ``force``.
        ``force`` also unmounts it, and removes the containers that use it, unless podman runs one.
        Takes the locks of all records, exclusively; the trees are deleted after them. Raises NotInStoreError,
        InUseError naming the containers, StoreWriteError if another store lends the image, StoreError.
        """
        self.config.require_trees()
        sections, target = self._sections, _id_of(image)
        await self._require_own(target)
        if force and name_to_untag(await self.image(target), target, force=True) is None:
            await self._clear_the_way(await self.image(target))
        async with sections.writing_everything() as every:
            found = require(find_image(every.images.rows, target), "image", target)
            name = name_to_untag(found, target, force=force)
            if name is not None:
                await sections.work(every.images.remove_names, found.id, (name,))
                return (name,)
            await sections.work(remove_image, every, sections.mounts, found)
            return (*found.names, found.id)

    async def _lent(self, target: str) -> LentImage | None:
        """The image that is meant, if another store lends it. Raises NotInStoreError, StoreWriteError, StoreError."""
        self._sections.require_writable()
        found = await self.image(target)
        return await self._sections.lent_image(found.id) if found.read_only else None

    async def _require_own(self, target: str) -> None:
        """Raise StoreWriteError if an image cannot be removed from here."""
        self._sections.require_writable()
        found = await self.image(target)
        if found.read_only:
            raise StoreWriteError(
                f"image {found.id[:12]} is in an additional image store, where nothing is changed from here",
                hint="change it with the store's own root as --root, or take that store out of additionalimagestores",
            )

    async def _clear_the_way(self, image: ImageRecord) -> None:
        for container in users_of(image, await self.containers()):
            await self.remove_container(container, force=True)
        if image.layer is not None:
            await self._unmount_if_mounted([image.layer])


def _remove_lock(path: Path) -> None:
    """Remove a lock file that is held. What cannot be removed is left for the next one who takes the lock."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        _log.warning("a lock file cannot be removed", path=str(path), reason=str(error))


def _add_name(images: ImageWriter, image_id: str, name: str, lent: LentImage | None) -> None:
    with images.taken_over(lent):
        images.add_names(image_id, (name,))


def _remove_name(images: ImageWriter, image_id: str, name: str, lent: LentImage | None) -> None:
    with images.taken_over(lent):
        images.remove_names(image_id, (name,))


def _id_of(target: ImageRecord | ContainerRecord | str) -> str:
    return target if isinstance(target, str) else target.id
