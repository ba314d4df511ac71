"""Making a container: a writable layer on an image's top layer, then the record, both or neither."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from asyncpull.errors import NotInStoreError, TooManyLayersError
from asyncpull.store.containers import container_name, new_container
from asyncpull.store.idmap import format_raw
from asyncpull.store.layers import MAX_LAYERS, Addition, new_record

if TYPE_CHECKING:
    from asyncpull.store.containers import ContainerSpec
    from asyncpull.store.sections import Everything
    from asyncpull.store.staging import StagedLayer
    from asyncpull.store.views import ContainerRecord, ImageRecord


def create_container(
    every: Everything, staged: StagedLayer, image_id: str | None, spec: ContainerSpec, parent: str | None
) -> ContainerRecord:
    """Record a container on an image, or on nothing, with ``staged`` as its layer. Needs all locks, exclusively.

    ``parent`` is the layer that it stands on: the top layer of the image, or the copy of it with the right owners.

    Raises NotInStoreError, TooManyLayersError, StoreError also if a name is taken, NoSpaceError, StoreWriteError.
    """
    image = None if image_id is None else _image(every, image_id)
    spec = replace(spec, names=tuple(dict.fromkeys(spec.names)) or (container_name(image),))
    for name in spec.names:
        every.containers.require_free(name)
    if image is not None and parent not in (image.layer, *image.mapped_layers):
        raise NotInStoreError(f"layer {parent} was removed from the store meanwhile")
    if every.layers.depth(parent) > MAX_LAYERS:
        raise TooManyLayersError(
            f"image {image_id or ''} has too many layers for a container; overlay mounts {MAX_LAYERS}"
        )
    container_id, layer_id = os.urandom(32).hex(), os.urandom(32).hex()
    owners = {"uidmap": format_raw(spec.mappings.uids), "gidmap": format_raw(spec.mappings.gids)}
    record = new_record(layer_id, parent, names=[f"{spec.names[0]}-layer"], mountlabel=spec.mount_label, **owners)
    addition = Addition(record, staged, has_tar_split=False)
    with every.layers.added([addition], volatile=spec.is_volatile), every.containers.kept():
        container = every.containers.add(new_container(container_id, spec, image, layer_id), volatile=spec.is_volatile)
        return every.containers.set_big_data(container.id, spec.big_data) if spec.big_data else container


def _image(every: Everything, image_id: str) -> ImageRecord:
    image = every.images.find(image_id)
    if image is None:
        raise NotInStoreError(f"image {image_id} was removed from the store meanwhile")
    return image
