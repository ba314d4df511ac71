"""``asyncpull tags``: the tags of a repository."""

from __future__ import annotations

import click

from asyncpull.cli import exit_codes
from asyncpull.cli.opening import retry_options
from asyncpull.cli.output import write_json, write_lines
from asyncpull.cli.running import run
from asyncpull.cli.settings import Session, global_options
from asyncpull.cli.sides import ONLY, side_access, side_options


@click.command("tags")
@click.argument("repository", metavar="REPO")
@side_options(ONLY)
@retry_options
@global_options
@click.pass_obj
def tags(session: Session, /, repository: str, **values: object) -> int:
    """List the tags of a repository, as its registry does, or the names in a layout or an archive: one per line."""
    settings = session.settings
    access = side_access(ONLY, values, settings)

    async def work() -> int:
        from asyncpull.cli.lookup import tags_of

        name, found = await tags_of(repository, access)
        if settings.json:
            write_json({"repository": name, "tags": found})
        else:
            write_lines(found)
        return exit_codes.DONE

    return run(settings, work)
