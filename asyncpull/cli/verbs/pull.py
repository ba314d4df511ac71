"""``asyncpull pull``: images from registries into the store."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from asyncpull.cli import namespace
from asyncpull.cli.choosing import choose_all, first_of
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
from asyncpull.cli.settings import Session, Settings, global_options
from asyncpull.cli.targets import settle
from asyncpull.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncpull.cli.choosing import Choice
    from asyncpull.plan import PulledImage, PullPolicy
    from asyncpull.pull import Puller
    from asyncpull.spec.reference import Reference
    from asyncpull.store.store import Store


@click.command("pull")
@click.argument("references", metavar="REF…", nargs=-1, required=True)
@policy_option
@click.option("--all-tags", is_flag=True, help="All tags of the repositories REF, which are named without a tag.")
@click.option("--keep-blobs", is_flag=True, help="Leave the blobs in the spool after the commit.")
@limit_options
@retry_options
@platform_options
@global_options
@click.pass_obj
def pull(
    session: Session,
    /,
    references: Sequence[str],
    pull_policy: str,
    all_tags: bool,
    keep_blobs: bool,
    max_parallel_downloads: int | None,
    bandwidth: int | None,
    retry_times: int | None,
    retry_delay: float | None,
    **platform: str | None,
) -> int:
    """Fetch, verify, extract and commit images; print the ID of each.

    Several references are pulled at once, and shared layers only once.
    """
    from asyncpull.spec.reference import parse_reference

    wanted = wanted_platform(platform)
    for text in references:
        parsed = parse_reference(text)  # what cannot be meant is told before anything is asked or made
        if all_tags and (parsed.digest is not None or ":" in text.removeprefix("docker://").rpartition("/")[2]):
            raise UsageError(f"{text}: --all-tags wants a repository, without a tag or digest")
    settings = session.settings
    namespace.enter()
    choices = choose_all(references, settings)

    async def work(store: Store) -> int:
        async with workers_for((choice.references[0] for choice in choices), store, pull_policy) as workers:
            from asyncpull.cli.progress.choice import reporter_for
            from asyncpull.plan import PullPolicy
            from asyncpull.pull import Puller

            with reporter_for(settings) as reporter:
                async with Puller(
                    store,
                    platform=wanted,
                    access=registry_access(settings),
                    retry=wanted_retry(retry_times, retry_delay),
                    limits=wanted_limits(max_parallel_downloads, bandwidth),
                    reporter=reporter,
                    keep_blobs=keep_blobs,
                    trust=trust_options(settings),
                    workers=workers,
                ) as puller:
                    if all_tags:
                        return show(*await pull_all_tags(puller, choices, PullPolicy(pull_policy)), settings)
                    outcomes = await pull_choices(puller, choices, PullPolicy(pull_policy))
        return show(outcomes, references, settings)

    return run_with_store(settings, work)


async def pull_choices(
    puller: Puller, choices: Sequence[Choice], policy: PullPolicy
) -> list[PulledImage | BaseException]:
    """Pull all ``choices`` at once; what each came to, in their order."""

    async def attempt(reference: Reference) -> PulledImage:
        return await puller.pull(reference, when=policy)

    return await asyncio.gather(*(first_of(choice, attempt) for choice in choices), return_exceptions=True)


async def pull_all_tags(
    puller: Puller, choices: Sequence[Choice], policy: PullPolicy
) -> tuple[list[PulledImage | BaseException], list[str]]:
    """Pull every tag of the repositories that ``choices`` name; what each came to, and what it is called.

    A repository whose tags cannot be listed is a failure of its own.
    """
    from asyncpull.prefetch import prefetch

    listed = await asyncio.gather(*(first_of(choice, puller.tags) for choice in choices), return_exceptions=True)
    tagged = [reference for found in listed if not isinstance(found, BaseException) for reference in found]
    summary = await prefetch(puller, tagged, when=policy)
    outcomes: list[PulledImage | BaseException] = [result.outcome for result in summary.results]
    names = [result.reference for result in summary.results]
    for choice, found in zip(choices, listed, strict=True):
        if isinstance(found, BaseException):
            outcomes.append(found)
            names.append(choice.text)
    return outcomes, names


async def pull_all(
    puller: Puller, references: Sequence[Reference], policy: PullPolicy
) -> list[PulledImage | BaseException]:
    """Pull all ``references`` at once; what each came to, in their order."""
    pulls = (puller.pull(reference, when=policy) for reference in references)
    return await asyncio.gather(*pulls, return_exceptions=True)


def show(outcomes: Sequence[PulledImage | BaseException], references: Sequence[str], settings: Settings) -> int:
    """Write what was pulled to stdout and what failed to stderr; the exit code that says it all."""
    pulled, code = settle(references, outcomes)
    if settings.json:
        write_json([pulled_as_json(image) for image in pulled])
    else:
        write_lines(image.id for image in pulled)
    return code


def pulled_as_json(image: PulledImage) -> dict[str, object]:
    """The object that ``--json`` prints for one pulled image."""
    return {
        "reference": image.reference,
        "id": image.id,
        "digest": str(image.digest),
        "layers": [
            {
                "id": layer.id,
                "digest": str(layer.digest),
                "diff_id": str(layer.diff_id),
                "size": layer.size,
                "reused": layer.reused,
            }
            for layer in image.layers
        ],
        "bytes_fetched": image.bytes_fetched,
        "bytes_resumed": image.bytes_resumed,
        "seconds": round(image.seconds, 3),
    }
