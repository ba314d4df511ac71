"""The images of a store: records, their big data, and their names.

An image's big data is written before its record; what a crash leaves between the two is a directory without a record,
which everybody ignores. A name belongs to one image: whoever takes it leaves the other without.
"""

from __future__ import annotations

import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from asyncpull.errors import DocumentError, InvalidReferenceError, NotInStoreError, StoreCorruptError, StoreError
from asyncpull.spec.digest import Digest
from asyncpull.spec.reference import parse_reference
from asyncpull.spec.schema1 import document_digest
from asyncpull.store.files import disk_errors, kept, make_directory, sweep, sync_file, write_atomic
from asyncpull.store.records import (
    IMAGES,
    big_data_file_name,
    format_time,
    is_time,
    names_added,
    names_removed,
    updated,
)
from asyncpull.store.table import Table, find
from asyncpull.store.views import ImageRecord
from asyncpull.tree.removal import remove_tree

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from asyncpull.lockfile import LockedFile
    from asyncpull.store.additional import LentImage
    from asyncpull.store.staging import NewImage
    from asyncpull.store.table import Rows


class Images:
    """The image store below a graph root."""

    def __init__(self, graph_root: Path, driver: str) -> None:
        self.directory = graph_root / f"{driver}-images"
        self.table: Table[ImageRecord] = Table(self.directory, IMAGES, ImageRecord.from_raw)

    def big_data_path(self, image_id: str, key: str) -> Path:
        """The file that holds an item. Raises NotInStoreError for a key that no file can have."""
        try:
            return self.directory / image_id / big_data_file_name(key)
        except ValueError as error:
            raise NotInStoreError(str(error)) from error


