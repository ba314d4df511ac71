"""Short names: references that do not say which registry they mean.

An alias of the name decides, or else every registry of ``unqualified-search-registries`` is a candidate, in order. With
more than one of those the mode decides:

============  ====================================  =================================
mode          on a terminal                         without one
============  ====================================  =================================
enforcing     somebody chooses, it is recorded      refused
permissive    somebody chooses, it is recorded      all are tried, in order
disabled      all are tried, in order               all are tried, in order
============  ====================================  =================================

Aliases are asked for without tag and digest, which go over to what was found. One with an empty value takes an alias of
earlier files away.

Two differences from podman: a file that says nothing about search registries means docker.io here, and an error
there; and a first component with a capital letter is a registry here, as for everything else that reads references.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from asyncpull.dataclass import dataclass
from asyncpull.errors import AsyncpullError, ConfigurationError, InvalidReferenceError, UsageError
from asyncpull.spec.reference import DEFAULT_DOMAIN, Reference, has_domain, parse_reference

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from asyncpull.registry.toml import Table


class ShortNameMode(Enum):
    """What becomes of a short name that could mean several registries."""

    ENFORCING = "enforcing"
    PERMISSIVE = "permissive"
    DISABLED = "disabled"


@dataclass(frozen=True, slots=True)
class Alias:
    """What a short name stands for: ``repository`` is None where an alias is taken away. ``path`` is the file."""

    repository: Reference | None
    path: Path


@dataclass(frozen=True, slots=True)
class Candidates:
    """What a text may mean: ``references`` in the order to be tried, and the ``reason`` for them, for people.

    Where it ``needs_choice`` and somebody can be asked, that is done, and the choice is recorded under the short
    name ``record``. Where nobody can be asked, ``unasked`` says what is tried.
    """

    references: tuple[Reference, ...]
    reason: str
    needs_choice: bool = False
    is_enforced: bool = False
    record: str | None = None

    def unasked(self) -> tuple[Reference, ...]:
        """The references to be tried where nobody can be asked. Raises UsageError if that is not allowed."""
        if self.is_enforced:
            raise UsageError(
                f"{self.record} may be in {len(self.references)} registries, and short-name-mode is enforcing",
                "name one: " + ", ".join(map(str, self.references)),
            )
        return self.references


def candidates(
    text: str,
    aliases: Mapping[str, Alias],
    search: Sequence[str] | None,
    mode: ShortNameMode,
    origin: Path | None = None,
) -> Candidates:
    """What ``text`` may mean. ``search`` is None where no file (``origin``) says where to look.

    Raises InvalidReferenceError, also for a short name where the list of registries is empty on purpose.
    """
    if text.startswith("docker://") or has_domain(text):
        return Candidates((parse_reference(text),), "the reference names its registry")
    parse_reference(text)  # what breaks the grammar breaks it in every registry
    name = short_name_of(text)
    alias = aliases.get(name)
    if alias is not None and alias.repository is not None:
        found = parse_reference(alias.repository.name + text[len(name) :])
        return Candidates((found,), f"{name} is an alias in {alias.path}")
    if search is None:
        return Candidates(
            (parse_reference(f"{DEFAULT_DOMAIN}/{text}"),), "no registries are configured for short names"
        )
    if not search:
        raise InvalidReferenceError(
            f"{text!r} does not name its registry, and unqualified-search-registries of {origin} is empty",
            "write it with its registry, such as docker.io/library/alpine",
        )
    found_in = tuple(parse_reference(f"{registry}/{text}") for registry in search)
    reason = f"unqualified-search-registries of {origin}"
    needs_choice = len(found_in) > 1 and mode is not ShortNameMode.DISABLED
    is_enforced = needs_choice and mode is ShortNameMode.ENFORCING
    return Candidates(found_in, reason, needs_choice, is_enforced, name if needs_choice else None)


def short_name_of(text: str) -> str:
    """The short name ``text`` without its tag and digest, as aliases are asked for."""
    return text.partition("@")[0].partition(":")[0]


def parse_aliases(table: Table | None) -> dict[str, Alias]:
    """The aliases of one file. Raises ConfigurationError that names every malformed one."""
    if table is None:
        return {}
    aliases: dict[str, Alias] = {}
    problems: list[str] = []
    for name, value in table.values.items():
        try:
            _require_short_name(name)
            aliases[name] = Alias(_parse_repository(value) if value != "" else None, table.path)
        except AsyncpullError as error:
            problems.append(f"{table.key_of(name)}: {error}")
    if problems:
        raise ConfigurationError(f"{table.path}: " + "; ".join(problems))
    return aliases


def _require_short_name(name: str) -> None:
    if short_name_of(name) != name:
        raise UsageError("a short name has no tag and no digest")
    if has_domain(name):
        raise UsageError("a short name has no registry")
    parse_reference(name)


def _parse_repository(value: object) -> Reference:
    if not isinstance(value, str):
        raise UsageError("its value is not a string")
    first, slash, path = value.partition("/")
    if not slash or not (first == "localhost" or "." in first or ":" in first):
        raise UsageError(f"{value!r} does not name a registry and a repository")
    if "@" in path or ":" in path:
        raise UsageError(f"{value!r} has a tag or a digest")
    return parse_reference(value)
