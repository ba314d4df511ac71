"""``asyncpull mount``, ``unmount``: the trees of containers and images in the file system."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from asyncpull.cli import exit_codes, namespace
from asyncpull.cli.opening import run_with_store
from asyncpull.cli.output import write_json, write_lines, write_table
from asyncpull.cli.settings import Session, global_options
from asyncpull.cli.targets import for_each
from asyncpull.errors import UsageError
from asyncpull.store.mounts import MountRequest

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from asyncpull.store.store import Store


@click.command("mount")
@click.argument("target", metavar="[CONTAINER|IMAGE]", required=False)
@click.option("-o", "--options", metavar="OPT[,OPT…]", multiple=True, help="Mount options, instead of the recorded.")
@click.option("--read-only", is_flag=True, help="A container too.")
@click.option("--label", metavar="LABEL", default="", help="SELinux label, instead of the recorded one.")
@global_options
@click.pass_obj
def mount(session: Session, target: str | None, options: tuple[str, ...], read_only: bool, label: str) -> int:
    """Mount a container, or an image read-only, and print the path; without a name, list what is mounted.

    A mount is counted: each needs its own unmount.
    """
    settings = session.settings
    request = MountRequest(read_only=read_only, words=mount_words(options), label=label)
    if target is None and request != MountRequest():
        raise UsageError("mount takes options for a container or an image")
    if target is not None:
        namespace.require_lasting(f"mount {target}")

    async def work(store: Store) -> int:
        if target is None:
            await _list(store, as_json=settings.json)
            return exit_codes.DONE
        path = str(await store.mount(target, request))
        if settings.json:
            write_json({"target": target, "path": path})
        else:
            write_lines([path])
        return exit_codes.DONE

    return run_with_store(settings, work)


def mount_words(texts: Iterable[str]) -> tuple[str, ...]:
    """The single options of texts such as ``nodev,noexec``."""
    return tuple(word for text in texts for word in text.split(",") if word)


async def _list(store: Store, *, as_json: bool) -> None:
    names = await _names_by_layer(store)
    rows = [(names.get(mount.layer, mount.layer), str(mount.path), mount.count) for mount in await store.mounts()]
    if as_json:
        write_json([{"target": target, "path": path, "count": count} for target, path, count in rows])
    else:
        write_table(["MOUNTED", "COUNT", "PATH"], [[target, str(count), path] for target, path, count in rows])


async def _names_by_layer(store: Store) -> dict[str, str]:
    """What a mounted layer is called: the container it belongs to, or the image it is the top of."""
    names = {image.layer: (image.names or (image.id,))[0] for image in await store.images() if image.layer}
    return names | {container.layer: (container.names or (container.id,))[0] for container in await store.containers()}


@click.command("unmount")
@click.argument("targets", metavar="[CONTAINER|IMAGE…]", nargs=-1)
@click.option("-a", "--all", "everything", is_flag=True, help="Everything that is mounted.")
@click.option("-f", "--force", is_flag=True, help="Whatever the count is.")
@global_options
@click.pass_obj
def unmount(session: Session, targets: Sequence[str], everything: bool, force: bool) -> int:
    """Count mounts down, and unmount those that come to zero."""
    if everything == bool(targets):
        raise UsageError("unmount takes containers and images, or --all")
    settings = session.settings
    namespace.require_lasting("unmount")

    async def work(store: Store) -> int:
        known = {mount.layer: mount for mount in await store.mounts()} if everything else {}

        async def take_down(target: str) -> list[str]:
            await store.unmount(known.get(target, target), force=force)
            return [target]

        return await for_each(list(known) or targets, take_down, settings)

    return run_with_store(settings, work)
