"""TOML documents that are read key by key, so that every mistake is named with its file and key.

Keys are found as Go's decoders find them: by their exact name, or else in any mixture of capitals. What nobody asked
for is not an error, because files outlive versions of programs, but ``unknown_keys`` knows it.
"""

from __future__ import annotations

import tomllib
from dataclasses import field
from typing import TYPE_CHECKING

from asyncpull.dataclass import dataclass
from asyncpull.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Table:
    """A table of the document ``path``; ``key`` is where it stands there, empty for the document itself."""

    path: Path
    values: Mapping[str, object]
    key: str = ""
    _asked: set[str] = field(default_factory=set, repr=False, compare=False)

    @classmethod
    def from_bytes(cls, path: Path, raw: bytes) -> Table:
        """Parse the content of ``path``. Raises ConfigurationError."""
        try:
            return cls(path, tomllib.loads(raw.decode()))
        except (ValueError, RecursionError) as error:  # among them TOMLDecodeError, and what int says of 5000 digits
            raise ConfigurationError(f"{path}: not TOML: {error}") from error

    def error(self, name: str, what: str) -> ConfigurationError:
        """The error for ``name`` of this table."""
        return ConfigurationError(f"{self.path}: {self.key_of(name)}: {what}")

    def key_of(self, name: str) -> str:
        """How ``name`` of this table is called in messages."""
        return f"{self.key}.{name}" if self.key else name

    def value(self, name: str) -> object:
        """The value of ``name``, None if it is not there."""
        if name not in self.values:
            name = next((key for key in self.values if key.lower() == name.lower()), name)
        self._asked.add(name)
        return self.values.get(name)

    def text(self, name: str) -> str:
        """A string, empty if it is not there."""
        value = self.value(name)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise self.error(name, f"is {_kind(value)}, not a string")
        return value

    def flag(self, name: str) -> bool | None:
        """A boolean, None if it is not there."""
        value = self.value(name)
        if value is not None and not isinstance(value, bool):
            raise self.error(name, f"is {_kind(value)}, not true or false")
        return value

    def texts(self, name: str) -> tuple[str, ...] | None:
        """An array of strings, None if it is not there."""
        value = self.value(name)
        if value is None:
            return None
        if not isinstance(value, list):
            raise self.error(name, f"is {_kind(value)}, not an array of strings")
        for number, text in enumerate(value):
            if not isinstance(text, str):
                raise self.error(f"{name}[{number}]", f"is {_kind(text)}, not a string")
        return tuple(value)

    def table(self, name: str) -> Table | None:
        """A table, None if it is not there."""
        value = self.value(name)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self.error(name, f"is {_kind(value)}, not a table")
        return Table(self.path, value, self.key_of(name))

    def tables(self, name: str) -> tuple[Table, ...] | None:
        """An array of tables, None if it is not there."""
        value = self.value(name)
        if value is None:
            return None
        if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
            raise self.error(name, f"is {_kind(value)}, not an array of tables ([[{self.key_of(name)}]])")
        return tuple(Table(self.path, each, f"{self.key_of(name)}[{number}]") for number, each in enumerate(value))

    def unknown_keys(self) -> Iterator[str]:
        """The keys that nobody asked for yet, as messages call them."""
        return (self.key_of(name) for name in self.values if name not in self._asked)


def _kind(value: object) -> str:
    match value:
        case bool():
            return "a boolean"
        case str():
            return "a string"
        case int() | float():
            return "a number"
        case list():
            return "an array"
        case dict():
            return "a table"
        case _:
            return "a date or a time"
