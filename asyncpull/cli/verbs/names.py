"""``asyncpull rmi``, ``tag``, ``untag``: images and their names."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from asyncpull.cli import exit_codes, namespace
from asyncpull.cli.opening import run_with_store
from asyncpull.cli.settings import Session, global_options
from asyncpull.cli.targets import for_each

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncpull.store.store import Store


@click.command("rmi")
@click.argument("images", metavar="IMAGE…", nargs=-1, required=True)
@click.option("-f", "--force", is_flag=True, help="Also with several names, and with the containers that use it.")
@global_options
@click.pass_obj
def rmi(session: Session, images: Sequence[str], force: bool) -> int:
    """Remove images and the layers nobody else needs; of an image with several names, only the one given."""
    settings = session.settings
    namespace.enter()

    async def work(store: Store) -> int:
        async def remove(target: str) -> list[str]:
            return list(await store.remove_image(target, force=force))

        return await for_each(images, remove, settings)

    return run_with_store(settings, work)


@click.command("tag")
@click.argument("image", metavar="IMAGE")
@click.argument("names", metavar="NAME…", nargs=-1, required=True)
@global_options
@click.pass_obj
def tag(session: Session, image: str, names: Sequence[str]) -> int:
    """Give an image more names; a name that another image has moves."""

    async def work(store: Store) -> int:
        record = await store.image(image)
        for name in names:
            await store.tag(record, name)
        return exit_codes.DONE

    return run_with_store(session.settings, work)


@click.command("untag")
@click.argument("image", metavar="IMAGE")
@click.argument("names", metavar="[NAME…]", nargs=-1)
@global_options
@click.pass_obj
def untag(session: Session, image: str, names: Sequence[str]) -> int:
    """Take names from an image; without NAME, all it has."""

    async def work(store: Store) -> int:
        record = await store.image(image)
        for name in names or record.names:
            await store.untag(record, name)
        return exit_codes.DONE

    return run_with_store(session.settings, work)
