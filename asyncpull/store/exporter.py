"""What layers change, and their tar streams: the part of a store's public face that takes content out.

No lock is held while trees are read. Layers of images never change; a container is read as it is at that moment, so
whoever wants its files to fit together stops what runs in it.

What reads trees and archives is imported when it is called: a pull opens a store too, and needs none of it.
"""

from __future__ import annotations

import hashlib
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Final, ParamSpec, TypeVar

from asyncpull.errors import DigestMismatchError, StoreError
from asyncpull.store.files import disk_errors
from asyncpull.store.idmap import NO_MAPPINGS, moved
from asyncpull.store.mounter import Mounter
from asyncpull.store.views import LayerRecord
from asyncpull.tree.marks import Marks

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator
    from pathlib import Path

    from asyncpull.store.archive import Owner
    from asyncpull.store.idmap import IDMappings
    from asyncpull.store.mounter import MountTarget
    from asyncpull.tree.changes import Change

P = ParamSpec("P")
T = TypeVar("T")

_PIECE: Final = 1 << 20


class Exporter(Mounter):
    """What can be taken out of an open store."""

    async def changes(self, target: MountTarget, parent: MountTarget | None = None) -> list[Change]:
        """What a layer, the top layer of an image, or a container changes: in its parent, or in any other of them.

        Paths are in the order of a walk. Takes layers.lock, shared, for a moment; where trees must be mounted to be
        compared, also the locks of ``mount``. Raises NotInStoreError, MountError, StoreError.
        """
        from asyncpull.tree.changes import layer_changes, tree_changes

        layer = await self._layer_of(target)
        below = await self._layer_below(layer, parent)
        mappings = await self._mappings_of(layer)
        owner = owner_in(mappings, NO_MAPPINGS if below is None else await self._mappings_of(below))
        base = None if below is None else below.id
        driver, sections = self._sections.driver, self._sections
        if base == layer.parent and self._tells_by_marks:
            lowers = (await sections.work(driver.stack, layer.id))[1:]
            diff = self.diff_path(layer.id)
            found = await sections.chore(_translated, diff, layer_changes, diff, lowers, driver.marks, owner)
            if found is not None:
                return found
        async with AsyncExitStack() as stack:
            new = await self._whole_tree(layer.id, stack)
            old = None if base is None else await self._whole_tree(base, stack)
            return await sections.chore(_translated, new, tree_changes, new, old, owner)

    async def export(self, target: MountTarget) -> AsyncGenerator[bytes, None]:
        """Yield the tar stream of a layer, of the top layer of an image, or of the writable layer of a container.

        Where there is a tar-split it is, bit for bit, the one that the layer was made from, and verified: a consumer
        must not trust a stream that did not end. Else it is a new one of what the tree changes. Pieces have 1 MiB at
        most but for headers of that size. Takes layers.lock, shared, for a moment; where trees must be mounted to be
        compared, also the locks of ``mount``, and until the end the mounts stay. Close the generator to give up early.

        Raises NotInStoreError, IntegrityError if a file is not what it was, UnsupportedMemberError for what no layer
        can hold, MountError, StoreError.
        """
        layer = await self._layer_of(target)
        async with AsyncExitStack() as stack:
            stream = await self._stream(layer, stack)
            try:
                while piece := await self._sections.chore(_take, stream):
                    yield piece
            finally:
                await self._sections.chore(stream.close)

    async def _stream(self, layer: LayerRecord, stack: AsyncExitStack) -> Generator[bytes, None, None]:
        from asyncpull.store.archive import changes_archive, layer_archive
        from asyncpull.tarstream import rebuild_layer
        from asyncpull.tree.changes import leans_on_others

        driver, sections = self._sections.driver, self._sections
        tar_split = self.tar_split_path(layer.id)
        if await sections.work(tar_split.exists):
            return _verified(rebuild_layer(tar_split, await sections.work(sections.layers.roots, layer)), layer)
        diff = self.diff_path(layer.id)
        owner = owner_in(await self._mappings_of(layer))
        if self._tells_by_marks and not await sections.chore(_translated, diff, leans_on_others, diff):
            return layer_archive(diff, driver.marks, owner)
        return changes_archive(*await self._changed_by_comparison(layer, stack), owner)

    async def _changed_by_comparison(self, layer: LayerRecord, stack: AsyncExitStack) -> tuple[Path, list[Change]]:
        """The complete tree of a layer, and what is different in it from its parent's, by comparison."""
        from asyncpull.tree.changes import tree_changes

        below = await self._layer_below(layer)
        new = await self._whole_tree(layer.id, stack)
        old = None if below is None else await self._whole_tree(below.id, stack)
        of_old = NO_MAPPINGS if below is None else await self._mappings_of(below)
        owner = owner_in(await self._mappings_of(layer), of_old)
        return new, await self._sections.chore(_translated, new, tree_changes, new, old, owner)

    @property
    def _tells_by_marks(self) -> bool:
        """Whether the tree of a layer has the marks of the kernel; FUSE programs mix several kinds."""
        return self._sections.driver.marks in (Marks.TRUSTED, Marks.USER)

    async def _whole_tree(self, layer_id: str, stack: AsyncExitStack) -> Path:
        """Where the complete tree of a layer is, for as long as ``stack`` is open."""
        if not self._sections.driver.is_layered:
            return self.diff_path(layer_id)
        container = next((each for each in await self.containers() if each.layer == layer_id), None)
        return await stack.enter_async_context(self.mounted(container or await self.layer(layer_id)))

    async def _layer_of(self, target: MountTarget) -> LayerRecord:
        if isinstance(target, LayerRecord):
            return target
        layer_id, _ = await self._layer_to_mount(target)
        return await self.layer(layer_id)

    async def _layer_below(self, layer: LayerRecord, parent: MountTarget | None = None) -> LayerRecord | None:
        if parent is not None:
            return await self._layer_of(parent)
        return None if layer.parent is None else await self.layer(layer.parent)

    async def _mappings_of(self, layer: LayerRecord) -> IDMappings:
        """Whose IDs the tree of a layer has: its own, or those of its container where a mount maps all below it."""
        if layer.mappings:
            return layer.mappings
        return next((each.mappings for each in await self.containers() if each.layer == layer.id), layer.mappings)


