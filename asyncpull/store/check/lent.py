"""What other stores lend: the rules of an own store, as far as they hold for one that is only read.

Nothing there is repaired, for it is its owner's. What is too much there, or not needed, harms nobody here, and is not
looked for. A record that another store before it has too is not looked at, but for its name: nobody would use it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from asyncpull.store.check.data import check_image_data, check_layer_data
from asyncpull.store.check.findings import Damage, Finding, Remedy, Subject
from asyncpull.store.check.inventory import ids_that_come_twice
from asyncpull.store.check.overlay import check_stack, read_lent_names, read_stack

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncpull.store.additional import AdditionalStore
    from asyncpull.store.check.inventory import Inventory
    from asyncpull.store.driver import Driver
    from asyncpull.store.table import Rows
    from asyncpull.store.views import ImageRecord, LayerRecord

V = TypeVar("V", "LayerRecord", "ImageRecord")


def check_lent(driver: Driver, inventory: Inventory) -> Iterator[Finding]:
    """All that can be told without reading the content of layers; no lock is needed. Raises StoreError."""
    for finding in _all(driver, inventory):
        yield replace(finding, remedy=Remedy.NONE)


def _all(driver: Driver, inventory: Inventory) -> Iterator[Finding]:
    for lent in inventory.lenders:
        yield from _duplicates(Subject.LAYER, lent.layers, str(lent.store.layers.directory))
        yield from _duplicates(Subject.IMAGE, lent.images, str(lent.store.images.directory))
        for layer in lent.layers.by_id.values() if lent.layers else ():
            if inventory.lent.get(layer.id) is layer:
                yield from _layer(lent.store, layer, inventory)
        for image in lent.images.by_id.values() if lent.images else ():
            if inventory.lent_images.get(image.id) is image:
                yield from _image(lent.store, image, inventory)
    yield from _trees(driver, inventory)


def _duplicates(subject: Subject, rows: Rows[V] | None, where: str) -> Iterator[Finding]:
    """Two records of one ID or name; podman resolves that by writing, and opens no store where it cannot."""
    if rows is None:
        return
    for record_id in ids_that_come_twice(rows):
        yield _finding(
            Damage.DUPLICATE_ID, subject, record_id, where, "is recorded twice; only the first record counts"
        )
    names = Counter(name for record in rows.by_id.values() for name in dict.fromkeys(record.names))
    for record in rows.by_id.values():
        for name in record.names:
            if names[name] > 1:
                message = f"has the name {name!r}, and so has another one"
                yield _finding(Damage.DUPLICATE_NAME, subject, record.id, where, message)


def _layer(store: AdditionalStore, layer: LayerRecord, inventory: Inventory) -> Iterator[Finding]:
    yield from check_layer_data(store.layers.directory, layer)
    if layer.parent and inventory.layer(layer.parent) is None:
        message = f"its parent {layer.parent} is not recorded"
        yield _finding(Damage.PARENT_MISSING, Subject.LAYER, layer.id, "", message)
    path = store.tar_split_path(layer.id)
    if layer.diff_digest and not layer.toc_digest and not path.is_file():
        message = "its tar-split is missing, without which it cannot be exported"
        yield _finding(Damage.TAR_SPLIT_MISSING, Subject.LAYER, layer.id, str(path), message)


def _image(store: AdditionalStore, image: ImageRecord, inventory: Inventory) -> Iterator[Finding]:
    yield from check_image_data(store.images.directory, image, inventory)
    for layer in filter(None, (image.layer, *image.mapped_layers)):
        if inventory.layer(layer) is None:
            message = f"its layer {layer} is not recorded"
            yield _finding(Damage.IMAGE_LAYER_MISSING, Subject.IMAGE, image.id, "", message)


def _trees(driver: Driver, inventory: Inventory) -> Iterator[Finding]:
    if not driver.is_layered:
        for layer_id in inventory.lent:
            if not driver.has(layer_id):
                where = str(driver.diff_path(layer_id))
                yield _finding(Damage.TREE_MISSING, Subject.LAYER, layer_id, where, "its tree is missing")
        return
    found = check_stack(inventory, read_stack(driver, inventory.lent), read_lent_names(driver, inventory), {})
    yield from (finding for finding in found if finding.subject is Subject.LAYER)


def _finding(damage: Damage, subject: Subject, record_id: str, path: str, message: str) -> Finding:
    return Finding(damage, subject, record_id, path, message, Remedy.NONE)
