"""Rules about records among each other, and about what has no record: pure, from an inventory to findings."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from asyncpull.store.check.findings import Damage, Finding, Remedy, Subject

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import datetime

    from asyncpull.store.check.inventory import Inventory
    from asyncpull.store.views import ContainerRecord, ImageRecord, LayerRecord

_ID = re.compile(r"[0-9a-f]{64}")
_TAR_SPLIT = ".tar-split.gz"


def check_records(inventory: Inventory, now: datetime, max_age_seconds: float) -> list[Finding]:
    """What is wrong with the records themselves. Layers that nobody needs may be ``max_age_seconds`` old."""
    return [
        *_duplicates(inventory),
        *_layers(inventory),
        *_unreferenced(inventory, now, max_age_seconds),
        *_images(inventory),
        *_containers(inventory),
    ]


def check_strays(inventory: Inventory) -> list[Finding]:
    """What lies in the store without a record. Names that are no IDs belong to somebody else, but for trees."""
    return [
        *(
            _stray(Damage.STRAY_TREE, name, "a directory of a layer that is not recorded")
            for name in sorted(inventory.trees - inventory.layers.keys())
        ),
        *(
            _stray(Damage.STRAY_LAYER_DATA, name, "a file of a layer that is not recorded")
            for name in sorted(inventory.layer_files)
            if _is_stray(name.removesuffix(_TAR_SPLIT), inventory.layers)
        ),
        *(
            _stray(Damage.STRAY_IMAGE_DATA, name, "data of an image that is not recorded")
            for name in sorted(inventory.image_directories)
            if _is_stray(name, inventory.images)
        ),
        *(
            _stray(Damage.STRAY_CONTAINER_DATA, name, "data of a container that is not recorded")
            for name in sorted(inventory.container_directories)
            if _is_stray(name, inventory.containers)
        ),
    ]


def needed_layers(
    inventory: Inventory, images: Iterable[ImageRecord], containers: Iterable[ContainerRecord]
) -> set[str]:
    """The layers on which these images and containers stand, all the way down."""
    tops = {layer for image in images for layer in (image.layer, *image.mapped_layers)}
    tops |= {container.layer for container in containers}
    return {layer.id for top in tops for layer in inventory.chain(top)}


def _stray(damage: Damage, name: str, message: str) -> Finding:
    return Finding(damage, Subject.STORE, "", name, message, Remedy.REMOVE)


def _is_stray(name: str, records: Mapping[str, object]) -> bool:
    return _ID.fullmatch(name) is not None and name not in records


def _duplicates(inventory: Inventory) -> Iterator[Finding]:
    for subject, record_id in inventory.duplicates:
        yield Finding(
            Damage.DUPLICATE_ID, subject, record_id, "", "is recorded twice; only the first record counts", Remedy.NONE
        )
    for subject, records in (
        (Subject.LAYER, inventory.layers.values()),
        (Subject.IMAGE, inventory.images.values()),
        (Subject.CONTAINER, inventory.containers.values()),
    ):
        names = Counter(name for record in records for name in dict.fromkeys(record.names))
        for record in records:
            for name in record.names:
                if names[name] > 1:
                    message = f"has the name {name!r}, and so has another one"
                    yield Finding(Damage.DUPLICATE_NAME, subject, record.id, "", message, Remedy.NONE)


def _layers(inventory: Inventory) -> Iterator[Finding]:
    for layer in inventory.layers.values():
        if layer.is_incomplete:
            message = "was never completed"
            yield Finding(Damage.LAYER_INCOMPLETE, Subject.LAYER, layer.id, "", message, Remedy.REMOVE)
        elif layer.parent and inventory.layer(layer.parent) is None:
            message = f"its parent {layer.parent} is not recorded"
            yield Finding(Damage.PARENT_MISSING, Subject.LAYER, layer.id, "", message, Remedy.REMOVE)
        elif _is_above_itself(inventory, layer):
            message = "its parents lead back to itself"
            yield Finding(Damage.PARENT_MISSING, Subject.LAYER, layer.id, "", message, Remedy.REMOVE)


def _is_above_itself(inventory: Inventory, layer: LayerRecord) -> bool:
    last = list(inventory.chain(layer.id))[-1]
    return last.parent is not None and inventory.layer(last.parent) is not None


def _unreferenced(inventory: Inventory, now: datetime, max_age_seconds: float) -> Iterator[Finding]:
    needed = needed_layers(inventory, inventory.images.values(), inventory.containers.values())
    for layer in inventory.layers.values():
        if layer.id in needed or layer.is_incomplete:
            continue
        age = (now - layer.created_at).total_seconds()
        if age > max_age_seconds:
            message = "no image and no container needs it"
            yield Finding(Damage.LAYER_UNREFERENCED, Subject.LAYER, layer.id, "", message, Remedy.REMOVE)


def _images(inventory: Inventory) -> Iterator[Finding]:
    for image in inventory.images.values():
        for layer in filter(None, (image.layer, *image.mapped_layers)):
            if inventory.layer(layer) is None:
                message = f"its layer {layer} is not recorded"
                yield Finding(Damage.IMAGE_LAYER_MISSING, Subject.IMAGE, image.id, "", message, Remedy.REMOVE)


def _containers(inventory: Inventory) -> Iterator[Finding]:
    for container in inventory.containers.values():
        if container.image and container.image not in inventory.images.keys() | inventory.lent_images.keys():
            message = f"its image {container.image} is not recorded"
            yield Finding(Damage.CONTAINER_IMAGE_MISSING, Subject.CONTAINER, container.id, "", message, Remedy.FORCE)
        if container.layer not in inventory.layers:
            message = f"its layer {container.layer} is not recorded"
            yield Finding(Damage.CONTAINER_LAYER_MISSING, Subject.CONTAINER, container.id, "", message, Remedy.FORCE)
