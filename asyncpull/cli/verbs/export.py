"""``asyncpull diff``, ``changes``, ``export``: what a container or layer changed, and the exact tar of a layer."""

from __future__ import annotations

import os
import sys
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from asyncpull.cli import exit_codes, namespace
from asyncpull.cli.opening import run_with_store
from asyncpull.cli.output import write_json, write_lines
from asyncpull.cli.settings import Session, global_options
from asyncpull.errors import StoreWriteError, UsageError
from asyncpull.tree.changes import ChangeKind

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from asyncpull.cli.settings import Settings
    from asyncpull.store.store import Store
    from asyncpull.tree.changes import Change

# What a runtime makes so that it can mount something there; podman leaves these out as well.
_MADE_FOR_MOUNTS = frozenset(
    (
        b"dev",
        b"etc/hostname",
        b"etc/hosts",
        b"etc/mtab",
        b"etc/resolv.conf",
        b"proc",
        b"run",
        b"run/.containerenv",
        b"run/notify",
        b"run/podman-init",
        b"run/secrets",
        b"sys",
    )
)


@click.command("diff")
@click.argument("target", metavar="CONTAINER|IMAGE|LAYER")
@click.argument("parent", metavar="[CONTAINER|IMAGE|LAYER]", required=False)
@global_options
@click.pass_obj
def diff(session: Session, target: str, parent: str | None) -> int:
    """List what was added (A), changed (C) and deleted (D), as podman diff does.

    Compared is with the layer below, or with another container, image or layer. What a runtime makes in a container to
    mount something there is left out; asyncpull changes lists that too.
    """
    return _show(session.settings, target, parent, _MADE_FOR_MOUNTS)


@click.command("changes")
@click.argument("target", metavar="CONTAINER|IMAGE|LAYER")
@global_options
@click.pass_obj
def changes(session: Session, target: str) -> int:
    """List all that a container, the top layer of an image, or a layer changes in the layer below it."""
    return _show(session.settings, target, None, frozenset())


def _show(settings: Settings, target: str, parent: str | None, hidden: frozenset[bytes]) -> int:
    namespace.enter()

    async def work(store: Store) -> int:
        found = [change for change in await store.changes(target, parent) if change.path not in hidden]
        if settings.json:
            write_json(_by_kind(found))
        else:
            write_lines(f"{change.kind.value} {_printable(change.path)}" for change in found)
        return exit_codes.DONE

    return run_with_store(settings, work)


def _printable(path: bytes) -> str:
    """The path as it is, but for what would steer a terminal or pass for a line of its own."""
    text = f"/{path.decode(errors='surrogateescape')}"
    return "".join(c.encode("unicode_escape").decode() if c < " " or "\x7f" <= c < "\xa0" else c for c in text)


def _by_kind(found: Sequence[Change]) -> dict[str, list[str]]:
    """The keys of podman's JSON; bytes that are no UTF-8 are shown by their numbers."""
    kinds = (("changed", ChangeKind.MODIFIED), ("added", ChangeKind.ADDED), ("deleted", ChangeKind.DELETED))
    paths = {
        key: [f"/{change.path.decode(errors='backslashreplace')}" for change in found if change.kind is kind]
        for key, kind in kinds
    }
    return {key: value for key, value in paths.items() if value}


@click.command("export")
@click.argument("target", metavar="CONTAINER|IMAGE|LAYER")
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="Write there, not to stdout.")
@global_options
@click.pass_obj
def export(session: Session, target: str, output: Path | None) -> int:
    """Write the tar of a layer, of the top layer of an image, or of what a container changed.

    A layer's is, bit for bit, the one that it was made from; it has the layer's diff ID as its digest.
    """
    if output is None and sys.stdout.isatty():
        raise UsageError("a tar is not for terminals", "redirect stdout, or name a file with --output")
    namespace.enter()

    async def work(store: Store) -> int:
        with _destination(output) as file:
            async with aclosing(store.export(target)) as stream:
                async for piece in stream:
                    file.write(piece)
        return exit_codes.DONE

    return run_with_store(session.settings, work)


@contextmanager
def _destination(output: Path | None) -> Iterator[BinaryIO]:
    """Where the tar goes; a file appears under its name when it is whole."""
    if output is None:
        sys.stdout.flush()
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    if output.exists() and not output.is_file():  # a pipe or a device
        with output.open("wb") as file:
            yield file
        return
    partial = output.with_name(f".{output.name}.{os.getpid()}")
    try:
        with partial.open("xb") as file:
            yield file
        partial.replace(output)
    except OSError as error:
        raise StoreWriteError(error.strerror or str(error), str(output)) from error
    finally:
        partial.unlink(missing_ok=True)