class ImageWriter:
    """The images while their lock is held exclusively; ``rows`` are up to date."""

    def __init__(self, images: Images, lock: LockedFile, lent: Mapping[str, ImageRecord] | None = None) -> None:
        """Load; ``lent`` are the images of other stores. Raises StoreCorruptError, StoreError."""
        self._images, self._lock, self._lent = images, lock, lent or {}
        self.rows: Rows[ImageRecord] = images.table.load(lock)
        sweep(images.directory)

    def find(self, image_id: str) -> ImageRecord | None:
        """The image with this ID, the store's own or a lent one."""
        return self.rows.by_id.get(image_id) or self._lent.get(image_id)

    @contextmanager
    def taken_over(self, lent: LentImage | None) -> Iterator[None]:
        """Have a record of the store's own for a lent image that is to change, as podman; not if the body fails.

        It has the names there, but for those that other images have here. Its copies with other owners stay behind.
        Nothing is done if there is such a record already.
        """
        if lent is None or lent.record.id in self.rows.by_id:
            yield
            return
        with disk_errors(self._images.directory), self._all_or_nothing(lent.record.id, lent.items):
            self._take_over(lent)
            yield

    def put(self, image: NewImage, lent: LentImage | None = None) -> ImageRecord:
        """Record an image, or bring the one with this ID up to date: its items are overwritten, its names added.

        If another store lends it, what it has there stays too.

        Raises StoreCorruptError if the image is there on other layers, NoSpaceError, StoreWriteError, StoreError.
        """
        top = image.layers[-1].id if image.layers else None
        existing = self.rows.by_id.get(image.id)
        if existing is not None and existing.layer != top:
            raise StoreCorruptError(
                f"image {image.id} is recorded on layer {existing.layer}, and should be on {top}",
                str(self._images.directory),
                "remove that image and pull again",
            )
        directory = self._images.directory / image.id
        lent = lent if lent and lent.record.layer == top else None
        with disk_errors(directory), self.taken_over(lent), self._all_or_nothing(image.id, image.big_data):
            self._write_big_data(directory, image.big_data)
            self._record(image, self.rows.by_id.get(image.id), top)
        return self.rows.by_id[image.id]

    def add_names(self, image_id: str, names: Sequence[str]) -> None:
        """Name an image; the names are taken from images that have them. Raises KeyError if there is no such image."""
        image = self.rows.by_id[image_id]
        named = _named(*names_added(image.names, image.names_history, names))
        changes = {**_losing(self.rows, image_id, names), image_id: named}
        self.rows = self._images.table.change(self._lock, self.rows, changes)

    def remove_names(self, image_id: str, names: Sequence[str]) -> None:
        """Take names from an image."""
        image = self.rows.by_id[image_id]
        named = _named(*names_removed(image.names, image.names_history, names))
        self.rows = self._images.table.change(self._lock, self.rows, {image_id: named})

    def set_mapped_layers(self, image_id: str, layers: Sequence[str]) -> None:
        """Record the copies of an image's top layer that have other owners."""
        self.rows = self._images.table.change(self._lock, self.rows, {image_id: {"mapped-layers": list(layers)}})

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Have the images that are there now again if the body fails. Raises NoSpaceError, StoreError."""
        before = self.rows
        try:
            with self._images.table.kept(self._lock):
                yield
        except BaseException:
            self.rows = before
            raise

    def forget(self, image_id: str) -> None:
        """Drop the record of an image; ``delete_data`` is to follow. Raises NoSpaceError, StoreError."""
        self.rows = self._images.table.change(self._lock, self.rows, {image_id: None})

    def delete_data(self, image_id: str) -> None:
        """Delete the big data of an image that was forgotten. Raises StoreWriteError, StoreError."""
        with disk_errors(self._images.directory):
            remove_tree(self._images.directory / image_id)

    def put_items(self, image_id: str, items: Sequence[tuple[str, bytes]]) -> None:
        """Write items of an image, and record them. Raises NoSpaceError, StoreWriteError, StoreError."""
        directory = self._images.directory / image_id
        with disk_errors(directory), self._all_or_nothing(image_id, items):
            self._write_big_data(directory, items)
            values = _items(self.rows.by_id[image_id], items)
            self.rows = self._images.table.change(self._lock, self.rows, {image_id: values})

    @contextmanager
    def _all_or_nothing(self, image_id: str, items: Iterable[tuple[str, bytes]]) -> Iterator[None]:
        """Write items of an image and record them, or neither; of an image that was not here nothing is left."""
        directory, is_new = self._images.directory / image_id, image_id not in self.rows.by_id
        try:
            make_directory(directory, 0o700)
            sweep(directory)
            with self.kept(), kept([directory / big_data_file_name(key) for key, _ in items]):
                yield
        except BaseException:
            if is_new:
                remove_tree(directory)
            raise

    def _take_over(self, lent: LentImage) -> None:
        image_id = lent.record.id
        directory = self._images.directory / image_id
        self._write_big_data(directory, lent.items)
        taken = {name for image in self.rows.by_id.values() for name in image.names}
        names = [name for name in lent.record.names if name not in taken]
        raw = updated(lent.raw, IMAGES, {"names": names, "mapped-layers": []})
        self.rows = self._images.table.change(self._lock, self.rows, {}, append=(raw,))

    def _write_big_data(self, directory: Path, items: Sequence[tuple[str, bytes]]) -> None:
        for key, data in items:
            write_atomic(directory / big_data_file_name(key), data)
        sync_file(directory)
        sync_file(self._images.directory)

    def _record(self, image: NewImage, existing: ImageRecord | None, top: str | None) -> None:
        values = _items(existing, image.big_data) | {"metadata": image.metadata}
        changes = _losing(self.rows, image.id, image.names)
        if existing is not None:
            named = _named(*names_added(existing.names, existing.names_history, image.names))
            self.rows = self._images.table.change(self._lock, self.rows, {**changes, image.id: {**values, **named}})
            return
        created = image.created if image.created and is_time(image.created) else format_time(time.time_ns())
        values |= {"digest": str(image.digest), "layer": top or "", **_named(*names_added((), (), image.names))}
        raw = updated({"id": image.id, "created": created}, IMAGES, values)
        self.rows = self._images.table.change(self._lock, self.rows, changes, append=(raw,))


def find_image(rows: Rows[ImageRecord], target: str) -> ImageRecord | None:
    """The image that podman would find: by full ID, by name (short, normalised, with a digest), by the beginning of
    an ID, and last by the end of a repository's name.

    Raises StoreError if the beginning of an ID, or the end of a name, fits several images.
    """
    if target in rows.by_id:
        return rows.by_id[target]
    if target.removeprefix("sha256:") in rows.by_id:
        return rows.by_id[target.removeprefix("sha256:")]
    for text in (f"localhost/{target}", target):
        named = _find_named(rows, text)
        if named is not None:
            return named
    return find(rows, lambda image: image.names, target) or _find_by_end(rows, target)


def _find_named(rows: Rows[ImageRecord], text: str) -> ImageRecord | None:
    try:
        reference = parse_reference(text)
    except InvalidReferenceError:
        return None
    for image in rows.by_id.values():
        if reference.store_name in image.names:
            return image
        if str(reference.digest) in image.digests and reference.name in map(_repository, image.names):
            return image  # as podman: the digest alone does not do, the repository must be one of the image's
    return None


def _find_by_end(rows: Rows[ImageRecord], target: str) -> ImageRecord | None:
    digest = target.partition("@")[2]
    found = {
        image.id: image
        for image in rows.by_id.values()
        for name in image.names
        if (_is_end_of_repository(target, name) and digest in image.digests if digest else _is_end_of(target, name))
    }
    if len(found) > 1:
        raise StoreError(
            f"{target!r} is the end of the names of several images", hint="give the name with its registry"
        )
    return next(iter(found.values()), None)


def _is_end_of(end: str, name: str) -> bool:
    """``org/app`` is the end of ``quay.io/org/app:latest``; without a tag it means ``latest``."""
    return (_tag(end) or "latest") == _tag(name) and _is_end_of_repository(end, name)


def _is_end_of_repository(end: str, name: str) -> bool:
    """Whether the repository of ``name`` ends with that of ``end``, in whole components."""
    return f"/{_repository(name)}".endswith(f"/{_repository(end)}")


def own_name(image: ImageRecord, text: str) -> str | None:
    """The name of an image that ``text`` means, if it means one of its names and not its ID."""
    for candidate in (f"localhost/{text}", text):
        try:
            stored = parse_reference(candidate).store_name
        except InvalidReferenceError:
            continue
        if stored in image.names:
            return stored
    if text in image.names:
        return text
    ends = [name for name in image.names if _is_end_of(text, name)]
    return ends[0] if ends else None


def _repository(name: str) -> str:
    """A name without its tag or digest."""
    name = name.partition("@")[0]
    before, colon, tag = name.rpartition(":")
    return before if colon and "/" not in tag else name


def _tag(name: str) -> str:
    """The tag of a name, "" if it has none."""
    name = name.partition("@")[0]
    return name[len(_repository(name)) + 1 :]


def _named(names: list[str], history: list[str]) -> dict[str, object]:
    return {"names": names, "names-history": history}


def _losing(rows: Rows[ImageRecord], taker: str, names: Iterable[str]) -> dict[str, Mapping[str, object]]:
    """The changes to all other images that have one of ``names``; their history keeps it."""
    taken = set(names)
    return {
        image.id: {"names": [name for name in image.names if name not in taken]}
        for image in rows.by_id.values()
        if image.id != taker and taken.intersection(image.names)
    }


def _items(existing: ImageRecord | None, items: Sequence[tuple[str, bytes]]) -> dict[str, object]:
    """The three keys that describe big data, after ``items`` were written; the digest of a manifest is its own."""
    names = list(existing.big_data_names) if existing else []
    sizes = dict(existing.big_data_sizes) if existing else {}
    digests = dict(existing.big_data_digests) if existing else {}
    for key, data in items:
        if key not in names:
            names.append(key)
        sizes[key] = len(data)
        digests[key] = str(_digest(key, data))
    return {"big-data-names": names, "big-data-sizes": sizes, "big-data-digests": digests}


def _digest(key: str, data: bytes) -> Digest:
    """That of the bytes, but of a signed manifest of schema 1 that of what is signed."""
    if key.startswith("manifest"):
        with suppress(DocumentError):
            return document_digest(data)
    return Digest.of(data)
