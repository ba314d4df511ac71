"""What a registry means when it does not answer 200: from status, headers and body to one of our errors.

The body is the distribution-spec's ``{"errors": [{"code", "message", "detail"}]}``, or a token server's
``{"details"}`` or ``{"error", "error_description"}``, or the page of whatever stands in between. Its text is shown
short and without control characters: it goes to a terminal, and its author is not trusted.
"""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING

import orjson

from asyncpull.errors import (
    AuthenticationError,
    ManifestRejectedError,
    NotFoundError,
    SourceError,
    TemporaryError,
    UnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

ERROR_BODY_LIMIT = 64 << 10
_SHOWN_CHARACTERS = 300

_LOGIN_HINT = "is the repository spelled right? If it is private, log in to {host} first"


def refusal(what: str, host: str, status: int, headers: Mapping[str, str], body: bytes, now: datetime) -> SourceError:
    """The error that an answer with ``status`` (400 or more, or a surprise below) to a request for ``what`` is.

    ``now`` is what a Retry-After with a date is measured against.
    """
    said = explanation(body)
    message = f"{what}: {host} answers {status}" + (f": {said}" if said else "")
    retry_after = retry_after_seconds(headers.get("Retry-After"), now)
    match status:
        case 400 | 405 | 415 if status == 415 or _rejects_manifest(error_codes(body), said):
            return ManifestRejectedError(message, "an image of another format may be taken: --format v2s2 or oci")
        case 404 | 410:
            return NotFoundError(message, "is the reference spelled right?")
        case 401 | 403:
            return AuthenticationError(message, _LOGIN_HINT.format(host=host))
        case 408 | 425:
            return TemporaryError(message, retry_after=retry_after)
        case 429:
            hint = f"{host} limits how often it may be asked; wait, or log in where that raises the limit"
            return TemporaryError(message, hint, retry_after=retry_after)
        case _:
            return UnavailableError(message, temporary=status >= 500, retry_after=retry_after)


def explanation(body: bytes) -> str:
    """What the body of an error says, on one line; empty where it says nothing that can be understood."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return ""
    if not isinstance(document, dict):
        return ""
    errors = document.get("errors")
    found = [_entry(item) for item in errors if isinstance(item, dict)] if isinstance(errors, list) else []
    if not found:
        found = [_text(document.get(key)) for key in ("error_description", "details", "message", "error")][:4]
    return printable("; ".join(dict.fromkeys(text for text in found if text)))


def error_codes(body: bytes) -> frozenset[str]:
    """The codes that the body of an error holds, such as ``MANIFEST_UNKNOWN``."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return frozenset()
    errors = document.get("errors") if isinstance(document, dict) else None
    found = [item.get("code") for item in errors if isinstance(item, dict)] if isinstance(errors, list) else []
    return frozenset(code for code in found if isinstance(code, str))


def _rejects_manifest(codes: frozenset[str], said: str) -> bool:
    """Whether a manifest was not understood, for which some registries have names of their own."""
    return bool(codes & {"MANIFEST_INVALID", "TAG_INVALID"}) or ("UNSUPPORTED" in codes and "Invalid JSON" in said)


def _entry(item: Mapping[str, object]) -> str:
    code, message = _text(item.get("code")), _text(item.get("message"))
    return f"{message} ({code})" if code and message else message or code


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def printable(text: str) -> str:
    """``text`` of somebody who is not trusted, on one line, without control characters, and not long."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= _SHOWN_CHARACTERS else line[:_SHOWN_CHARACTERS] + "…"


def retry_after_seconds(value: str | None, now: datetime) -> float | None:
    """The seconds a Retry-After asks for (RFC 9110, 10.2.3: a number, or a date); None where it makes no sense."""
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    then = parse_date(text)
    return None if then is None else max(0.0, (then - now).total_seconds())


def parse_date(text: str) -> datetime | None:
    """The moment that a header names (RFC 9110, 5.6.7), with its zone; None where it makes no sense."""
    from email.utils import parsedate_to_datetime  # for what few answers have, it brings much along

    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError):  # the latter for numbers beyond those of a C int
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
