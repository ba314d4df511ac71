"""The store: everything this package does to containers/storage goes through here.

How locks are held is told in ``sections``; each method here says which ones it takes. A method that was cancelled has
either done all of its work or none of it.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from asyncpull.errors import MountError, NotInStoreError
from asyncpull.lockfile import LockMode, locked
from asyncpull.spec.reference import parse_reference
from asyncpull.store import commit as committing
from asyncpull.store.config import StoreConfig, StoreOverrides, load_config
from asyncpull.store.creation import create_container
from asyncpull.store.driver.overlay import OverlayDriver
from asyncpull.store.files import disk_errors, make_directory
from asyncpull.store.images import find_image, own_name
from asyncpull.store.mounts import MountRecord, mount_layer
from asyncpull.store.removal import name_to_untag, remove_container, remove_image, users_of
from asyncpull.store.sections import Sections
from asyncpull.store.snapshot import StoreSnapshot, StoreStatus, status_of
from asyncpull.store.staging import NewImage, Staging
from asyncpull.store.table import Rows, find
from asyncpull.store.views import ContainerRecord, ImageRecord, LayerRecord
from asyncpull.waiting import finish

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from asyncpull.lockfile import LockedFile
    from asyncpull.spec.digest import Digest
    from asyncpull.store.layers import LayerWriter

R = TypeVar("R")

MountTarget = str | ImageRecord | ContainerRecord | LayerRecord | MountRecord
"""What can be mounted: a record, or an ID or name, which is looked for among containers, then images, then layers."""


class Store:
    """An open store; made by ``Store.open``, and of no use after its body.

    Where podman and an obvious reading of a request differ, podman is followed: an image named by one of several names
    loses only that name, forced or not. Where podman would go ahead, two things are refused: a container that podman
    runs is not removed, and one that is mounted only by force.
    """

    def __init__(self, config: StoreConfig) -> None:
        self.config = config
        driver = OverlayDriver(config.graph_root, config.mount_options, rootless=config.rootless)
        self._sections = Sections(config, driver)
        self._private = config.graph_root / "asyncpull"

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

        Without ``config`` it is what ``load_config`` finds; ``root`` and ``run_root`` win over either.
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
            await store._sections.chore(store._sections.layers.remove_abandoned)
            yield store
        finally:
            store._sections.close()

    def _prepare(self) -> None:
        graph_root = self.config.graph_root
        with disk_errors(graph_root):
            for directory in (*reversed(graph_root.parents), graph_root):
                if not directory.exists():
                    make_directory(directory, 0o700)
            self._sections.driver.prepare()
            for part in (self._sections.layers, self._sections.images, self._sections.containers):
                make_directory(part.directory, 0o700)
            for directory in (self._private, self.spool_root, self._private / "locks"):
                make_directory(directory, 0o700)

    @property
    def spool_root(self) -> Path:
        """Where blobs are received into; other programs of the store leave it alone."""
        return self._private / "spool"

    @asynccontextmanager
    async def image_lock(self, digest: Digest) -> AsyncIterator[None]:
        """Be the only one, among all processes of asyncpull, to pull the manifest ``digest`` into this store.

        Advisory: no other method looks at it. Waits as long as it takes; a task holds at most one of these.
        """
        path = self._private / "locks" / f"{digest.algorithm}-{digest.encoded}"
        while True:
            async with locked(path, LockMode.EXCLUSIVE) as lock:
                if not lock.is_current():
                    continue  # whoever had it before has removed it
                try:
                    yield
                finally:
                    path.unlink(missing_ok=True)
                return

    # --------------------------------------------------------------------------------------------- looking

    async def layers(self) -> list[LayerRecord]:
        """All complete layers, in the order of the records. Takes layers.lock, shared.

        Exclusively for a moment if there are incomplete ones, which are then removed.
        """
        return list((await self._layer_rows()).by_id.values())

    async def images(self) -> list[ImageRecord]:
        """All images. Takes images.lock, shared."""
        return list((await self._sections.read(self._sections.images.table)).by_id.values())

    async def containers(self) -> list[ContainerRecord]:
        """All containers, also those that a reboot may lose. Takes containers.lock, shared."""
        return list((await self._sections.read(self._sections.containers.table)).by_id.values())

    async def layer(self, target: str) -> LayerRecord:
        """The layer with this ID, name, or beginning of an ID. Raises NotInStoreError, StoreError."""
        return _found(find(await self._layer_rows(), lambda layer: layer.names, target), "layer", target)

    async def image(self, target: str) -> ImageRecord:
        """The image that podman would find: by ID, name, name with digest, beginning of an ID, end of a name.

        Raises NotInStoreError, StoreError.
        """
        return _found(find_image(await self._sections.read(self._sections.images.table), target), "image", target)

    async def container(self, target: str) -> ContainerRecord:
        """The container with this ID, name, or beginning of an ID. Raises NotInStoreError, StoreError."""
        rows = await self._sections.read(self._sections.containers.table)
        return _found(find(rows, lambda container: container.names, target), "container", target)

    async def big_data(self, image: ImageRecord, key: str) -> bytes:
        """An item of an image, such as ``manifest``, exactly as it was fetched. Takes images.lock, shared.

        Raises NotInStoreError, StoreError.
        """
        path = self._sections.images.big_data_path(image.id, key)

        def read() -> bytes:
            with disk_errors(path):
                return path.read_bytes()

        if key not in image.big_data_names:
            raise NotInStoreError(f"image {image.id} has no {key}")
        async with locked(self._sections.images.table.lock_path, LockMode.SHARED):
            return await self._sections.work(read)

    async def snapshot(self) -> StoreSnapshot:
        """Layers and images at one moment, for a plan. Takes layers.lock, then images.lock, shared."""
        layers = await self._layer_rows()
        images = await self._sections.read(self._sections.images.table)
        return StoreSnapshot(layers.by_id, images.by_id)

    async def status(self) -> StoreStatus:
        """Driver, roots, counts, sizes, versions. Takes each lock for a moment, shared."""
        snapshot, containers = await self.snapshot(), await self._sections.read(self._sections.containers.table)
        mounts = len(await self.mounts())
        with disk_errors(self.config.graph_root):
            return await self._sections.chore(
                status_of, self.config, snapshot.layers, snapshot.images, containers.by_id, mounts, self.spool_root
            )

    def diff_path(self, layer_id: str) -> Path:
        """Where the content of a layer is; it may vanish whenever the layer is removed."""
        return self._sections.driver.diff_path(layer_id)

    def tar_split_path(self, layer_id: str) -> Path:
        """Where the tar-split of a layer is, if it has one; it may vanish whenever the layer is removed."""
        return self._sections.layers.tar_split_path(layer_id)

    async def _layer_rows(self) -> Rows[LayerRecord]:
        rows = await self._sections.read(self._sections.layers.table)
        if any(layer.is_incomplete for layer in rows.by_id.values()):
            async with self._sections.writing_layers() as layers:
                rows = layers.rows
        return rows

    # ------------------------------------------------------------------------------------------- committing

    @asynccontextmanager
    async def stage(self) -> AsyncIterator[Staging]:
        """Private room for layers, for as long as the body runs; no lock of the store is held.

        What was not committed is deleted at the end. Raises StoreWriteError, NoSpaceError, StoreError.
        """
        staging = Staging(self._sections.driver, self._sections.layers.temp_root)
        try:
            await self._sections.work(staging.open)
            yield staging
        finally:
            await self._sections.chore(staging.remove)

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
        async with sections.writing_layers() as layers, sections.writing_images() as images:
            return await sections.work(committing.commit, layers, images, image)

    # --------------------------------------------------------------------------------------- names of images

    async def tag(self, image: ImageRecord | str, name: str) -> ImageRecord:
        """Give an image one more name, taking it from an image that has it. Takes images.lock, exclusively.

        Raises InvalidReferenceError, NotInStoreError, StoreError.
        """
        stored = parse_reference(name).store_name
        async with self._sections.writing_images() as images:
            target = _found(find_image(images.rows, _id_of(image)), "image", _id_of(image))
            await self._sections.work(images.add_names, target.id, (stored,))
            return images.rows.by_id[target.id]

    async def untag(self, image: ImageRecord | str, name: str) -> ImageRecord:
        """Take a name from an image, which stays, nameless perhaps. Takes images.lock, exclusively.

        Raises InvalidReferenceError, NotInStoreError, also if it is no name of this image, StoreError.
        """
        async with self._sections.writing_images() as images:
            target = _found(find_image(images.rows, _id_of(image)), "image", _id_of(image))
            stored = own_name(target, name)
            if stored is None:
                raise NotInStoreError(f"image {target.id[:12]} has no name {name!r}")
            await self._sections.work(images.remove_names, target.id, (stored,))
            return images.rows.by_id[target.id]

    # -------------------------------------------------------------------------------------------- containers

    async def create_container(self, image: ImageRecord | str, name: str | None = None) -> ContainerRecord:
        """A container on an image: a writable layer, and a record as podman makes them. Without ``name`` it gets one.

        Takes the locks of all records, exclusively, for the time of some renames. Raises NotInStoreError,
        TooManyLayersError, StoreError also if the name is taken, NoSpaceError, StoreWriteError.
        """
        found = await self.image(image) if isinstance(image, str) else image
        async with self.stage() as staging:
            staged = await self._sections.chore(staging.new_layer, found.layer)
            async with self._sections.writing_everything() as every:
                return await self._sections.work(create_container, every, staged, found.id, name)

    async def remove_container(self, container: ContainerRecord | str, *, force: bool = False) -> None:
        """Remove a container and its layer; ``force`` unmounts it first.

        Takes the locks of all records, exclusively; its tree is deleted after them. Raises NotInStoreError,
        InUseError if it is mounted or podman runs it, StoreError.
        """
        sections, target = self._sections, _id_of(container)
        if force:
            await self._unmount_if_mounted([(await self.container(target)).layer])
        async with sections.writing_everything() as every:
            found = _found(find(every.containers.rows, lambda known: known.names, target), "container", target)
            await sections.work(remove_container, every, sections.containers, sections.mounts, found)

    async def remove_image(self, image: ImageRecord | str, *, force: bool = False) -> tuple[str, ...]:
        """Remove an image and the layers that nothing else needs; the names and the image ID that are gone.

        As podman does it: named by one of several names, it only loses that name; by ID, several names need ``force``.
        ``force`` also unmounts it, and removes the containers that use it, unless podman runs one.
        Takes the locks of all records, exclusively; the trees are deleted after them. Raises NotInStoreError,
        InUseError naming the containers, StoreError.
        """
        sections, target = self._sections, _id_of(image)
        if force and name_to_untag(await self.image(target), target, force=True) is None:
            await self._clear_the_way(await self.image(target))
        async with sections.writing_everything() as every:
            found = _found(find_image(every.images.rows, target), "image", target)
            name = name_to_untag(found, target, force=force)
            if name is not None:
                await sections.work(every.images.remove_names, found.id, (name,))
                return (name,)
            await sections.work(remove_image, every, sections.mounts, found)
            return (*found.names, found.id)

    async def _clear_the_way(self, image: ImageRecord) -> None:
        for container in users_of(image, await self.containers()):
            await self.remove_container(container, force=True)
        if image.layer is not None:
            await self._unmount_if_mounted([image.layer])

    async def _unmount_if_mounted(self, layers: Sequence[str]) -> None:
        for mounted in await self.mounts():
            if mounted.layer in layers:
                await self._unmount(mounted.layer, force=True)

    # ------------------------------------------------------------------------------------------------ mounts

    async def mounts(self) -> list[MountRecord]:
        """What is mounted, as it is counted. Takes mountpoints.lock, shared."""
        sections = self._sections
        await sections.work(sections.mounts.prepare)
        async with locked(sections.mounts.lock_path, LockMode.SHARED):
            return list(await sections.work(sections.mounts.list))

    async def mount(self, target: MountTarget) -> Path:
        """Mount a container, writable, or an image, read-only, or count once more; the path is the same every time.

        Takes storage.lock, layers.lock and mountpoints.lock, exclusively, for the time of the mount. Raises
        NotInStoreError, MountError where it cannot be mounted here, StoreError.
        """
        return await self._mount(*await self._layer_to_mount(target))

    async def unmount(self, target: MountTarget, *, force: bool = False) -> int:
        """Count down, and unmount at zero, or at once with ``force``; the count that remains.

        Takes the locks that ``mount`` takes. Raises NotInStoreError, MountError if it is not mounted, StoreError.
        """
        layer_id, _ = await self._layer_to_mount(target)
        return await self._unmount(layer_id, force=force)

    @asynccontextmanager
    async def mounted(self, target: MountTarget) -> AsyncIterator[Path]:
        """``mount`` for the time of the body; unmounted afterwards in every case, cancellation included."""
        layer_id, container = await self._layer_to_mount(target)
        path = await self._mount(layer_id, container)
        try:
            yield path
        finally:
            await self._count_down(layer_id)

    async def _mount(self, layer_id: str, container: ContainerRecord | None) -> Path:
        sections = self._sections
        made: list[MountRecord] = []

        def mount(layers: LayerWriter, counts: LockedFile) -> None:
            made.append(mount_layer(sections.mounts, counts, layers, layer_id, container))

        try:
            async with sections.mounting() as (_, layers, counts):
                await sections.work(mount, layers, counts)
        except asyncio.CancelledError:
            if made:  # for nobody
                await self._count_down(layer_id)
            raise
        return made[0].path

    async def _count_down(self, layer_id: str) -> None:
        """Unmount once, and only then let a cancellation through."""
        job = asyncio.ensure_future(self._unmount(layer_id, force=False))
        await finish(job)
        job.result()

    async def _unmount(self, layer_id: str, *, force: bool) -> int:
        sections = self._sections
        async with sections.mounting() as (storage_lock, _, counts):
            return await sections.work(sections.mounts.unmount, storage_lock, counts, layer_id, force=force)

    async def _layer_to_mount(self, target: MountTarget) -> tuple[str, ContainerRecord | None]:
        if isinstance(target, str):
            target = await self._find_anything(target)
        match target:
            case ContainerRecord():
                return target.layer, target
            case ImageRecord():
                if target.layer is None:
                    raise MountError(f"image {target.id[:12]} has no layers")
                return target.layer, None
            case MountRecord():
                return target.layer, None
        return target.id, None

    async def _find_anything(self, target: str) -> ContainerRecord | ImageRecord | LayerRecord:
        for look in (self.container, self.image, self.layer):
            try:
                return await look(target)
            except NotInStoreError:
                continue
        raise NotInStoreError(f"no container, image or layer {target!r} is in the store")


def _found(record: R | None, noun: str, target: str) -> R:
    if record is None:
        raise NotInStoreError(f"no {noun} {target!r} is in the store")
    return record


def _id_of(target: ImageRecord | ContainerRecord | str) -> str:
    return target if isinstance(target, str) else target.id
