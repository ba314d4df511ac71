"""The heads of messages (RFC 9112 §2 to §5): a request's to bytes, a response's from bytes.

No error quotes what came: whoever answers with something else than HTTP may be telling secrets.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from asyncpull.dataclass import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# The Location of a signed URL may be long, and a registry may send many headers; more than this is no answer.
HEAD_LIMIT: Final = 128 << 10
_END: Final = re.compile(rb"\n\r?\n")
_FOLD: Final = re.compile(rb"\r?\n[ \t]+")
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.([01]) +([1-9][0-9]{2})(?:[ \t][^\x00\r\n]*)?")
_FIELD_LINE: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\x00\r\n]*)")
_NOT_IN_TARGET: Final = re.compile(rb"[^\x21-\x7e]")
_NOT_IN_VALUE: Final = re.compile(r"[\x00\r\n]")
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


class NotHttpError(Exception):
    """What came is no answer of HTTP/1.1; ``args`` say what is wrong with it."""


class Headers(Mapping[str, str]):
    """Header fields. Names are compared without regard to case; of a name that comes several times, it is the first."""

    def __init__(self, fields: Iterable[tuple[str, str]]) -> None:
        self._values: dict[str, list[str]] = {}
        for name, value in fields:
            self._values.setdefault(name.lower(), []).append(value)

    def all(self, name: str) -> tuple[str, ...]:
        """Every value of ``name``, in order; none if it is not there."""
        return tuple(self._values.get(name.lower(), ()))

    def tokens(self, name: str) -> list[str]:
        """The members of a list with commas, in small letters, over all fields of that name (RFC 9110 §5.6.1)."""
        members = ",".join(self.all(name)).lower().split(",")
        return [member.strip(" \t") for member in members if member.strip(" \t")]

    def __getitem__(self, name: str) -> str:
        return self._values[name.lower()][0]

    def __contains__(self, name: object) -> bool:
        return str(name).lower() in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"<Headers {', '.join(self._values)}>"  # values may be secrets


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """``is_persistent`` says whether the connection goes on after the message (RFC 9112 §9.3)."""

    status: int
    headers: Headers
    is_persistent: bool


def request_head(method: str, target: str, fields: Mapping[str, str]) -> bytes:
    """The head of a request; bytes of ``target`` that cannot be sent as they are get a percent sign.

    Raises ValueError for a method or a field that would break out of its line.
    """
    raw = _NOT_IN_TARGET.sub(lambda found: b"%%%02X" % ord(found[0]), _encoded(target))
    lines = [b"%s %s HTTP/1.1\r\n" % (_encoded(method), raw)]
    if not _TOKEN.fullmatch(method):
        raise ValueError("a method that is none")
    for name, value in fields.items():
        if not _TOKEN.fullmatch(name) or _NOT_IN_VALUE.search(value):
            raise ValueError("a header that cannot be sent")
        lines.append(b"%s: %s\r\n" % (_encoded(name), _encoded(value)))
    return b"".join((*lines, b"\r\n"))


def head_length(raw: bytes | bytearray, start: int = 0) -> int | None:
    """How many bytes the head has that ``raw`` begins with, searched from ``start`` on; None while it has no end.

    Raises NotHttpError when it gets too long.
    """
    end = _END.search(raw, max(0, start - 2))
    if end is None and len(raw) <= HEAD_LIMIT:
        return None
    if end is None or end.end() > HEAD_LIMIT:
        raise NotHttpError(f"a head of more than {HEAD_LIMIT} bytes")
    return end.end()


def parse_response_head(raw: bytes | bytearray) -> ResponseHead:
    """What the head of a response says; a line may end without CR, and be folded (RFC 9112 §2.2, §5.2).

    Raises NotHttpError.
    """
    first, *lines = _FOLD.sub(b" ", bytes(raw).rstrip(b"\r\n")).split(b"\n")
    status = _STATUS_LINE.fullmatch(first.removesuffix(b"\r"))
    if status is None:
        raise NotHttpError("a first line that is no status line")
    fields = []
    for line in lines:
        field = _FIELD_LINE.fullmatch(line.removesuffix(b"\r"))
        if field is None:
            raise NotHttpError("a line that is no header")
        fields.append((_decoded(field[1]), _decoded(field[2].rstrip(b" \t"))))
    headers = Headers(fields)
    options = headers.tokens("Connection")
    is_persistent = "close" not in options and (status[1] == b"1" or "keep-alive" in options)
    return ResponseHead(int(status[2]), headers, is_persistent)


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _decoded(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")
