"""``asyncpull sync``: many images from one place to another."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from asyncpull.cli.complaint import complain
from asyncpull.cli.exit_codes import common_exit_code, exit_code_of
from asyncpull.cli.opening import (
    blob_info_option,
    limit_options,
    platform_options,
    retry_options,
    trust_options,
    wanted_blob_info,
    wanted_limits,
    wanted_platform,
)
from asyncpull.cli.output import write_json, write_lines
from asyncpull.cli.running import run
from asyncpull.cli.settings import Session, global_options
from asyncpull.cli.sides import DESTINATION, SOURCE, side_access, side_options
from asyncpull.cli.signing import signing_options, wanted_passphrase, wanted_signing
from asyncpull.errors import AsyncpullError, StoreWriteError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncpull.cli.settings import Settings
    from asyncpull.sync import SyncedImage, SyncStep


@click.command("sync")
@click.argument("source", metavar="SOURCE")
@click.argument("destination", metavar="DESTINATION")
@click.option("-s", "--src", "source_transport", required=True, metavar="TRANSPORT", help="docker, dir or yaml.")
@click.option("-d", "--dest", "destination_transport", required=True, metavar="TRANSPORT", help="docker or dir.")
@click.option("--scoped", is_flag=True, help="Keep all of an image's name at the destination, not its last part.")
@click.option("--append-suffix", metavar="TEXT", default="", help="What every name at the destination ends with.")
@click.option("-a", "--all", "takes_all", is_flag=True, help="All of an index, and the index.")
@click.option("--dry-run", is_flag=True, help="Only list what would be copied, and where to.")
@click.option("--keep-going", is_flag=True, help="Copy the others where one cannot be copied.")
@click.option("--preserve-digests", is_flag=True, help="Fail rather than change a manifest or an index.")
@click.option("-f", "--format", "kind", type=click.Choice(["oci", "v2s2"]), help="Kind of manifest.")
@click.option("--digestfile", type=click.Path(path_type=Path), metavar="FILE", help="Write digests and names there.")
@retry_options
@blob_info_option
@side_options(SOURCE)
@side_options(DESTINATION)
@signing_options
@limit_options
@platform_options
@global_options
@click.pass_obj
def sync(
    session: Session,
    /,
    source: str,
    destination: str,
    source_transport: str,
    destination_transport: str,
    scoped: bool,
    append_suffix: str,
    takes_all: bool,
    dry_run: bool,
    keep_going: bool,
    preserve_digests: bool,
    kind: str | None,
    digestfile: Path | None,
    blob_info_cache: Path | None,
    max_parallel_downloads: int | None,
    bandwidth: int | None,
    **values: object,
) -> int:
    """Copy all images of a repository, a directory, or a file that names them, as skopeo sync does.

    A repository without a tag means all of its tags. What is at a registry already, to the bit, is not copied again.
    """
    from asyncpull.copying.plan import CopyOptions, Instances, ManifestFormat, Selection

    options = CopyOptions(
        selection=Selection(Instances.ALL if takes_all else Instances.SYSTEM),
        preserve_digests=preserve_digests,
        format=None if kind is None else ManifestFormat(kind),
    )
    settings = session.settings
    access = [side_access(side, values, settings) for side in (SOURCE, DESTINATION)]
    wanted = wanted_platform(values)
    limits = wanted_limits(max_parallel_downloads, bandwidth)
    passphrase = wanted_passphrase(values)

    async def work() -> int:
        from asyncpull.cli.progress.choice import reporter_for
        from asyncpull.copy import Copier
        from asyncpull.sync import find_images, plan_sync, sync_images

        codes: list[int] = []

        def failed(name: str, error: AsyncpullError) -> None:
            if not keep_going:
                raise error
            complain(f"{name}: {error}", error.hint)
            codes.append(exit_code_of(error))

        signing = await wanted_signing(values, passphrase)
        images = await find_images(source_transport, source, access[0], failed)
        steps = plan_sync(images, destination_transport, destination, is_scoped=scoped, suffix=append_suffix)
        if dry_run:
            _show(steps, settings)
            return common_exit_code(codes)
        with reporter_for(settings) as reporter:
            async with Copier(
                source=access[0],
                destination=access[1],
                platform=wanted,
                limits=limits,
                reporter=reporter,
                blob_info=wanted_blob_info(blob_info_cache),
                trust=trust_options(settings),
            ) as copier:
                done = await sync_images(copier, steps, options, signing, failed)
        if settings.json:
            write_json([as_json(each) for each in done])
        if digestfile is not None:
            _write_digests(digestfile, done)
        return common_exit_code(codes)

    if digestfile is not None and digestfile.is_dir():
        raise UsageError(f"{digestfile} is a directory")
    return run(settings, work)


def as_json(synced: SyncedImage) -> dict[str, object]:
    """What ``--json`` prints of one image."""
    copied = synced.copied
    return _places(synced.step) | {"digest": str(copied.digest), "bytes_copied": copied.bytes_copied}


def _places(step: SyncStep) -> dict[str, object]:
    return {"source": str(step.source), "destination": str(step.destination)}


def _show(steps: Sequence[SyncStep], settings: Settings) -> None:
    """Print what would be copied, and where to."""
    if settings.json:
        write_json([_places(step) for step in steps])
    else:
        write_lines([f"{step.source} {step.destination}" for step in steps])


def _write_digests(path: Path, done: Sequence[SyncedImage]) -> None:
    try:
        path.write_text("".join(f"{each.copied.digest} {each.step.destination}\n" for each in done))
    except OSError as error:
        raise StoreWriteError(error.strerror or str(error), str(path)) from error
