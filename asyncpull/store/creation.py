"""Making a container: a writable layer on an image's top layer, then the record, both or neither."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from asyncpull.errors import NotInStoreError, TooManyLayersError
from asyncpull.store.containers import container_name, new_container
from asyncpull.store.layers import MAX_LAYERS, Addition, new_record

if TYPE_CHECKING:
    from asyncpull.store.sections import Everything
    from asyncpull.store.staging import StagedLayer
    from asyncpull.store.views import ContainerRecord


def create_container(every: Everything, staged: StagedLayer, image_id: str, name: str | None) -> ContainerRecord:
    """Record a container on an image, with ``staged`` as its layer. Needs all locks, exclusively.

    Raises NotInStoreError, TooManyLayersError, StoreError also if the name is taken, NoSpaceError, StoreWriteError.
    """
    image = every.images.rows.by_id.get(image_id)
    if image is None:
        raise NotInStoreError(f"image {image_id} was removed from the store meanwhile")
    name = name or container_name(image)
    every.containers.require_free(name)
    if every.layers.depth(image.layer) > MAX_LAYERS:
        raise TooManyLayersError(
            f"image {image.id[:12]} has too many layers for a container; overlay mounts {MAX_LAYERS}"
        )
    container_id, layer_id = secrets.token_hex(32), secrets.token_hex(32)
    addition = Addition(new_record(layer_id, image.layer, names=[f"{name}-layer"]), staged, has_tar_split=False)
    every.layers.add([addition])
    try:
        return every.containers.add(new_container(container_id, name, image, layer_id))
    except BaseException:
        every.layers.undo([addition])
        raise
