"""``asyncpull images``, ``layers``, ``containers``: what the store holds."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from asyncpull.cli import exit_codes
from asyncpull.cli.formats import human_age, human_size, short_id
from asyncpull.cli.opening import run_with_store
from asyncpull.cli.output import write_json, write_lines, write_table
from asyncpull.cli.settings import Session, Settings, global_options
from asyncpull.store.sizes import ImageSize

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from asyncpull.store.store import Store
    from asyncpull.store.views import ContainerRecord, ImageRecord, LayerRecord

    Shorten = Callable[[str], str]

_NONE = "<none>"
_no_trunc = click.option("--no-trunc", is_flag=True, help="Whole IDs and digests.")


@click.command("images")
@_no_trunc
@global_options
@click.pass_obj
def images(session: Session, no_trunc: bool) -> int:
    """List images, the newest first."""
    settings = session.settings

    async def work(store: Store) -> int:
        records = sorted(await store.images(), key=lambda image: image.created_at, reverse=True)
        sizes = {} if settings.quiet else await store.image_sizes()
        show_images(records, sizes, settings, _shortening(no_trunc))
        return exit_codes.DONE

    return run_with_store(settings, work)


@click.command("layers")
@_no_trunc
@global_options
@click.pass_obj
def layers(session: Session, no_trunc: bool) -> int:
    """List layers in the order of the store's records."""
    settings = session.settings

    async def work(store: Store) -> int:
        show_layers(await store.layers(), settings, _shortening(no_trunc))
        return exit_codes.DONE

    return run_with_store(settings, work)


@click.command("containers")
@_no_trunc
@global_options
@click.pass_obj
def containers(session: Session, no_trunc: bool) -> int:
    """List containers, the newest first."""
    settings = session.settings

    async def work(store: Store) -> int:
        records = sorted(await store.containers(), key=lambda container: container.created_at, reverse=True)
        names = {} if settings.quiet else {image.id: image.names for image in await store.images()}
        _show_containers(records, names, settings, _shortening(no_trunc))
        return exit_codes.DONE

    return run_with_store(settings, work)


def show_images(
    records: Sequence[ImageRecord], sizes: Mapping[str, ImageSize], settings: Settings, shorten: Shorten = short_id
) -> None:
    """Write images as the settings want them, with sizes by image ID; in the table, one line per name."""
    if settings.json:
        write_json(
            [
                {
                    "id": image.id,
                    "digest": image.digest,
                    "names": image.names,
                    "created": image.created,
                    "size": _size_of(image, sizes).total,
                    "shared_size": _size_of(image, sizes).shared,
                    "unique_size": _size_of(image, sizes).unique,
                    "layer": image.layer,
                    "read_only": image.read_only,
                }
                for image in records
            ]
        )
    elif settings.quiet:
        write_lines(image.id for image in records)
    else:
        now = datetime.now(UTC)
        # As podman has it: a column more where another store lends images.
        is_lent = any(image.read_only for image in records)
        rows = []
        for image in records:
            age, size = human_age(image.created_at, now), _size_of(image, sizes)
            parts = [human_size(size.total), human_size(size.shared), human_size(size.unique)]
            parts += [str(image.read_only).lower()] if is_lent else []
            rows += [[*_repository_and_tag(name), shorten(image.id), age, *parts] for name in image.names or (_NONE,)]
        write_table(
            ["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE", "SHARED", "UNIQUE", *(["R/O"] if is_lent else [])],
            rows,
        )


def show_layers(records: Sequence[LayerRecord], settings: Settings, shorten: Shorten = short_id) -> None:
    """Write layers as the settings want them."""
    if settings.json:
        write_json(
            [
                {
                    "id": layer.id,
                    "parent": layer.parent,
                    "names": layer.names,
                    "created": layer.created,
                    "compressed_digest": layer.compressed_digest or None,
                    "compressed_size": layer.compressed_size,
                    "diff_digest": layer.diff_digest or None,
                    "diff_size": layer.diff_size,
                    "read_only": layer.read_only,
                }
                for layer in records
            ]
        )
    elif settings.quiet:
        write_lines(layer.id for layer in records)
    else:
        now = datetime.now(UTC)
        rows = [
            [
                shorten(layer.id),
                shorten(layer.parent) if layer.parent else _NONE,
                shorten(layer.compressed_digest) or _NONE,
                human_age(layer.created_at, now),
                human_size(layer.diff_size),
            ]
            for layer in records
        ]
        write_table(["LAYER ID", "PARENT", "BLOB", "CREATED", "SIZE"], rows)


def _show_containers(
    records: Sequence[ContainerRecord], names: Mapping[str, Sequence[str]], settings: Settings, shorten: Shorten
) -> None:
    if settings.json:
        write_json(
            [
                {
                    "id": container.id,
                    "names": container.names,
                    "image": container.image or None,
                    "layer": container.layer,
                    "created": container.created,
                }
                for container in records
            ]
        )
    elif settings.quiet:
        write_lines(container.id for container in records)
    else:
        now = datetime.now(UTC)
        rows = [
            [
                shorten(container.id),
                next(iter(names.get(container.image, ())), shorten(container.image) or _NONE),
                human_age(container.created_at, now),
                ",".join(container.names) or _NONE,
            ]
            for container in records
        ]
        write_table(["CONTAINER ID", "IMAGE", "CREATED", "NAMES"], rows)


def _size_of(image: ImageRecord, sizes: Mapping[str, ImageSize]) -> ImageSize:
    # An image that came between the two readings of the store is counted at the next listing.
    return sizes.get(image.id) or ImageSize(0, 0)


def _repository_and_tag(name: str) -> tuple[str, str]:
    if name == _NONE or "@" in name:
        return name.partition("@")[0], _NONE
    repository, colon, tag = name.rpartition(":")
    return (repository, tag) if colon and "/" not in tag else (name, _NONE)


def _shortening(no_trunc: bool) -> Shorten:
    return str if no_trunc else short_id
