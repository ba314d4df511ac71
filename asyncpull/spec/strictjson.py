"""JSON objects where every surprise is an error: unknown, repeated and missing keys, other types, more after the end.

Policies and what is signed are read like this, because a key that one reader overlooks and another one takes is an
attack. Messages name the key by its path from the root; what is not JSON at all, by line and column.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NoReturn

from asyncpull.dataclass import dataclass
from asyncpull.errors import DocumentError

if TYPE_CHECKING:
    from collections.abc import Mapping


class _Pairs(list[tuple[str, object]]):
    """An object as it was written: its keys in order, repeated ones too."""


@dataclass(frozen=True, slots=True)
class StrictObject:
    """The keys of one JSON object; ``where`` is its path, empty for the root."""

    values: Mapping[str, object]
    where: str = ""

    @classmethod
    def parse(cls, raw: bytes) -> StrictObject:
        """Parse a document that is one object. Raises DocumentError."""
        try:
            value = json.loads(raw.decode("utf-8"), object_pairs_hook=_Pairs, parse_constant=_refuse_constant)
        except UnicodeDecodeError as error:
            raise DocumentError(f"not UTF-8 at byte {error.start}") from error
        except (ValueError, RecursionError) as error:
            raise DocumentError(f"not JSON: {error}") from error
        return cls.of(value, "")

    @classmethod
    def of(cls, value: object, where: str) -> StrictObject:
        """Take ``value``, which must be an object without repeated keys. Raises DocumentError."""
        if not isinstance(value, _Pairs):
            raise DocumentError(f"{where or 'the document'} is {_kind(value)}, not an object")
        values: dict[str, object] = {}
        for key, each in value:
            if key in values:
                raise DocumentError(f"{path_of(where, key)} is there twice")
            values[key] = each
        return cls(values, where)

    def only(self, *keys: str) -> None:
        """Refuse all keys but these. Raises DocumentError."""
        for key in self.values:
            if key not in keys:
                raise DocumentError(f"{path_of(self.where, key)} is not a key that is known here")

    def exactly(self, *keys: str) -> None:
        """Want these keys and no others. Raises DocumentError."""
        self.only(*keys)
        for key in keys:
            self.value(key)

    def has(self, key: str) -> bool:
        """Whether ``key`` is there."""
        return key in self.values

    def value(self, key: str) -> object:
        """The value of ``key``, whatever it is. Raises DocumentError if it is missing."""
        if key not in self.values:
            raise DocumentError(f"{path_of(self.where, key)} is missing")
        return self.values[key]

    def text(self, key: str) -> str:
        """A string. Raises DocumentError."""
        return as_text(self.value(key), path_of(self.where, key))

    def integer(self, key: str) -> int:
        """An integer. Raises DocumentError."""
        value = self.value(key)
        if not isinstance(value, int) or isinstance(value, bool):
            raise DocumentError(f"{path_of(self.where, key)} is {_kind(value)}, not an integer")
        return value

    def inner(self, key: str) -> StrictObject:
        """An object. Raises DocumentError."""
        return StrictObject.of(self.value(key), path_of(self.where, key))

    def array(self, key: str) -> list[tuple[object, str]]:
        """The items of an array, each with its path. Raises DocumentError."""
        return items_of(self.value(key), path_of(self.where, key))


def items_of(value: object, where: str) -> list[tuple[object, str]]:
    """The items of ``value``, which must be an array, each with its path. Raises DocumentError."""
    if not isinstance(value, list) or isinstance(value, _Pairs):
        raise DocumentError(f"{where} is {_kind(value)}, not an array")
    return [(item, f"{where}[{number}]") for number, item in enumerate(value)]


def as_text(value: object, where: str) -> str:
    """``value``, which must be a string. Raises DocumentError."""
    if not isinstance(value, str):
        raise DocumentError(f"{where} is {_kind(value)}, not a string")
    return value


def path_of(where: str, key: str) -> str:
    """The path of ``key`` in the object at ``where``; what is no plain word stands in quotes."""
    shown = key if key.isidentifier() else json.dumps(key[:200], ensure_ascii=False)
    return f"{where}.{shown}" if where else shown


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON")


def _kind(value: object) -> str:
    match value:
        case _Pairs():
            return "an object"
        case list():
            return "an array"
        case str():
            return "a string"
        case bool():
            return "a boolean"
        case None:
            return "null"
        case _:
            return "a number"
