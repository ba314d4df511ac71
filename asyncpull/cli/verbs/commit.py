"""``asyncpull commit``: an image from a container."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from asyncpull.cli import exit_codes, namespace
from asyncpull.cli.opening import run_with_store
from asyncpull.cli.output import write_json, write_lines
from asyncpull.cli.settings import Session, global_options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncpull.spec.derivation import Flavour
    from asyncpull.store.store import Store


@click.command("commit")
@click.argument("container", metavar="CONTAINER")
@click.argument("names", metavar="[NAME…]", nargs=-1)
@click.option("-a", "--author", default="", metavar="TEXT", help="Who made the image.")
@click.option("-m", "--message", default="", metavar="TEXT", help="A comment for its history.")
@click.option(
    "-c", "--change", "changes", multiple=True, metavar="INSTRUCTION", help='Such as CMD=["sh"], ENV=A=1, USER=app.'
)
@click.option("-f", "--format", "flavour", type=click.Choice(["oci", "docker"]), help="As the image below, else oci.")
@click.option("--created", metavar="TIME", help="RFC 3339, instead of now.")
@global_options
@click.pass_obj
def commit(
    session: Session,
    container: str,
    names: Sequence[str],
    author: str,
    message: str,
    changes: Sequence[str],
    flavour: Flavour | None,
    created: str | None,
) -> int:
    """Make an image of a container: what it changed as a layer on those of its image. Print the image ID.

    A name without a registry is of localhost. Nothing is stopped meanwhile.
    """
    namespace.enter()

    async def work(store: Store) -> int:
        from asyncpull.store.containercommit import CommitOptions

        options = CommitOptions(tuple(names), author, message, tuple(changes), flavour, created)
        image = await store.commit_container(container, options)
        if session.settings.json:
            write_json({"id": image.id, "digest": image.digest, "names": image.names, "layer": image.layer})
        else:
            write_lines([image.id])
        return exit_codes.DONE

    return run_with_store(session.settings, work)
