"""What is in a store: the part of its public face that only looks.

Nothing here changes the store, but for incomplete layers, which whoever finds them removes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from asyncpull.errors import NotInStoreError, StoreError
from asyncpull.lockfile import LockMode
from asyncpull.store.files import disk_errors
from asyncpull.store.images import find_image
from asyncpull.store.sizes import ImageSize, image_sizes
from asyncpull.store.snapshot import StoreSnapshot, StoreStatus, status_of
from asyncpull.store.table import Rows, find

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from asyncpull.spec.digest import Digest
    from asyncpull.store.config import StoreConfig
    from asyncpull.store.mounts import MountRecord
    from asyncpull.store.sections import Sections
    from asyncpull.store.views import ContainerRecord, ImageRecord, LayerRecord
    from asyncpull.tree.marks import Marks

R = TypeVar("R")


class Catalog:
    """The layers, images, containers and mounts of an open store, as data."""

    def __init__(self, config: StoreConfig, sections: Sections) -> None:
        self.config = config
        self._sections = sections
        self._private = config.graph_root / "asyncpull"

    @property
    def spool_root(self) -> Path:
        """Where blobs are received into; other programs of the store leave it alone."""
        return self._private / "spool"

    @property
    def staging_roots(self) -> tuple[Path, ...]:
        """Where layers of images are staged: their trees, and their tar-splits."""
        return self._sections.driver.homes.staging_root(for_images=True), self._sections.layers.temp_root

    @property
    def content_roots(self) -> tuple[Path, ...]:
        """Where trees and tar-splits of layers are, those that other stores lend included."""
        sections = self._sections
        lent = (store.layers.directory for store in sections.additional)
        return *sections.driver.homes.all, sections.layers.directory, *lent

    async def layers(self) -> list[LayerRecord]:
        """All complete layers, in the order of the records. Takes layers.lock, shared.

        Exclusively for a moment if there are incomplete ones, which are then removed. Raises StoreCorruptError,
        StoreError.
        """
        return list((await self._layer_rows()).by_id.values())

    async def images(self) -> list[ImageRecord]:
        """All images; those that other stores lend are read-only. Takes images.lock, shared.

        Raises StoreCorruptError, StoreError.
        """
        return list((await self._image_rows()).by_id.values())

    async def containers(self) -> list[ContainerRecord]:
        """All containers, also those that a reboot may lose. Takes containers.lock, shared.

        Raises StoreCorruptError, StoreError.
        """
        return list((await self._sections.read(self._sections.containers.table)).by_id.values())

    async def layer(self, target: str) -> LayerRecord:
        """The layer with this ID, name, beginning of an ID, or digest. Takes layers.lock, shared, as ``layers`` does.

        Raises NotInStoreError; StoreError, also if several are meant.
        """
        rows = await self._layer_rows()
        if ":" in target and target not in rows.by_id:
            return require(_only(_layers_with_digest(rows, target), target), "layer", target)
        return require(find(rows, lambda layer: layer.names, target), "layer", target)

    async def layers_with_digest(self, digest: Digest | str) -> list[LayerRecord]:
        """The layers with this diff ID, or made from a blob with this digest; several, if on several parents.

        Takes layers.lock, shared, as ``layers`` does. Raises StoreError.
        """
        return _layers_with_digest(await self._layer_rows(), str(digest))

    async def images_with_digest(self, digest: Digest | str) -> list[ImageRecord]:
        """The images with this digest: that of a manifest, of the index it came through, or of the config.

        Takes images.lock, shared. Raises StoreError.
        """
        text = str(digest)
        return [image for image in await self.images() if text in image.digests or text == f"sha256:{image.id}"]

    async def image_sizes(self) -> dict[str, ImageSize]:
        """What every image takes, alone and shared with others, in bytes, by image ID.

        Takes layers.lock, then images.lock, shared. Raises StoreError.
        """
        snapshot = await self.snapshot()
        return await self._sections.work(image_sizes, snapshot.images, snapshot.layers)

    async def image(self, target: str) -> ImageRecord:
        """The image that podman would find: by ID, name, name with digest, beginning of an ID, end of a name.

        Takes images.lock, shared. Raises NotInStoreError, StoreError.
        """
        return require(find_image(await self._image_rows(), target), "image", target)

    async def container(self, target: str) -> ContainerRecord:
        """The container with this ID, name, or beginning of an ID. Takes containers.lock, shared.

        Raises NotInStoreError, StoreError.
        """
        return find_container(await self._sections.read(self._sections.containers.table), target)

    async def big_data(self, image: ImageRecord, key: str) -> bytes:
        """An item of an image, such as ``manifest``, exactly as it was fetched. Takes images.lock, shared.

        Raises NotInStoreError, StoreError.
        """
        paths = [self._sections.images.big_data_path(image.id, key)]
        paths += [store.images.directory / image.id / paths[0].name for store in self._sections.additional]
        path = next((path for path in paths if path.exists()), paths[0])

        def read() -> bytes:
            with disk_errors(path):
                return path.read_bytes()

        if key not in image.big_data_names:
            raise NotInStoreError(f"image {image.id} has no {key}")
        if path != paths[0] or self._sections.is_read_only:
            return await self._sections.work(read)  # nobody who keeps to the rules changes it
        async with self._sections.locked(self._sections.images.table.lock_path, LockMode.SHARED):
            return await self._sections.work(read)

    async def container_data(self, container: ContainerRecord | str, key: str) -> bytes:
        """An item that was stored with a container. Takes containers.lock, shared. Raises NotInStoreError, StoreError.

        The keys there are, with sizes in bytes and digests, are in the record.
        """
        sections, target = self._sections, container if isinstance(container, str) else container.id
        async with sections.locked(sections.containers.table.lock_path, LockMode.SHARED) as lock:
            found = find_container(await sections.work(sections.containers.table.load, lock), target)
            return await sections.work(sections.containers.read_big_data, found, key)

    async def container_directory(self, container: ContainerRecord | str) -> Path:
        """The directory that belongs to whoever made a container; made if it is missing, deleted with the container.

        Takes containers.lock, shared. Raises NotInStoreError, StoreWriteError, StoreError.
        """
        return await self._container_directory(container, self._sections.containers.data_path)

    async def container_run_directory(self, container: ContainerRecord | str) -> Path:
        """The same in the run root, for what a reboot may lose. Takes containers.lock, shared.

        Raises NotInStoreError, StoreWriteError, StoreError.
        """
        return await self._container_directory(container, self._sections.containers.run_path)

    async def _container_directory(self, container: ContainerRecord | str, place: Callable[[str], Path]) -> Path:
        sections, target = self._sections, container if isinstance(container, str) else container.id
        async with sections.locked(sections.containers.table.lock_path, LockMode.SHARED) as lock:
            found = find_container(await sections.work(sections.containers.table.load, lock), target)
            return await sections.work(sections.containers.make_directory, place(found.id))

    async def snapshot(self) -> StoreSnapshot:
        """Layers and images at one moment, for a plan. Takes layers.lock and, inside of it, images.lock, shared.

        Every image's layers are among the layers, unless they are lent. Raises StoreCorruptError, StoreError.
        """
        layers, images = await self._sections.read_layers_and_images()
        layers, images = await self._with_all_layers(layers), await self._with_lent_images(images)
        return StoreSnapshot(layers.by_id, images.by_id)

    async def status(self) -> StoreStatus:
        """Driver, roots, counts, sizes in bytes, versions. Takes each lock of records for a moment, shared.

        Raises StoreCorruptError, StoreError.
        """
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
        return self._sections.tar_split_path(layer_id)

    async def mounts(self) -> list[MountRecord]:
        """What is mounted, as it is counted. Takes mountpoints.lock, shared. Raises StoreError."""
        sections = self._sections
        await sections.work(sections.mounts.prepare)
        async with sections.locked(sections.mounts.lock_path, LockMode.SHARED):
            return list(await sections.work(sections.mounts.list))

    @property
    def marks(self) -> Marks:
        """How the trees of this store say that something below them is deleted."""
        return self._sections.driver.marks

    @property
    def is_layered(self) -> bool:
        """Whether the tree of a layer holds only what the layer changes; else it is complete."""
        return self._sections.driver.is_layered

    async def _layer_rows(self) -> Rows[LayerRecord]:
        return await self._with_all_layers(await self._sections.read(self._sections.layers.table))

    async def _image_rows(self) -> Rows[ImageRecord]:
        return await self._with_lent_images(await self._sections.read(self._sections.images.table))

    async def _with_all_layers(self, rows: Rows[LayerRecord]) -> Rows[LayerRecord]:
        """Without those whose makers died, which no image has, and with those that are lent."""
        if any(layer.is_incomplete for layer in rows.by_id.values()):
            rows = replace(rows, by_id={key: each for key, each in rows.by_id.items() if not each.is_incomplete})
            if not self._sections.is_read_only:
                async with self._sections.writing_layers():
                    pass  # whoever has the lock removes them
        lent = await self._sections.lent_layers()
        return replace(rows, by_id={**rows.by_id, **_others(lent, rows.by_id)}) if lent else rows

    async def _with_lent_images(self, rows: Rows[ImageRecord]) -> Rows[ImageRecord]:
        lent = await self._sections.lent_images()
        return replace(rows, by_id={**rows.by_id, **_others(lent, rows.by_id)}) if lent else rows


def _layers_with_digest(rows: Rows[LayerRecord], digest: str) -> list[LayerRecord]:
    return [layer for layer in rows.by_id.values() if digest in (layer.diff_digest, layer.compressed_digest)]


def _only(records: Sequence[R], target: str) -> R | None:
    if len(records) > 1:
        raise StoreError(f"several layers have the digest {target}", hint="give the ID of the one that is meant")
    return records[0] if records else None


def find_container(rows: Rows[ContainerRecord], target: str) -> ContainerRecord:
    """The container with this ID, name, or beginning of an ID. Raises NotInStoreError, StoreError."""
    return require(find(rows, lambda container: container.names, target), "container", target)


def _others(lent: Mapping[str, R], own: Mapping[str, R]) -> dict[str, R]:
    return {key: record for key, record in lent.items() if key not in own}


def require(record: R | None, noun: str, target: str) -> R:
    """The record that was looked for. Raises NotInStoreError."""
    if record is None:
        raise NotInStoreError(f"no {noun} {target!r} is in the store")
    return record
