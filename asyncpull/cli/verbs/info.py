"""``asyncpull info``: the state of the store."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from asyncpull.cli import exit_codes
from asyncpull.cli.formats import human_size
from asyncpull.cli.namespace import is_inside
from asyncpull.cli.opening import run_with_store
from asyncpull.cli.output import write_json, write_lines
from asyncpull.cli.settings import Session, global_options

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncpull.extract.confinement import Confinement
    from asyncpull.store.snapshot import StoreStatus
    from asyncpull.store.store import Store


@click.command("info")
@global_options
@click.pass_obj
def info(session: Session) -> int:
    """Show driver, roots, counts, sizes, file system and versions of the store, and how workers are confined."""
    settings = session.settings

    async def work(store: Store) -> int:
        status = await store.status()
        confinement = await _confinement(store) if is_inside() else None
        if settings.json:
            write_json({**asdict(status), "workers": asdict(confinement) if confinement else None})
        else:
            rows = (*_rows(status), *_rows_of_workers(confinement))
            write_lines(f"{name + ':':<20} {value}" for name, value in rows)
        return exit_codes.DONE

    return run_with_store(settings, work)


async def _confinement(store: Store) -> Confinement:
    """Found out by confining a process as it is done for a pull."""
    from asyncpull.workers import workers_of

    async with workers_of(store) as workers:
        return await workers.confinement()


def _rows_of_workers(confinement: Confinement | None) -> Iterator[tuple[str, str]]:
    if confinement is None:
        yield "workers", "work in a user namespace: see `asyncpull unshare asyncpull info`"
        return
    confined = {
        f"Landlock (ABI {confinement.landlock})": bool(confinement.landlock),
        "seccomp": confinement.seccomp,
        "network namespace": confinement.network_namespace,
        "no_new_privs": confinement.no_new_privs,
    }
    yield "workers confined by", ", ".join(name for name, there in confined.items() if there) or "nothing"
    yield "capabilities", ", ".join(confinement.capabilities) or "none"
    for reason in confinement.missing:
        yield "not confined by", reason


def _rows(status: StoreStatus) -> Iterator[tuple[str, str]]:
    yield "driver", f"{status.driver} ({status.driver_reason})"
    yield "graph root", status.graph_root
    yield "run root", status.run_root
    yield "rootless", "yes" if status.rootless else "no"
    for key, value in status.options.items():
        yield f"option {key}", value
    yield "images", f"{status.images}, documents of {human_size(status.image_bytes)}"
    yield "layers", f"{status.layers}, unpacked {human_size(status.layer_bytes)}"
    yield "containers", str(status.containers)
    yield "mounts", str(status.mounts)
    yield "partial downloads", human_size(status.spool_bytes)
    yield "file system", status.backing_file_system
    yield "free", f"{human_size(status.free_bytes)}, {status.free_inodes} inodes"
    for key, value in status.versions.items():
        yield key, value
