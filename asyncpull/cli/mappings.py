"""The options that give a container a user namespace of its own, as podman has them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from asyncpull.cli.namespace import granted_ranges
from asyncpull.errors import UsageError
from asyncpull.store.idmap import IDMap, IDMappings, checked, parse_id_map

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from asyncpull.store.idmap import IDMaps

F = TypeVar("F", bound="Callable[..., object]")


def mapping_options(command: F) -> F:
    """``--uidmap``, ``--gidmap``, ``--subuidname``, ``--subgidname``."""
    options = (
        click.option("--uidmap", metavar="C:H[:N]", multiple=True, help="C in the container is user H, N of them."),
        click.option("--gidmap", metavar="C:H[:N]", multiple=True, help="The same of groups; else those of --uidmap."),
        click.option("--subuidname", metavar="NAME", help="Map the users that /etc/subuid grants to NAME."),
        click.option("--subgidname", metavar="NAME", help="Map the groups that /etc/subgid grants to NAME."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def parse_mappings(
    uidmap: Sequence[str], gidmap: Sequence[str], subuidname: str | None, subgidname: str | None
) -> IDMappings:
    """What these options mean: what is said of users only holds for groups too, and the reverse. Raises UsageError."""
    if (uidmap or gidmap) and (subuidname or subgidname):
        raise UsageError("--uidmap and --gidmap exclude --subuidname and --subgidname")
    if subuidname or subgidname:
        return IDMappings(
            _granted(Path("/etc/subuid"), subuidname or subgidname or ""),
            _granted(Path("/etc/subgid"), subgidname or subuidname or ""),
        )
    uids, gids = (checked(one for text in texts for one in parse_id_map(text)) for texts in (uidmap, gidmap))
    return IDMappings(uids or gids, gids or uids)


def _granted(file: Path, name: str) -> IDMaps:
    try:
        ranges = granted_ranges(file.read_text(errors="replace"), [name])
    except OSError as error:
        raise UsageError(f"{file}: {os.strerror(error.errno or 0)}") from error
    if not ranges:
        raise UsageError(f"{file} grants nothing to {name!r}")
    starts = [sum(count for _, count in ranges[:number]) for number in range(len(ranges))]
    return tuple(IDMap(start, host, count) for start, (host, count) in zip(starts, ranges, strict=True))
