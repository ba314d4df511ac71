"""``asyncpull unshare``: a command in the user namespace of a rootless store."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from asyncpull.cli import exit_codes, namespace
from asyncpull.cli.complaint import complain
from asyncpull.cli.settings import Session, global_options

if TYPE_CHECKING:
    from collections.abc import Sequence


@click.command("unshare", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("command", metavar="[COMMAND [ARGUMENT…]]", nargs=-1, type=click.UNPROCESSED)
@global_options
@click.pass_obj
def unshare(session: Session, command: Sequence[str]) -> int:
    """Run COMMAND, or a shell, where mounts of this user's store can be made and seen."""
    chosen = list(command) or [os.environ.get("SHELL") or "/bin/sh"]
    try:
        namespace.enter_and_execute(chosen)
    except OSError as error:
        complain(f"{chosen[0]}: {error.strerror}")
        return exit_codes.FAILED
