"""Reading a JSON object whose author is not trusted: every value has the wanted type, or the error names its key."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, TypeVar, overload

import orjson

from asyncpull.dataclass import dataclass
from asyncpull.errors import DocumentError

if TYPE_CHECKING:
    from collections.abc import Mapping

T = TypeVar("T")
D = TypeVar("D")


# Three bytes of JSON can become an object of a hundred; the largest documents have some thousand.
_CONTAINERS_LIMIT = 500_000


class _Required(Enum):
    """The default of a key that has none."""

    VALUE = 0


_NAMES: dict[type, str] = {dict: "an object", list: "an array", str: "a string", int: "an integer", float: "a number"}


@dataclass(frozen=True, slots=True)
class Fields:
    """The keys of one JSON object; ``where`` is its path from the root of the document, for messages."""

    values: Mapping[str, object]
    where: str

    @classmethod
    def from_bytes(cls, raw: bytes, what: str) -> Fields:
        """Parse the JSON object ``what``. Raises DocumentError, also for more values than any document has."""
        if raw.count(b"{") + raw.count(b"[") > _CONTAINERS_LIMIT:
            raise DocumentError(f"{what} has more than {_CONTAINERS_LIMIT:,} objects and arrays")
        try:
            value = orjson.loads(raw)
        except orjson.JSONDecodeError as error:
            raise DocumentError(f"{what} is not JSON: {error}") from error
        return cls.of(value, what)

    @classmethod
    def of(cls, value: object, where: str) -> Fields:
        """Take ``value``, which must be an object. Raises DocumentError."""
        if not isinstance(value, dict):
            raise DocumentError(f"{where} is not an object")
        return cls(value, where)

    @overload
    def get(self, key: str, kind: type[T]) -> T: ...
    @overload
    def get(self, key: str, kind: type[T], default: D) -> T | D: ...
    def get(self, key: str, kind: type[T], default: D | _Required = _Required.VALUE) -> T | D:
        """The value of ``key``, which must be of ``kind``. Missing or null gives ``default``, or DocumentError."""
        value = self.values.get(key)
        if value is None:
            if isinstance(default, _Required):
                raise DocumentError(f"{self.where} has no {key!r}")
            return default
        if not isinstance(value, kind) or isinstance(value, bool) is not (kind is bool):
            raise DocumentError(f"{self.where}.{key} is not {_NAMES.get(kind, kind.__name__)}")
        return value

    def array(self, key: str) -> list[tuple[object, str]]:
        """The items of an optional array, each with its path. Raises DocumentError."""
        items = self.get(key, list, [])
        return [(item, f"{self.where}.{key}[{number}]") for number, item in enumerate(items)]

    def texts(self, key: str) -> tuple[str, ...]:
        """The strings in an optional array; whatever else it holds is left out."""
        return tuple(item for item, _ in self.array(key) if isinstance(item, str))


def to_bytes(value: object, what: str) -> bytes:
    """The JSON of the document ``what``. Raises DocumentError: some that can be read are nested too deeply for that."""
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError as error:
        raise DocumentError(f"{what} is nested too deeply to be changed") from error
