"""``asyncpull sync``: many images from one place to another."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from asyncpull.cli.complaint import complain
from asyncpull.cli.exit_codes import common_exit_code, exit_code_of
from asyncpull.cli.opening import limit_options, platform_options, trust_options, wanted_limits, wanted_platform
from asyncpull.cli.output import write_json, write_lines
from asyncpull.cli.running import run
from asyncpull.cli.settings import Session, global_options
from asyncpull.cli.sides import DESTINATION, SOURCE, side_access, side_options
from asyncpull.cli.signing import signing_options, wanted_passphrase, wanted_signing
from asyncpull.errors import AsyncpullError, StoreWriteError, UsageError

if TYPE_CHECKING:
    from asyncpull.access import Access
    from asyncpull.cli.settings import Settings
    from asyncpull.copyplan import CopyOptions
    from asyncpull.limits import Limits
    from asyncpull.spec.platform import Platform
    from asyncpull.sync import SyncStep
    from asyncpull.trust.signing import Signing


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
@click.option("--retry-times", metavar="N", type=click.IntRange(min=0), help="How often a failed request is repeated.")
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
    retry_times: int | None,
    max_parallel_downloads: int | None,
    bandwidth: int | None,
    platform: str | None,
    override_os: str | None,
    override_arch: str | None,
    override_variant: str | None,
    **values: object,
) -> int:
    """Copy all images of a repository, a directory, or a file that names them, as skopeo sync does.

    A repository without a tag means all of its tags. What is at a registry already, to the bit, is not copied again.
    """
    from asyncpull.copyplan import CopyOptions, Instances, ManifestFormat, Selection
    from asyncpull.retry import RetryPolicy

    options = CopyOptions(
        selection=Selection(Instances.ALL if takes_all else Instances.SYSTEM),
        preserve_digests=preserve_digests,
        format=None if kind is None else ManifestFormat(kind),
    )
    settings = session.settings
    retry = None if retry_times is None else RetryPolicy(attempts=retry_times + 1)
    access = [side_access(side, values, settings, retry) for side in (SOURCE, DESTINATION)]
    wanted = wanted_platform(platform, override_os, override_arch, override_variant)
    limits = wanted_limits(max_parallel_downloads, bandwidth)
    passphrase = wanted_passphrase(values)

    async def work() -> int:
        from asyncpull.sync import find_images, plan_sync

        codes: list[int] = []

        def failed(name: str, error: AsyncpullError) -> None:
            if not keep_going:
                raise error
            complain(f"{name}: {error}", error.hint)
            codes.append(exit_code_of(error))

        signing = await wanted_signing(values, passphrase)
        images = await find_images(source_transport, source, access[0], failed)
        steps = plan_sync(images, destination_transport, destination, is_scoped=scoped, suffix=append_suffix)
        done: list[dict[str, object]] = []
        if dry_run:
            done = [{"source": str(step.source), "destination": str(step.destination)} for step in steps]
        for step in () if dry_run else steps:
            try:
                done.append(await _copy(step, access[1], options, signing, wanted, limits, settings))
            except AsyncpullError as error:
                failed(str(step.source), error)
        if settings.json:
            write_json(done)
        elif dry_run:
            write_lines([f"{each['source']} {each['destination']}" for each in done])
        if digestfile is not None and not dry_run:
            _write_digests(digestfile, done)
        return common_exit_code(codes)

    if digestfile is not None and digestfile.is_dir():
        raise UsageError(f"{digestfile} is a directory")
    return run(settings, work)


async def _copy(
    step: SyncStep,
    destination: Access,
    options: CopyOptions,
    signing: Signing,
    platform: Platform | None,
    limits: Limits,
    settings: Settings,
) -> dict[str, object]:
    """Copy one image unless it is there; what there is to tell of it. Raises what a copy raises."""
    from asyncpull.cli.progress.choice import reporter_for
    from asyncpull.copy import Copier
    from asyncpull.sync import check_destination, is_there

    check_destination(step.destination)
    # What is to be signed is not done by being there.
    digest = None if signing.signers else await is_there(step, destination, options)
    told: dict[str, object] = {"source": str(step.source), "destination": str(step.destination)}
    if digest is not None:
        return told | {"digest": str(digest), "bytes_copied": 0}
    with reporter_for(settings) as reporter:
        async with Copier(
            source=step.access,
            destination=destination,
            platform=platform,
            limits=limits,
            reporter=reporter,
            trust=trust_options(settings),
        ) as copier:
            copied = await copier.copy(step.source, step.destination, options, signing)
    return told | {"digest": str(copied.digest), "bytes_copied": copied.bytes_copied}


def _write_digests(path: Path, done: list[dict[str, object]]) -> None:
    try:
        path.write_text("".join(f"{each['digest']} {each['destination']}\n" for each in done))
    except OSError as error:
        raise StoreWriteError(error.strerror or str(error), str(path)) from error
