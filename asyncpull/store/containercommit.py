"""A container becomes an image: its writable layer as a layer like all others, on those of its image.

The tree of the container is copied first (shared by reflink where the file system can), and the archive is made from
the copy: so tree, archive and tar-split fit together whatever goes on in the container meanwhile. Files that were being
written may be half written; who minds stops what runs in it.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from asyncpull.dataclass import dataclass
from asyncpull.errors import NotInStoreError, StoreCorruptError, StoreError, UsageError
from asyncpull.layer.changeset import Changeset, Effect
from asyncpull.layer.split import SplitWriter
from asyncpull.layer.stream import TarStream
from asyncpull.spec.derivation import Flavour, Provenance, derive_config, derive_manifest, flavour_of
from asyncpull.spec.digest import Digest
from asyncpull.spec.instruction import parse_instruction
from asyncpull.spec.layerid import layer_id
from asyncpull.spec.manifest import ImageConfig, Manifest, parse_document
from asyncpull.spec.platform import host_platform
from asyncpull.spec.reference import parse_reference
from asyncpull.store.archive import changes_archive, layer_archive
from asyncpull.store.exporter import Exporter, owner_in
from asyncpull.store.files import disk_errors
from asyncpull.store.records import format_time, is_time
from asyncpull.store.staging import NewImage, NewLayer
from asyncpull.tree.changes import drop_sockets, leans_on_others, tidy_layer, tree_changes
from asyncpull.tree.copy import copy_changes, copy_tree
from asyncpull.tree.owners import change_owners
from asyncpull.waiting import finish

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable
    from pathlib import Path

    from asyncpull.store.staging import StagedLayer, Staging
    from asyncpull.store.views import ContainerRecord, ImageRecord, LayerRecord

P = ParamSpec("P")
T = TypeVar("T")

_BASE_NAME = "org.opencontainers.image.base.name"
_BASE_DIGEST = "org.opencontainers.image.base.digest"
_CREATED_BY = "asyncpull commit"


@dataclass(frozen=True, slots=True)
class CommitOptions:
    """What an image made of a container is to say of itself.

    ``names`` are references; one without a registry is of localhost. ``changes`` are instructions as in a
    Containerfile, such as ``CMD ["sh"]``. ``flavour`` is that of the base if it is None. ``created`` is RFC 3339 text,
    None for now: with the same text the same container gives the same image.
    """

    names: tuple[str, ...] = ()
    author: str = ""
    message: str = ""
    changes: tuple[str, ...] = ()
    flavour: Flavour | None = None
    created: str | None = None


@dataclass(frozen=True, slots=True)
class Base:
    """What the container stands on: its image, if it has one, with its documents, and the layers, the base first."""

    image: ImageRecord | None
    manifest: Manifest | None
    config: bytes | None
    layers: tuple[LayerRecord, ...]


@dataclass(frozen=True, slots=True)
class Packed:
    """What is known of a new layer when its archive was made: diff ID, length in bytes, sorted owners."""

    diff_digest: Digest
    diff_size: int
    uidset: tuple[int, ...]
    gidset: tuple[int, ...]


class Packer(Exporter):
    """Makes layers of containers."""

    async def base_of(self, container: ContainerRecord, layer: LayerRecord) -> Base:
        """What a container with the writable layer ``layer`` stands on.

        Raises NotInStoreError, StoreCorruptError, StoreError.
        """
        rows = await self._layer_rows()
        image = await self.image(container.image) if container.image else None
        top = layer.parent
        if image is not None and top in image.mapped_layers:
            top = image.layer
        chain: list[LayerRecord] = []
        while top is not None:
            record = rows.by_id.get(top)
            if record is None or len(chain) > len(rows.by_id):
                raise NotInStoreError(f"layer {top}, below container {container.id[:12]}, is not in the store")
            if not record.diff_digest:
                raise StoreError(f"layer {top} has no digest of its content, so no image can be made on it")
            chain.insert(0, record)
            top = record.parent
        if image is None:
            return Base(None, None, None, tuple(chain))
        manifest = parse_document(await self.big_data(image, "manifest"))
        if not isinstance(manifest, Manifest):
            raise StoreCorruptError(f"the manifest of image {image.id} is an index")
        config = await self.big_data(image, str(manifest.config.digest))
        if [str(digest) for digest in ImageConfig.from_bytes(config).diff_ids] != [each.diff_digest for each in chain]:
            raise StoreCorruptError(f"the layers of image {image.id} are not those that its config names")
        return Base(image, manifest, config, tuple(chain))

    async def pack(self, staging: Staging, layer: LayerRecord, base: Base) -> tuple[StagedLayer, Packed]:
        """Copy the changes of a writable layer into a staged one upon ``base``, and write its tar-split.

        Raises UnsupportedMemberError, MountError, NoSpaceError, StoreWriteError, StoreError.
        """
        driver, sections = self._sections.driver, self._sections
        mappings, in_userns = await self._mappings_of(layer), self.config.rootless
        owner = owner_in(mappings)
        diff = self.diff_path(layer.id)
        if not driver.is_layered:
            old = self.diff_path(base.layers[-1].id) if base.layers else None
            staged = await sections.chore(staging.new_layer, layer.id)

            def fill_whole(stop: Callable[[], None]) -> Packed:
                if staged.base is not None:
                    copy_tree(
                        staged.base, staged.diff, is_whole=True, in_userns=in_userns, owner=owner, checkpoint=stop
                    )
                elif mappings:
                    change_owners(staged.diff, owner)
                    root = staged.diff.lstat()
                    os.chown(staged.diff, *owner(root.st_uid, root.st_gid))
                drop_sockets(staged.diff)
                found = tree_changes(staged.diff, old)
                return _write_split(changes_archive(staged.diff, found), staged, stop)

            return staged, await self._interruptible(fill_whole, diff)
        staged = await sections.chore(staging.new_layer, layer.parent)
        if self._tells_by_marks and not await self._interruptible(lambda _: leans_on_others(diff), diff):
            lowers = (await sections.work(driver.stack, layer.id))[1:]

            def fill_by_marks(stop: Callable[[], None]) -> Packed:
                copy_tree(diff, staged.diff, in_userns=in_userns, owner=owner, checkpoint=stop)
                tidy_layer(staged.diff, lowers, driver.marks)
                return _write_split(layer_archive(staged.diff, driver.marks), staged, stop)

            return staged, await self._interruptible(fill_by_marks, diff)
        async with AsyncExitStack() as stack:
            new, found = await self._changed_by_comparison(layer, stack)

            def fill_by_comparison(stop: Callable[[], None]) -> Packed:
                copy_changes(new, staged.diff, found, driver.marks, in_userns=in_userns, owner=owner, checkpoint=stop)
                packed = _write_split(changes_archive(staged.diff, found), staged, stop)
                drop_sockets(staged.diff)
                return packed

            return staged, await self._interruptible(fill_by_comparison, diff)

    async def _interruptible(self, work: Callable[[Callable[[], None]], T], path: Path) -> T:
        """Slow work in a thread; a cancellation ends it at the next call of what it is given, and waits for that."""
        stopped = threading.Event()

        def stop() -> None:
            if stopped.is_set():
                raise StoreError("cancelled")

        def run() -> T:
            with disk_errors(path):
                return work(stop)

        job = asyncio.ensure_future(self._sections.chore(run))
        try:
            await finish(job, stopped.set)
        except asyncio.CancelledError:
            job.exception()  # nobody else will ask
            raise
        return job.result()


def check_options(options: CommitOptions) -> tuple[str, ...]:
    """The names as the store has them. Raises InvalidReferenceError, UsageError."""
    for change in options.changes:
        parse_instruction(change)
    if options.created is not None and not is_time(options.created):
        raise UsageError(f"{options.created!r} is no time", "write it like 2026-01-02T03:04:05Z")
    return tuple(parse_reference(_with_registry(name)).store_name for name in options.names)


def image_of(base: Base, staged: StagedLayer, packed: Packed, options: CommitOptions) -> NewImage:
    """The image to be committed. Raises DocumentError for a base that cannot be understood."""
    top = base.layers[-1].id if base.layers else None
    layers = [
        NewLayer(layer.id, layer.parent, None, Digest.parse(layer.diff_digest), layer.diff_size)
        for layer in base.layers
    ]
    new = NewLayer(
        id=layer_id(top, packed.diff_digest),
        parent=top,
        staged=staged,
        diff_digest=packed.diff_digest,
        diff_size=packed.diff_size,
        compressed_digest=packed.diff_digest,
        compressed_size=packed.diff_size,
        uidset=packed.uidset,
        gidset=packed.gidset,
    )
    layers.append(new)
    created = options.created or format_time(time.time_ns())
    config = derive_config(
        base.config,
        host_platform(),
        [layer.diff_digest for layer in layers],
        Provenance(created, _CREATED_BY, options.author, options.message),
        [parse_instruction(change) for change in options.changes],
    )
    flavour = options.flavour or flavour_of("" if base.manifest is None else base.manifest.media_type)
    sizes = [(layer.diff_digest, layer.diff_size) for layer in layers]
    manifest = derive_manifest(flavour, config, sizes, _annotations(base))
    digest = Digest.of(manifest)
    return NewImage(
        id=Digest.of(config).encoded,
        digest=digest,
        names=check_options(options),
        layers=tuple(layers),
        big_data=((str(Digest.of(config)), config), (f"manifest-{digest}", manifest), ("manifest", manifest)),
        created=created,
    )


def _annotations(base: Base) -> dict[str, str]:
    if base.image is None or base.manifest is None:
        return {}
    name = {_BASE_NAME: base.image.names[0]} if base.image.names else {}
    return {_BASE_DIGEST: str(base.manifest.digest), **name}


def _with_registry(name: str) -> str:
    """A name as ``podman commit`` takes it: what is not said to be of a registry is of this machine."""
    first, slash, _ = name.partition("/")
    is_registry = slash and ("." in first or ":" in first or first == "localhost")
    return name if is_registry else f"localhost/{name}"


def _write_split(stream: Generator[bytes, None, None], staged: StagedLayer, stop: Callable[[], None]) -> Packed:
    """Read an archive of ours as any other: whatever could not be stored and rebuilt is refused here."""
    sha256 = hashlib.sha256()
    size = 0
    owners: set[tuple[int, int]] = set()
    changeset = Changeset()
    fd = os.open(staged.tar_split, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        split = SplitWriter(file.write)
        tar = TarStream(split)
        for piece in stream:
            stop()
            sha256.update(piece)
            size += len(piece)
            for member, _ in tar.feed(piece):
                if member and changeset.action(member).effect not in (Effect.WHITEOUT, Effect.OPAQUE):
                    owners.add((member.uid, member.gid))
        tar.close()
        split.close()
    return Packed(
        diff_digest=Digest.parse(f"sha256:{sha256.hexdigest()}"),
        diff_size=size,
        uidset=_sorted(uid for uid, _ in owners),
        gidset=_sorted(gid for _, gid in owners),
    )


def _sorted(ids: Iterable[int]) -> tuple[int, ...]:
    return tuple(sorted(set(ids)))
