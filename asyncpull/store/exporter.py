"""What layers change, and their tar streams: the part of a store's public face that takes content out.

No lock is held while trees are read. Layers of images never change; a container is read as it is at that moment, so
whoever wants its files to fit together stops what runs in it.
"""

from __future__ import annotations

import hashlib
from contextlib import AsyncExitStack
from itertools import count, takewhile
from typing import TYPE_CHECKING, Final, ParamSpec, TypeVar

from asyncpull.errors import DigestMismatchError, NotInStoreError, StoreError
from asyncpull.store.archive import changes_archive, layer_archive, same_owner
from asyncpull.store.files import disk_errors
from asyncpull.store.idmap import to_container
from asyncpull.store.mounter import Mounter
from asyncpull.store.views import LayerRecord
from asyncpull.tarstream import rebuild_layer
from asyncpull.tree.changes import layer_changes, leans_on_others, tree_changes
from asyncpull.tree.marks import Marks

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator
    from pathlib import Path

    from asyncpull.store.archive import Owner
    from asyncpull.store.driver import Driver
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
        layer = await self._layer_of(target)
        below = await self._layer_below(layer, parent)
        owner = owner_in(layer, below)
        base = None if below is None else below.id
        driver, sections = self._sections.driver, self._sections
        if base == layer.parent and self._tells_by_marks:
            lowers = [*layer_roots(driver, layer.id)[1:], *await self._trees_below(layer)]
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
        driver, sections = self._sections.driver, self._sections
        tar_split = self.tar_split_path(layer.id)
        if await sections.work(tar_split.exists):
            return _verified(rebuild_layer(tar_split, layer_roots(driver, layer.id)), layer)
        diff = self.diff_path(layer.id)
        owner = owner_in(layer, None)
        if self._tells_by_marks and not await sections.chore(_translated, diff, leans_on_others, diff):
            return layer_archive(diff, driver.marks, owner)
        new = await self._whole_tree(layer.id, stack)
        old = None if layer.parent is None else await self._whole_tree(layer.parent, stack)
        changes = await sections.chore(
            _translated, new, tree_changes, new, old, owner_in(layer, await self._layer_below(layer))
        )
        return changes_archive(new, changes, owner)

    @property
    def _tells_by_marks(self) -> bool:
        """Whether the tree of a layer has the marks of the kernel; FUSE programs mix several kinds."""
        return self._sections.driver.marks in (Marks.TRUSTED, Marks.USER)

    async def _whole_tree(self, layer_id: str, stack: AsyncExitStack) -> Path:
        """Where the complete tree of a layer is, for as long as ``stack`` is open."""
        if not self._sections.driver.is_layered:
            return self.diff_path(layer_id)
        return await stack.enter_async_context(self.mounted(await self.layer(layer_id)))

    async def _layer_of(self, target: MountTarget) -> LayerRecord:
        if isinstance(target, LayerRecord):
            return target
        layer_id, _ = await self._layer_to_mount(target)
        return await self.layer(layer_id)

    async def _layer_below(self, layer: LayerRecord, parent: MountTarget | None = None) -> LayerRecord | None:
        if parent is not None:
            return await self._layer_of(parent)
        return None if layer.parent is None else await self.layer(layer.parent)

    async def _trees_below(self, layer: LayerRecord) -> list[Path]:
        """The trees of all layers below one, the nearest first."""
        rows = await self._layer_rows()
        trees: list[Path] = []
        seen: set[str] = set()
        parent = layer.parent
        while parent is not None:
            if parent not in rows.by_id or parent in seen:
                raise NotInStoreError(f"layer {parent}, below layer {layer.id}, is not in the store")
            seen.add(parent)
            trees += layer_roots(self._sections.driver, parent)
            parent = rows.by_id[parent].parent
        return trees


def layer_roots(driver: Driver, layer_id: str) -> list[Path]:
    """Where the files of a layer are, the nearest first: below one with ID mappings is its older content."""
    first = driver.diff_path(layer_id)
    if not driver.is_layered:
        return [first]
    return [first, *takewhile(lambda path: path.is_dir(), (first.with_name(f"diff{number}") for number in count(1)))]


def owner_in(layer: LayerRecord, other: LayerRecord | None) -> Owner:
    """Who the owner of a file in the tree of ``layer`` is in that of ``other``, or in an archive.

    ID mappings count unless both have the same.
    """
    if not layer.mappings or (other is not None and other.mappings == layer.mappings):
        return same_owner

    def owner(uid: int, gid: int) -> tuple[int, int]:
        try:
            return to_container(uid, layer.uidmap), to_container(gid, layer.gidmap)
        except LookupError as error:
            raise StoreError(f"layer {layer.id} has a file of {uid}:{gid}, whom its ID mappings leave out") from error

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
