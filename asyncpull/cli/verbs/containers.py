"""``asyncpull create``, ``rm``: containers, which are writable layers on images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from asyncpull.cli import exit_codes, namespace
from asyncpull.cli.mappings import mapping_options, parse_mappings
from asyncpull.cli.opening import run_with_store
from asyncpull.cli.output import write_json, write_lines
from asyncpull.cli.settings import Session, global_options
from asyncpull.cli.targets import for_each
from asyncpull.store.containers import ContainerSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncpull.store.store import Store


@click.command("create")
@click.argument("image", metavar="IMAGE")
@click.option("--name", metavar="NAME", help="The container's name.")
@mapping_options
@global_options
@click.pass_obj
def create(
    session: Session,
    image: str,
    name: str | None,
    uidmap: Sequence[str],
    gidmap: Sequence[str],
    subuidname: str | None,
    subgidname: str | None,
) -> int:
    """Create a container on an image that is in the store; print its ID."""
    settings = session.settings
    spec = ContainerSpec(mappings=parse_mappings(uidmap, gidmap, subuidname, subgidname))
    namespace.enter()

    async def work(store: Store) -> int:
        record = await store.image(image)
        container = await store.create_container(record, name, spec=spec)
        if settings.json:
            write_json(
                {"id": container.id, "names": container.names, "image": container.image, "layer": container.layer}
            )
        else:
            write_lines([container.id])
        return exit_codes.DONE

    return run_with_store(settings, work)


@click.command("rm")
@click.argument("containers", metavar="CONTAINER…", nargs=-1, required=True)
@click.option("-f", "--force", is_flag=True, help="Unmount them first.")
@global_options
@click.pass_obj
def rm(session: Session, containers: Sequence[str], force: bool) -> int:
    """Remove containers and their writable layers; print their IDs."""
    settings = session.settings
    namespace.enter()

    async def work(store: Store) -> int:
        async def remove(target: str) -> list[str]:
            container = await store.container(target)
            await store.remove_container(container, force=force)
            return [container.id]

        return await for_each(containers, remove, settings)

    return run_with_store(settings, work)
