"""``asyncpull inspect``, ``digest``: what a reference stands for, without pulling it."""

from __future__ import annotations

from pathlib import Path

import click

from asyncpull.cli import exit_codes
from asyncpull.cli.opening import platform_options, retry_options, wanted_platform
from asyncpull.cli.output import write_bytes, write_json, write_lines
from asyncpull.cli.running import run
from asyncpull.cli.settings import Session, global_options
from asyncpull.cli.sides import ONLY, side_access, side_options
from asyncpull.errors import UsageError


@click.command("inspect")
@click.argument("reference", metavar="REF")
@click.option("--raw", is_flag=True, help="The exact bytes of the manifest, or of the index, that REF names.")
@click.option("--config", is_flag=True, help="The exact bytes of the image's config.")
@side_options(ONLY)
@retry_options
@platform_options
@global_options
@click.pass_obj
def inspect(session: Session, /, reference: str, raw: bool, config: bool, **values: object) -> int:
    """Summarise an image as JSON, wherever it is: REF is docker://REF, oci:DIR[:NAME], containers-storage:NAME …"""
    if raw and config:
        raise UsageError("--raw and --config exclude each other")
    settings = session.settings
    wanted, access = wanted_platform(values), side_access(ONLY, values, settings)

    async def work() -> int:
        from asyncpull.cli.lookup import located_image, raw_manifest, summary_of

        if raw:
            write_bytes(await raw_manifest(reference, wanted, access))
            return exit_codes.DONE
        image = await located_image(reference, wanted, access)
        if config:
            write_bytes(image.config)
        else:
            write_json(summary_of(image))
        return exit_codes.DONE

    return run(settings, work)


@click.command("digest")
@click.argument("reference", metavar="REF")
@side_options(ONLY)
@retry_options
@platform_options
@global_options
@click.pass_obj
def digest(session: Session, /, reference: str, **values: object) -> int:
    """Print the digest that a reference has now: of the index, or with --platform of the instance in it."""
    settings = session.settings
    wanted, access = wanted_platform(values), side_access(ONLY, values, settings)

    async def work() -> int:
        from asyncpull.cli.lookup import digest_of

        found = await digest_of(reference, wanted, access)
        if settings.json:
            write_json({"reference": reference, "digest": found})
        else:
            write_lines([found])
        return exit_codes.DONE

    return run(settings, work)


@click.command("manifest-digest")
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@global_options
@click.pass_obj
def manifest_digest(session: Session, file: Path) -> int:
    """Print the digest of a manifest in a file; of schema 1 it is that without the signatures."""
    from asyncpull.cli import lookup

    found = lookup.manifest_digest(file)
    if session.settings.json:
        write_json({"file": str(file), "digest": found})
    else:
        write_lines([found])
    return exit_codes.DONE
