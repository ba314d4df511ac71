"""Which image a short name means: on a terminal somebody is asked, and the choice is recorded once it was pulled.

Nobody is asked inside of the event loop, where an interrupt would not reach the question.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import TYPE_CHECKING, TypeVar

import click

from asyncpull.cli.complaint import complain
from asyncpull.dataclass import dataclass
from asyncpull.errors import AsyncpullError, NotInStoreError, PolicyError, SourceError, UsageError
from asyncpull.spec.reference import has_domain, parse_reference

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

    from asyncpull.cli.settings import Settings
    from asyncpull.registry.config import Registries
    from asyncpull.registry.shortnames import Candidates
    from asyncpull.spec.reference import Reference

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Choice:
    """What ``text`` is taken for: the first of ``references`` that can be had.

    ``record`` is the short name that it is recorded under in ``record_file``, None where nobody chose.
    """

    text: str
    references: tuple[Reference, ...]
    record: str | None = None
    record_file: Path | None = None


def choose_all(texts: Sequence[str], settings: Settings) -> list[Choice]:
    """Settle what each of ``texts`` means, outside of any event loop. What is configured is read for short names only.

    Raises InvalidReferenceError, ConfigurationError, and UsageError for images of other places than registries, and
    where somebody must be asked and nobody is there.
    """
    for text in texts:
        _require_registry(text)
    if all(text.startswith("docker://") or has_domain(text) for text in texts):
        return [Choice(text, (parse_reference(text),)) for text in texts]
    from asyncpull.cli import logs
    from asyncpull.cli.opening import registry_access
    from asyncpull.registry.config import load_registries
    from asyncpull.registry.credentials import user_id

    logs.configure(settings.log_level, settings.log_format)
    registries = asyncio.run(load_registries(registry_access(settings), os.environ, user_id(os.environ)))
    can_ask = sys.stdin.isatty() and sys.stderr.isatty()
    return [choose(text, registries, can_ask=can_ask) for text in texts]


def choose(text: str, registries: Registries, *, can_ask: bool) -> Choice:
    """Settle what ``text`` means, and ask where it may mean several things and somebody is there to answer.

    Raises InvalidReferenceError, and UsageError where somebody must be asked and nobody is there.
    """
    found = registries.candidates(text)
    if not (found.needs_choice and can_ask):
        return Choice(text, found.unasked())
    return Choice(text, (_ask(text, found),), found.record, registries.record_file)


async def first_of(choice: Choice, attempt: Callable[[Reference], Awaitable[T]]) -> T:
    """What ``attempt`` makes of the first reference that can be had; what somebody chose is recorded then.

    Raises the error of the last reference, whose hint tells of the others, and at once what no other registry could
    put right.
    """
    failures: list[SourceError | PolicyError | NotInStoreError] = []
    for reference in choice.references:
        try:
            result = await attempt(reference)
        except (SourceError, PolicyError, NotInStoreError) as error:
            failures.append(error)
            continue
        await _record(choice, reference)
        return result
    last = failures.pop()
    if failures:
        before = "; ".join(map(str, failures))
        last.hint = f"before that: {before}" + (f"; {last.hint}" if last.hint else "")
    raise last


async def _record(choice: Choice, reference: Reference) -> None:
    from asyncpull.registry.aliasfile import record_alias

    if choice.record is not None and choice.record_file is not None:
        try:
            await record_alias(choice.record_file, choice.record, reference)
        except AsyncpullError as error:
            # The image is there, which is what was asked for.
            complain(f"the choice of {reference.name} for {choice.record} was not recorded: {error}", error.hint)


def _require_registry(text: str) -> None:
    from asyncpull.spec.location import RegistryLocation, parse_location

    location = parse_location(text)
    if not isinstance(location, RegistryLocation):
        raise UsageError(
            f"{text} is not an image of a registry",
            f"asyncpull copy {text} containers-storage:NAME brings it into the store",
        )


def _ask(text: str, found: Candidates) -> Reference:
    click.echo(f"{text} may be in {len(found.references)} registries:", err=True)
    for position, reference in enumerate(found.references, 1):
        click.echo(f"  {position}. {reference}", err=True)
    numbers = click.IntRange(1, len(found.references))
    number: int = click.prompt("Which one", type=numbers, err=True)
    return found.references[number - 1]
