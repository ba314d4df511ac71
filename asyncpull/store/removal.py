"""Removing images and containers: what may go, what goes with it, and in which order.

All of it runs with every lock of records held exclusively.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncpull.errors import InUseError, StoreError
from asyncpull.store.images import own_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from asyncpull.store.containers import Containers
    from asyncpull.store.mounts import Mounts
    from asyncpull.store.sections import Everything
    from asyncpull.store.views import ContainerRecord, ImageRecord, LayerRecord


_GONE = "it is removed all the same; what is left of it on the disk goes with the next change of the store, or by gc"


def layers_to_remove(
    image: ImageRecord,
    images: Iterable[ImageRecord],
    layers: Mapping[str, LayerRecord],
    containers: Iterable[ContainerRecord],
) -> list[str]:
    """The layers that nobody needs when ``image`` is gone, children before parents."""
    tops = {layer for other in images if other.id != image.id for layer in (other.layer, *other.mapped_layers)}
    kept = tops | {container.layer for container in containers}
    children: dict[str | None, set[str]] = {}
    for layer in layers.values():
        children.setdefault(layer.parent, set()).add(layer.id)
    removable = [layer for layer in image.mapped_layers if layer in layers and layer not in kept]
    top = image.layer
    while top and top in layers and top not in kept and children.get(top, set()) <= set(removable):
        removable.append(top)
        top = layers[top].parent
    return removable


def name_to_untag(image: ImageRecord, target: str, *, force: bool) -> str | None:
    """The one name that is to go, or None if the whole image is meant, as podman decides it.

    An image that was asked for by one of several names loses that name, forced or not. Asked for by ID it has to go
    with all of its names: raises StoreError without ``force``.
    """
    name = own_name(image, target)
    if len(image.names) > 1:
        if name is not None:
            return name
        if not force:
            raise StoreError(
                f"image {image.id[:12]} has several names: {', '.join(image.names)}",
                hint="name the one to be removed, or force the removal of all",
            )
    return None


def users_of(image: ImageRecord, containers: Iterable[ContainerRecord]) -> list[ContainerRecord]:
    """The containers that were made from an image."""
    return [container for container in containers if container.image == image.id]


def remove_image(every: Everything, mounts: Mounts, image: ImageRecord) -> None:
    """Remove an image and the layers that nobody else needs. Raises InUseError, StoreError."""
    users = users_of(image, every.containers.rows.by_id.values())
    if users:
        raise _in_use(image, users)
    layers = layers_to_remove(
        image, every.images.rows.by_id.values(), every.layers.rows.by_id, every.containers.rows.by_id.values()
    )
    _require_unmounted(mounts, layers, f"image {image.id[:12]}")
    forget(every, images=[image.id], layers=layers)


def remove_container(every: Everything, containers: Containers, mounts: Mounts, container: ContainerRecord) -> None:
    """Remove a container and its writable layer. Raises InUseError, StoreError."""
    what = f"container {container.names[0] if container.names else container.id[:12]}"
    process = containers.running_process(container.id)
    if process is not None:
        raise InUseError(f"{what} runs as process {process}", hint="stop it first")
    _require_unmounted(mounts, [container.layer], what)
    if any(layer.parent == container.layer for layer in every.layers.rows.by_id.values()):
        raise InUseError(f"the layer of {what} has layers on top of it")
    layers = [container.layer] if container.layer in every.layers.rows.by_id else []
    forget(every, containers=[container.id], layers=layers)


def forget(
    every: Everything, *, containers: Sequence[str] = (), images: Sequence[str] = (), layers: Sequence[str] = ()
) -> None:
    """Remove what has these IDs, layers with children first; all of it, or if the disk is full nothing.

    Raises NoSpaceError, StoreWriteError, StoreError. Where the disk fails once the records are written, everything is
    gone as far as anybody can see, and the hint of the error says so.
    """
    with every.containers.kept(), every.images.kept():
        for container in containers:
            every.containers.remove(container)
        for image in images:
            every.images.forget(image)
        every.layers.condemn(layers)
    try:
        for image in images:
            every.images.delete_data(image)
        every.layers.remove(layers)
    except StoreError as error:
        error.hint = f"{_GONE}; {error.hint}" if error.hint else _GONE
        raise


def _require_unmounted(mounts: Mounts, layers: Iterable[str], what: str) -> None:
    gone = set(layers)
    for mounted in mounts.list():
        if mounted.layer in gone:
            raise InUseError(f"{what} is mounted at {mounted.path}", hint="unmount it, or use force")


def _in_use(image: ImageRecord, users: list[ContainerRecord]) -> InUseError:
    names = ", ".join(user.names[0] if user.names else user.id[:12] for user in users)
    return InUseError(
        f"image {image.id[:12]} is used by container {names}", hint="remove the container first, or use force"
    )
