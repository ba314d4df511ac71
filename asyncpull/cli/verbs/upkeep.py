"""``asyncpull check``, ``gc``: the health of the store."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from asyncpull.cli import exit_codes, namespace
from asyncpull.cli.complaint import single_line
from asyncpull.cli.formats import parse_duration
from asyncpull.cli.opening import run_with_store
from asyncpull.cli.output import write_json, write_lines
from asyncpull.cli.settings import Session, global_options

if TYPE_CHECKING:
    from asyncpull.store.check.findings import Finding
    from asyncpull.store.store import Store

_MAX_AGE = click.option(
    "-m",
    "--max",
    "max_age_seconds",
    metavar="AGE",
    default="24h",
    callback=lambda _context, _parameter, text: parse_duration(text),
    help="How old a layer may be that nobody needs, such as 90s, 30m, 24h or 7d.",
)


@click.command("check")
@click.option("--quick", is_flag=True, help="Look at records and files, but do not read the content of layers.")
@click.option("-r", "--repair", is_flag=True, help="Make anew what can be made anew, and remove what is beyond that.")
@click.option("-f", "--force", is_flag=True, help="With --repair: remove damaged containers too.")
@_MAX_AGE
@global_options
@click.pass_obj
def check(session: Session, quick: bool, repair: bool, force: bool, max_age_seconds: float) -> int:
    """Verify the store against its records and digests. Prints what is wrong; exit code 1 if anything still is."""
    settings = session.settings
    namespace.enter()

    async def work(store: Store) -> int:
        report = await store.check(full=not quick, repair=repair, force=force, max_age_seconds=max_age_seconds)
        if settings.json:
            write_json(
                {
                    "clean": report.is_clean,
                    "full": report.is_full,
                    "layers": report.layers,
                    "images": report.images,
                    "containers": report.containers,
                    "findings": [_as_json(finding) for finding in report.findings],
                }
            )
        else:
            write_lines(_line(finding, "repaired") for finding in report.findings)
        return exit_codes.DONE if report.is_clean else exit_codes.FAILED

    return run_with_store(settings, work)


@click.command("gc")
@click.option("-n", "--dry-run", is_flag=True, help="Only say what would be removed.")
@_MAX_AGE
@global_options
@click.pass_obj
def gc(session: Session, dry_run: bool, max_age_seconds: float) -> int:
    """Remove what nobody needs: leftovers of programs that died, files without a record, old downloads and layers."""
    settings = session.settings
    namespace.enter()

    async def work(store: Store) -> int:
        from asyncpull.spool import sweep_spools

        found = await store.gc(dry_run=dry_run, max_age_seconds=max_age_seconds)
        spools = 0 if dry_run else await sweep_spools(store.spool_root, max_age_seconds)
        if settings.json:
            write_json({"removed": [_as_json(finding) for finding in found], "spools": spools, "dry_run": dry_run})
        else:
            write_lines(_line(finding, "removed") for finding in found)
            if spools:
                write_lines([f"partial downloads: {spools} [removed]"])
        is_done = dry_run or all(finding.is_repaired for finding in found)
        return exit_codes.DONE if is_done else exit_codes.FAILED

    return run_with_store(settings, work)


def _line(finding: Finding, done: str) -> str:
    where = f" ({finding.path})" if finding.path else ""
    return single_line(f"{finding}{where}") + (f" [{done}]" if finding.is_repaired else "")


def _as_json(finding: Finding) -> dict[str, object]:
    return {
        "damage": finding.damage.value,
        "subject": finding.subject.value,
        "id": finding.id,
        "path": finding.path,
        "message": finding.message,
        "remedy": finding.remedy.value,
        "repairable": finding.is_repairable,
        "repaired": finding.is_repaired,
    }
