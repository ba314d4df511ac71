"""What is in a store: the part of its public face that only looks.

Nothing here changes the store, but for incomplete layers, which whoever finds them removes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from asyncpull.errors import NotInStoreError
from asyncpull.lockfile import LockMode, locked
from asyncpull.store.files import disk_errors
from asyncpull.store.images import find_image
from asyncpull.store.snapshot import StoreSnapshot, StoreStatus, status_of
from asyncpull.store.table import Rows, find

if TYPE_CHECKING:
    from pathlib import Path

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
        return require(find(await self._layer_rows(), lambda layer: layer.names, target), "layer", target)

    async def image(self, target: str) -> ImageRecord:
        """The image that podman would find: by ID, name, name with digest, beginning of an ID, end of a name.

        Raises NotInStoreError, StoreError.
        """
        return require(find_image(await self._sections.read(self._sections.images.table), target), "image", target)

    async def container(self, target: str) -> ContainerRecord:
        """The container with this ID, name, or beginning of an ID. Raises NotInStoreError, StoreError."""
        rows = await self._sections.read(self._sections.containers.table)
        return require(find(rows, lambda container: container.names, target), "container", target)

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

    async def mounts(self) -> list[MountRecord]:
        """What is mounted, as it is counted. Takes mountpoints.lock, shared."""
        sections = self._sections
        await sections.work(sections.mounts.prepare)
        async with locked(sections.mounts.lock_path, LockMode.SHARED):
            return list(await sections.work(sections.mounts.list))

    @property
    def marks(self) -> Marks:
        """How the trees of this store say that something below them is deleted."""
        return self._sections.driver.marks

    async def _layer_rows(self) -> Rows[LayerRecord]:
        rows = await self._sections.read(self._sections.layers.table)
        if any(layer.is_incomplete for layer in rows.by_id.values()):
            async with self._sections.writing_layers() as layers:
                rows = layers.rows
        return rows


def require(record: R | None, noun: str, target: str) -> R:
    """The record that was looked for. Raises NotInStoreError."""
    if record is None:
        raise NotInStoreError(f"no {noun} {target!r} is in the store")
    return record
