"""Several things named in one command: each is tried, what was done is told, and what failed."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from asyncpull.cli.complaint import complain
from asyncpull.cli.exit_codes import common_exit_code, exit_code_of
from asyncpull.cli.output import write_json, write_lines
from asyncpull.errors import AsyncpullError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from asyncpull.cli.settings import Settings

T = TypeVar("T")


def settle(names: Iterable[str], outcomes: Iterable[T | BaseException]) -> tuple[list[T], int]:
    """Complain of each failure on stderr; return what succeeded, and the exit code that tells of the rest.

    Raises the first error that is not the package's own.
    """
    done: list[T] = []
    codes = []
    for name, outcome in zip(names, outcomes, strict=True):
        if isinstance(outcome, AsyncpullError):
            message = str(outcome)
            complain(message if _names(message, name) else f"{name}: {message}", outcome.hint)
            codes.append(exit_code_of(outcome))
        elif isinstance(outcome, BaseException):
            raise outcome
        else:
            done.append(outcome)
    return done, common_exit_code(codes)


def _names(message: str, name: str) -> bool:
    """Whether ``message`` says already what it is about: ``name``, or the repository of that reference."""
    repository, _, tag = name.partition("@")[0].rpartition(":")
    return name in message or (repository != "" and "/" not in tag and repository in message)


async def for_each(targets: Sequence[str], act: Callable[[str], Awaitable[Iterable[str]]], settings: Settings) -> int:
    """Await ``act`` on one target after another and print the lines they return; the exit code."""
    outcomes: list[Iterable[str] | BaseException] = []
    for target in targets:
        try:
            outcomes.append(await act(target))
        except AsyncpullError as error:
            outcomes.append(error)
    done, code = settle(targets, outcomes)
    lines = [line for lines in done for line in lines]
    if settings.json:
        write_json(lines)
    else:
        write_lines(lines)
    return code
