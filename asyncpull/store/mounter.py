"""Mounting and unmounting: the part of a store's public face that attaches trees to the file system."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from asyncpull.errors import MountError, NotInStoreError
from asyncpull.log import Log
from asyncpull.store.catalog import Catalog
from asyncpull.store.leases import Lease, abandoned
from asyncpull.store.mounts import MountRecord, MountRequest, mount_layer
from asyncpull.store.views import ContainerRecord, ImageRecord, LayerRecord
from asyncpull.waiting import finish

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from asyncpull.lockfile import LockedFile
    from asyncpull.store.layers import LayerReader

_log = Log(__name__)

MountTarget = str | ImageRecord | ContainerRecord | LayerRecord | MountRecord
"""What can be mounted: a record, or an ID or name, which is looked for among containers, then images, then layers."""


class Mounter(Catalog):
    """What an open store can mount."""

    async def mount(self, target: MountTarget, request: MountRequest | None = None) -> Path:
        """Mount a container, writable, or an image, read-only, or count once more; the path is the same every time.

        Of ``request`` only the choice between writable and read-only matters to what is mounted already. Takes
        storage.lock, layers.lock and mountpoints.lock, exclusively, for the time of the mount. Raises NotInStoreError,
        MountError where it cannot be mounted here, or not so, StoreError.
        """
        return await self._mount(*await self._layer_to_mount(target), request or MountRequest())

    async def unmount(self, target: MountTarget, *, force: bool = False) -> int:
        """Count down, and unmount at zero, or at once with ``force``; the count that remains.

        Takes the locks that ``mount`` takes. Raises NotInStoreError, MountError if it is not mounted, StoreError.
        """
        layer_id, _ = await self._layer_to_mount(target)
        return await self._unmount(layer_id, force=force)

    @asynccontextmanager
    async def mounted(self, target: MountTarget, request: MountRequest | None = None) -> AsyncIterator[Path]:
        """``mount`` for the time of the body; unmounted afterwards in every case, cancellation included.

        If the program is killed, the next one to open the store unmounts it. No lock of the store is held while the
        body runs. Raises what ``mount`` raises.
        """
        sections = self._sections
        layer_id, container = await self._layer_to_mount(target)
        leases: list[Lease] = []
        try:
            await sections.chore(lambda: leases.append(Lease.begin(sections.mounts.lease_root, layer_id)))
            path = await self._mount(layer_id, container, request or MountRequest(), leases[0])
            try:
                yield path
            finally:
                await self._count_down(layer_id, leases[0])
        finally:
            for lease in leases:
                await sections.chore(lease.end)

    async def _mount(
        self, layer_id: str, container: ContainerRecord | None, request: MountRequest, lease: Lease | None = None
    ) -> Path:
        sections = self._sections
        made: list[MountRecord] = []

        def mount(layers: LayerReader, counts: LockedFile) -> None:
            made.append(mount_layer(sections.mounts, counts, layers, layer_id, container, request))
            if lease is not None:
                lease.count()

        try:
            async with sections.mounting() as (_, layers, counts):
                await sections.work(mount, layers, counts)
        except BaseException:
            if made:  # for nobody
                await self._count_down(layer_id, lease)
            raise
        return made[0].path

    async def _count_down(self, layer_id: str, lease: Lease | None) -> None:
        """Unmount once, and only then let a cancellation through."""
        job = asyncio.ensure_future(self._unmount(layer_id, force=False, lease=lease))
        await finish(job)
        job.result()

    async def _unmount(self, layer_id: str, *, force: bool, lease: Lease | None = None) -> int:
        sections = self._sections

        def unmount(storage_lock: LockedFile | None, counts: LockedFile) -> int:
            if lease is not None:
                lease.discount()
            return sections.mounts.unmount(storage_lock, counts, layer_id, force=force)

        await sections.chore(sections.mounts.flush, layer_id)
        async with sections.mounting() as (storage_lock, _, counts):
            return await sections.work(unmount, storage_lock, counts)

    async def _end_abandoned_mounts(self) -> None:
        """Count down what programs had ``mounted`` that died. Takes the locks of ``mount`` if there is any."""
        sections = self._sections
        leases: list[Lease] = []
        try:
            await sections.chore(lambda: leases.extend(abandoned(sections.mounts.lease_root)))
            for lease in leases:
                await self._end_abandoned_mount(lease)
        finally:
            for lease in leases:
                lease.leave()

    async def _end_abandoned_mount(self, lease: Lease) -> None:
        try:
            if lease.is_counted:
                _log.warning("a program died that had a layer mounted, unmounting it", layer=lease.layer)
                await self._count_down(lease.layer, lease)
        except MountError as error:
            if any(mount.layer == lease.layer for mount in await self.mounts()):
                lease.count()
                _log.warning("a mount of a program that died stays", layer=lease.layer, reason=str(error))
                return
        await self._sections.chore(lease.end)

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

    async def _unmount_if_mounted(self, layers: Sequence[str]) -> None:
        for mounted in await self.mounts():
            if mounted.layer in layers:
                await self._unmount(mounted.layer, force=True)
