"""``asyncpull info``: the state of the store."""

from __future__ import annotations

from dataclasses import asdict, is_dataclass
from typing import TYPE_CHECKING

import click

from asyncpull.cli import exit_codes
from asyncpull.cli.formats import human_size
from asyncpull.cli.opening import run_with_store
from asyncpull.cli.output import write_json, write_lines
from asyncpull.cli.settings import Session, global_options

if TYPE_CHECKING:
    from asyncpull.store.store import Store


@click.command("info")
@global_options
@click.pass_obj
def info(session: Session) -> int:
    """Show driver, roots, counts, sizes, backing file system and versions of the store."""
    settings = session.settings

    async def work(store: Store) -> int:
        status = asdict(await store.status())
        if settings.json:
            write_json(status)
        else:
            write_lines(_lines(status))
        return exit_codes.DONE

    return run_with_store(settings, work)
