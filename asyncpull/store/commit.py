"""Commit an image: staged layers, then the image on them, all or nothing, under one hold of the locks.

What can be done before the lock is done before it: whatever depends on the parents is written into the staged layers as
if nobody else were at work, and the whole file system is synced. Under the lock little is left: the layers that
somebody else made meanwhile are used and ours dropped, what depends on a parent is compared and seldom written again,
and then only names change.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from asyncpull import kernel
from asyncpull.errors import NotInStoreError, StoreCorruptError, TooManyLayersError
from asyncpull.spec.layerid import layer_id
from asyncpull.store.driver import Parent
from asyncpull.store.files import disk_errors
from asyncpull.store.layers import MAX_LAYERS, Addition, new_record
from asyncpull.store.records import big_data_file_name

if TYPE_CHECKING:
    from asyncpull.store.additional import LentImage
    from asyncpull.store.images import ImageWriter
    from asyncpull.store.layers import Layers, LayerWriter
    from asyncpull.store.staging import NewImage, NewLayer
    from asyncpull.store.views import ImageRecord

_ID = re.compile(r"[0-9a-f]{64}")


def check_image(image: NewImage) -> None:
    """Refuse what must never be recorded.

    Raises TooManyLayersError, and ValueError for what only a defect of the caller can bring about.
    """
    if len(image.layers) > MAX_LAYERS:
        raise TooManyLayersError(
            f"image {image.id} has {len(image.layers)} layers; overlay mounts at most {MAX_LAYERS}",
            hint="build the image with fewer layers, or squash it",
        )
    if not _ID.fullmatch(image.id):
        raise ValueError(f"{image.id!r} is not an image ID")
    parent = None
    for layer in image.layers:
        if layer.parent != parent or layer.id != layer_id(parent, layer.diff_digest):
            raise ValueError(f"layer {layer.id} on {layer.parent} is not where its diff ID says it belongs")
        parent = layer.id
    keys = [key for key, _ in image.big_data]
    if "manifest" not in keys or len(set(keys)) != len(keys):
        raise ValueError(f"big data of {keys} is not that of an image")
    for key in keys:
        big_data_file_name(key)


def prepare(layers: Layers, image: NewImage) -> None:
    """Do ahead of the lock what a commit can do ahead. Raises NoSpaceError, StoreWriteError, StoreError."""
    staged = {layer.id: layer.staged for layer in image.layers if layer.staged is not None}
    if not staged:
        return
    with disk_errors(layers.directory):
        for layer in image.layers:
            if layer.staged is None:
                continue
            parent = None
            if layer.parent is not None:
                below = staged.get(layer.parent)
                if below is None and not layers.driver.has(layer.parent):
                    continue  # removed meanwhile: the commit will say so
                directory = below.directory if below else layers.driver.directory(layer.parent)
                parent = Parent(layer.parent, directory)
            layers.driver.connect(layer.staged.directory, parent)
    sync(layers)


def sync(layers: Layers) -> None:
    """Wait until what was written to the file systems of layers is on the disk, unless nobody wants that.

    Raises NoSpaceError, StoreWriteError, StoreError; an error of the disk is told once, to whoever syncs first.
    """
    if layers.is_synced:
        with disk_errors(layers.directory):
            homes = (*layers.driver.homes.own, layers.directory)
            roots = {path.stat().st_dev: path for path in homes}
            for path in roots.values():
                kernel.sync_file_system(path)


def commit(layers: LayerWriter, images: ImageWriter, image: NewImage, lent: LentImage | None = None) -> ImageRecord:
    """Record a checked and prepared image, which another store may lend; after an error the store is what it was.

    Raises NotInStoreError if a layer that was to be reused is gone: pull again. StoreCorruptError, NoSpaceError,
    StoreWriteError, StoreError.
    """
    additions = [_addition(layer) for layer in image.layers if not _is_there(layers, layer)]
    with layers.added(additions):
        return images.put(image, lent)


def _is_there(layers: LayerWriter, layer: NewLayer) -> bool:
    existing = layers.find(layer.id)
    if existing is None:
        return False
    if existing.parent != layer.parent:
        raise StoreCorruptError(f"layer {layer.id} is recorded on {existing.parent}, and belongs on {layer.parent}")
    return True


def _addition(layer: NewLayer) -> Addition:
    if layer.staged is None:
        raise NotInStoreError(f"layer {layer.id} was removed from the store meanwhile", hint="pull the image again")
    record = new_record(
        layer.id,
        layer.parent,
        compressed_diff_digest=str(layer.compressed_digest or ""),
        compressed_size=layer.compressed_size,
        diff_digest=str(layer.diff_digest),
        diff_size=layer.diff_size,
        compression=layer.compression,
        uidset=list(layer.uidset),
        gidset=list(layer.gidset),
    )
    return Addition(record, layer.staged, has_tar_split=True)