def owner_in(mappings: IDMappings, other: IDMappings = NO_MAPPINGS) -> Owner:
    """Who the owner of a file in a tree with ``mappings`` is in one with ``other`` ones; without, in an archive."""
    if mappings == other:
        return lambda uid, gid: (uid, gid)

    def owner(uid: int, gid: int) -> tuple[int, int]:
        try:
            return moved(uid, gid, mappings, other)
        except LookupError as error:
            raise StoreError(f"a file belongs to {uid}:{gid}, whom the ID mappings leave out") from error

    return owner


def _translated(path: Path, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    with disk_errors(path):
        return function(*args, **kwargs)


def _verified(stream: Generator[bytes, None, None], layer: LayerRecord) -> Generator[bytes, None, None]:
    """The same, and at its end the assurance that it has the digest of the layer."""
    if not layer.diff_digest.startswith("sha256:"):
        yield from stream
        return
    sha256 = hashlib.sha256()
    for piece in stream:
        sha256.update(piece)
        yield piece
    if (digest := f"sha256:{sha256.hexdigest()}") != layer.diff_digest:
        raise DigestMismatchError(f"layer {layer.id}", layer.diff_digest, digest, "asyncpull check tells more")


def _take(stream: Generator[bytes, None, None]) -> bytes:
    """The next pieces, put together; nothing at the end."""
    pieces: list[bytes] = []
    size = 0
    while size < _PIECE and (piece := next(stream, None)) is not None:
        pieces.append(piece)
        size += len(piece)
    return b"".join(pieces)
