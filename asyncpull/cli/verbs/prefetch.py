"""``asyncpull prefetch``: many images by one scheduler."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from asyncpull.cli import namespace
from asyncpull.cli.complaint import single_line
from asyncpull.cli.exit_codes import exit_code_of
from asyncpull.cli.formats import human_duration, human_size
from asyncpull.cli.opening import (
    limit_options,
    platform_options,
    policy_option,
    registry_access,
    retry_options,
    run_with_store,
    trust_options,
    wanted_limits,
    wanted_platform,
    wanted_retry,
    workers_for,
)
from asyncpull.cli.output import write_json, write_lines
from asyncpull.cli.settings import Session, global_options
from asyncpull.cli.targets import settle
from asyncpull.cli.verbs.pull import pulled_as_json
from asyncpull.errors import AsyncpullError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncpull.prefetch import Prefetched, PrefetchSummary
    from asyncpull.store.store import Store


@click.command("prefetch")
@click.argument("references", metavar="[REF…]", nargs=-1)
@click.option("-f", "--file", "file", metavar="FILE", help="Read more references from FILE, one a line; - is stdin.")
@policy_option
@click.option("--scheduler", metavar="ADDRESS", help="For a fleet; not in this version.")
@limit_options
@retry_options
@platform_options
@global_options
@click.pass_obj
def prefetch(
    session: Session,
    /,
    references: Sequence[str],
    file: str | None,
    pull_policy: str,
    scheduler: str | None,
    max_parallel_downloads: int | None,
    bandwidth: int | None,
    retry_times: int | None,
    retry_delay: float | None,
    **platform: str | None,
) -> int:
    """Pull many images, what they share once and the largest blobs first, and keep going when one fails.

    In FILE, blank lines and what follows a # are left out.
    """
    if scheduler is not None:
        raise UsageError(
            "--scheduler: fleets are not supported by this version", "leave it out to prefetch to one store"
        )
    wanted = [*references, *(references_in(_read(file)) if file is not None else ())]
    if not wanted:
        raise UsageError("prefetch needs a REF, or a FILE that names some")
    chosen = wanted_platform(platform)
    settings = session.settings
    namespace.enter()

    async def work(store: Store) -> int:
        async with workers_for(wanted, store, pull_policy) as workers:
            from asyncpull.cli.progress.choice import reporter_for
            from asyncpull.plan import PullPolicy
            from asyncpull.prefetch import prefetch as prefetch_all
            from asyncpull.pull import Puller

            with reporter_for(settings) as reporter:
                async with Puller(
                    store,
                    platform=chosen,
                    access=registry_access(settings),
                    retry=wanted_retry(retry_times, retry_delay),
                    limits=wanted_limits(max_parallel_downloads, bandwidth),
                    reporter=reporter,
                    trust=trust_options(settings),
                    workers=workers,
                ) as puller:
                    summary = await prefetch_all(puller, wanted, when=PullPolicy(pull_policy))
        if settings.json:
            write_json(summary_as_json(summary))
        else:
            write_lines(map(result_as_line, summary.results))
        _, code = settle(*zip(*((result.reference, result.outcome) for result in summary.results), strict=True))
        if not settings.quiet and not settings.json:
            click.echo(summary_as_line(summary), err=True)
        return code

    return run_with_store(settings, work)


def _read(file: str) -> str:
    if file == "-":
        return sys.stdin.read()
    try:
        return Path(file).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file}: {error.strerror if isinstance(error, OSError) else 'is not text'}") from error


def references_in(text: str) -> list[str]:
    """The references in a file: one a line; a # begins a comment, no reference has one."""
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return [line for line in lines if line]


def result_as_line(result: Prefetched) -> str:
    """``REFERENCE ID``, or ``REFERENCE failed``; the reason is told on stderr."""
    outcome = result.outcome
    return single_line(f"{result.reference} {'failed' if isinstance(outcome, AsyncpullError) else outcome.id}")


def summary_as_line(summary: PrefetchSummary) -> str:
    """How many images there are now, and what it took."""
    text = (
        f"{len(summary.images)} of {len(summary.results)} images are here, {human_size(summary.bytes_fetched)} fetched"
    )
    resumed = f", {human_size(summary.bytes_resumed)} resumed" if summary.bytes_resumed else ""
    failed = f"; {len(summary.failed)} failed" if summary.failed else ""
    return f"{text}{resumed} in {human_duration(summary.seconds)}{failed}"


def summary_as_json(summary: PrefetchSummary) -> dict[str, object]:
    """The object that ``--json`` prints."""
    return {
        "results": [_result_as_json(result) for result in summary.results],
        "images": len(summary.images),
        "failed": len(summary.failed),
        "bytes_fetched": summary.bytes_fetched,
        "bytes_resumed": summary.bytes_resumed,
        "seconds": round(summary.seconds, 3),
    }


def _result_as_json(result: Prefetched) -> dict[str, object]:
    if isinstance(result.outcome, AsyncpullError):
        return {
            "reference": result.reference,
            "error": str(result.outcome),
            "hint": result.outcome.hint,
            "exit_code": exit_code_of(result.outcome),
        }
    return pulled_as_json(result.outcome)
