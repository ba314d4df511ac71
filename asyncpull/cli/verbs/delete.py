"""``asyncpull delete``: images where they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from asyncpull.cli import namespace
from asyncpull.cli.opening import retry_options, trust_options
from asyncpull.cli.running import run
from asyncpull.cli.settings import Session, global_options
from asyncpull.cli.sides import ONLY, side_access, side_options
from asyncpull.cli.targets import for_each

if TYPE_CHECKING:
    from collections.abc import Sequence


@click.command("delete")
@click.argument("references", metavar="REF…", nargs=-1, required=True)
@click.option("--only-tag", is_flag=True, help="Let a registry forget the tag and keep the image, if it can.")
@side_options(ONLY)
@retry_options
@global_options
@click.pass_obj
def delete(session: Session, /, references: Sequence[str], only_tag: bool, **place: object) -> int:
    """Delete images: docker://REF with all tags of its manifest, oci:DIR[:NAME], containers-storage:NAME.

    Signatures in a lookaside store of files go with an image of a registry. Prints the digest of each, or the names and
    the ID that are gone from a store.
    """
    from asyncpull.spec.location import StorageLocation, parse_location

    settings = session.settings
    access = side_access(ONLY, place, settings)
    locations = {text: parse_location(text) for text in references}
    if any(isinstance(each, StorageLocation) for each in locations.values()):
        namespace.enter()

    async def work() -> int:
        from asyncpull.deletion import delete_image

        async def act(text: str) -> tuple[str, ...]:
            return await delete_image(locations[text], access, only_tag=only_tag, trust=trust_options(settings))

        return await for_each(references, act, settings)

    return run(settings, work)
