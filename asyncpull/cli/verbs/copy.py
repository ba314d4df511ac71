"""``asyncpull copy``: an image from any place to any other."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from asyncpull.cli import exit_codes, namespace
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
from asyncpull.cli.output import write_json
from asyncpull.cli.running import run
from asyncpull.cli.settings import Session, global_options
from asyncpull.cli.sides import DESTINATION, SOURCE, side_access, side_options
from asyncpull.cli.signing import signing_options, wanted_passphrase, wanted_signing
from asyncpull.errors import StoreWriteError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncpull.copying.image import CopiedImage
    from asyncpull.copying.plan import Selection

_COMPRESSIONS = ("gzip", "zstd", "none")


@click.command("copy")
@click.argument("source", metavar="SRC")
@click.argument("destination", metavar="DST")
@click.option("-a", "--all", "takes_all", is_flag=True, help="All of an index, and the index.")
@click.option(
    "--multi-arch",
    metavar="WHICH",
    help="system, all, index-only, or a list of platforms and digests such as linux/amd64,linux/arm64.",
)
@click.option("--strip-removed-platforms", is_flag=True, help="Leave what is not in that list out of the index.")
@click.option("--preserve-digests", is_flag=True, help="Fail rather than change a manifest or an index.")
@click.option("-f", "--format", "kind", type=click.Choice(["oci", "v2s2", "v2s1"]), help="Kind of manifest.")
@click.option("--dest-compress-format", type=click.Choice(_COMPRESSIONS), help="Compression of the layers.")
@click.option("--dest-compress-level", metavar="N", type=click.INT, help="Level of the compression.")
@click.option(
    "--dest-force-compress-format",
    is_flag=True,
    help="Also for layers that the destination has already in another compression.",
)
@click.option(
    "--add-compression",
    "variants",
    type=click.Choice(["gzip", "zstd"]),
    multiple=True,
    help="With --all: add what an index does not have in that compression.",
)
@click.option("--dest-decompress", is_flag=True, help="Layers without compression.")
@click.option("--additional-tag", "tags", metavar="REF", multiple=True, help="One more name, where several are held.")
@click.option("--foreign-layers", is_flag=True, help="Copy also layers that are to be had elsewhere.")
@click.option("--digestfile", type=click.Path(path_type=Path), metavar="FILE", help="Write the digest there.")
@retry_options
@blob_info_option
@side_options(SOURCE)
@side_options(DESTINATION)
@signing_options
@limit_options
@platform_options
@global_options
@click.pass_obj
def copy(
    session: Session,
    /,
    source: str,
    destination: str,
    takes_all: bool,
    multi_arch: str | None,
    strip_removed_platforms: bool,
    preserve_digests: bool,
    kind: str | None,
    dest_compress_format: str | None,
    dest_compress_level: int | None,
    dest_force_compress_format: bool,
    variants: Sequence[str],
    dest_decompress: bool,
    tags: Sequence[str],
    foreign_layers: bool,
    digestfile: Path | None,
    blob_info_cache: Path | None,
    max_parallel_downloads: int | None,
    bandwidth: int | None,
    **values: object,
) -> int:
    """Copy an image from SRC to DST, which is what it was until all of it is there.

    Either is TRANSPORT:DETAILS, as for skopeo: docker://REF, oci:DIR[:NAME], oci-archive:FILE[:NAME], dir:DIR,
    docker-archive:FILE[:REF], docker-daemon:REF, containers-storage:NAME; tarball:FILE as SRC. Of an index the instance
    for the platform is copied, unless --all or --multi-arch say otherwise.
    """
    from asyncpull.copying.plan import COMPRESSIONS, CopyOptions, ManifestFormat
    from asyncpull.spec.location import StorageLocation, parse_location
    from asyncpull.spec.reference import parse_reference

    if kind == "v2s1":
        raise UsageError("manifests of format v2s1 are read and not written", "use --format v2s2")
    if dest_decompress and dest_compress_format not in (None, "none"):
        raise UsageError("--dest-decompress and --dest-compress-format exclude each other")
    places = parse_location(source), parse_location(destination)
    compression = "none" if dest_decompress else dest_compress_format
    options = CopyOptions(
        selection=_selection(takes_all, multi_arch, strip_removed_platforms),
        preserve_digests=preserve_digests,
        format=None if kind is None else ManifestFormat(kind),
        compression=None if compression is None else COMPRESSIONS[compression],
        level=dest_compress_level,
        force_compression=dest_force_compress_format,
        tags=tuple(parse_reference(tag) for tag in tags),
        takes_foreign_layers=foreign_layers,
        variants=tuple(COMPRESSIONS[each] for each in dict.fromkeys(variants)),
    )
    wanted = wanted_platform(values)
    limits, settings = wanted_limits(max_parallel_downloads, bandwidth), session.settings
    if any(isinstance(each, StorageLocation) for each in places):
        namespace.enter()
    access = [side_access(side, values, settings) for side in (SOURCE, DESTINATION)]
    passphrase = wanted_passphrase(values)

    async def work() -> int:
        from asyncpull.cli.progress.choice import reporter_for
        from asyncpull.copy import Copier

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
                copied = await copier.copy(*places, options, await wanted_signing(values, passphrase))
        if digestfile is not None:
            _write_digest(digestfile, copied)
        if settings.json:
            write_json(copied_as_json(copied))
        return exit_codes.DONE

    return run(settings, work)


def copied_as_json(copied: CopiedImage) -> dict[str, object]:
    """The object that ``--json`` prints."""
    return {
        "source": copied.source,
        "destination": copied.destination,
        "digest": str(copied.digest),
        "instances": [{"from": str(before), "to": str(after)} for before, after in copied.digests.items()],
        "bytes_copied": copied.bytes_copied,
        "seconds": round(copied.seconds, 3),
    }


def _selection(takes_all: bool, which: str | None, is_stripped: bool) -> Selection:
    from asyncpull.copying.plan import Instances, Selection, parse_selection

    if takes_all and which is not None:
        raise UsageError("--all and --multi-arch exclude each other")
    if which is None:
        if is_stripped:
            raise UsageError("--strip-removed-platforms wants --multi-arch with a list of platforms")
        return Selection(Instances.ALL if takes_all else Instances.SYSTEM)
    return parse_selection(which, is_stripped=is_stripped)


def _write_digest(path: Path, copied: CopiedImage) -> None:
    try:
        path.write_text(str(copied.digest))
    except OSError as error:
        raise StoreWriteError(error.strerror or str(error), str(path)) from error
