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
from asyncpull.cli.verbs.mounts import mount_words
from asyncpull.errors import UsageError
from asyncpull.store.containers import ContainerSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncpull.store.store import Store


@click.command("create")
@click.argument("image", metavar="[IMAGE]", required=False)
@click.option("--name", "names", metavar="NAME", multiple=True, help="The container's name; several may be given.")
@click.option("--from-nothing", is_flag=True, help="Without an image: the container begins empty.")
@click.option("--volatile", is_flag=True, help="What a reboot may lose: mounted without any sync.")
@click.option("-o", "--mount-option", "options", metavar="OPT[,OPT…]", multiple=True, help="Always mount it so.")
@click.option("--mount-label", metavar="LABEL", default="", help="SELinux label of its files.")
@click.option("--process-label", metavar="LABEL", default="", help="SELinux label of its processes.")
@click.option("--metadata", metavar="TEXT", help="Recorded as it is, instead of what podman looks for.")
@mapping_options
@global_options
@click.pass_obj
def create(
    session: Session,
    image: str | None,
    names: tuple[str, ...],
    from_nothing: bool,
    volatile: bool,
    options: tuple[str, ...],
    mount_label: str,
    process_label: str,
    metadata: str | None,
    uidmap: Sequence[str],
    gidmap: Sequence[str],
    subuidname: str | None,
    subgidname: str | None,
) -> int:
    """Create a container on an image that is in the store, or on nothing; print its ID."""
    if from_nothing == (image is not None):
        raise UsageError("create takes an image, or --from-nothing")
    settings = session.settings
    spec = ContainerSpec(
        names=names,
        is_volatile=volatile,
        metadata=metadata,
        mount_options=mount_words(options),
        mount_label=mount_label,
        process_label=process_label,
        mappings=parse_mappings(uidmap, gidmap, subuidname, subgidname),
    )
    namespace.enter()

    async def work(store: Store) -> int:
        container = await store.create_container(image, spec=spec)
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
