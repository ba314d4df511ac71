"""The records of a store: JSON of containers/storage in, typed views out, and JSON out again.

A file holds one array of objects. Three rules come from the other programs that read it:

- a value of a wrong type makes the whole store unusable for every one of them, so all records are checked before they
  are written, and a file that fails the check is reported and never touched;
- keys that we do not know belong to somebody newer: records stay dictionaries, changed key by key;
- keys have a fixed order, empty ones are left out, and text is escaped as Go's encoder does.
"""

from __future__ import annotations

import base64
import calendar
import re
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, cast

import orjson

from asyncpull.dataclass import dataclass
from asyncpull.errors import StoreCorruptError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

Raw = dict[str, object]
"""One record as it is in the file. Never changed in place: ``updated`` makes another one."""

_ID = re.compile(r"[0-9a-f]{64}")
_DIGEST = re.compile(r"[A-Za-z0-9_+.-]+:[0-9a-fA-F]+")
_TIME = re.compile(
    r"(?P<year>\d{4})-(?P<month>0[1-9]|1[0-2])-(?P<day>0[1-9]|[12]\d|3[01])"
    r"T([01]\d|2[0-3]):[0-5]\d:[0-5]\d(?P<fraction>[.,]\d+)?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)",
    re.ASCII,
)


# ---------------------------------------------------------------------------------------------- what values may be


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_id(value: object) -> bool:
    return isinstance(value, str) and _ID.fullmatch(value) is not None


def _is_id_or_empty(value: object) -> bool:
    return value == "" or _is_id(value)


def _is_file_name(value: object) -> bool:
    # Layers and containers may have other IDs than ours; but an ID becomes part of paths.
    return isinstance(value, str) and value not in ("", ".", "..") and "/" not in value and "\0" not in value


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_time(value: object) -> bool:
    found = _TIME.fullmatch(value) if isinstance(value, str) else None
    return found is not None and (
        found["day"] <= "28" or int(found["day"]) <= calendar.monthrange(int(found["year"]), int(found["month"]))[1]
    )


def _is_digest_or_empty(value: object) -> bool:
    return isinstance(value, str) and (value == "" or _DIGEST.fullmatch(value) is not None)


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _is_owners(value: object) -> bool:
    return isinstance(value, list) and all(_is_int(item) and 0 <= item < 1 << 32 for item in value)


def _is_map(value: object) -> bool:
    return isinstance(value, dict)


def _is_sizes(value: object) -> bool:
    return isinstance(value, dict) and all(map(_is_int, value.values()))


def _is_digests(value: object) -> bool:
    # Only the digests of manifests are looked at by readers, and must be valid.
    return isinstance(value, dict) and all(
        _is_text(digest) and (not key.startswith("manifest") or _is_digest_or_empty(digest))
        for key, digest in value.items()
    )


def _is_id_map(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) and _is_id_range(item) for item in value)


def _is_id_range(item: dict[object, object]) -> bool:
    # Go reads integers of 64 bits; a range that goes beyond the last ID means as little as text does.
    numbers = [item.get(key) or 0 for key in ("container_id", "host_id", "size")]
    if not all(_is_int(number) for number in item.values()):
        return False
    start, host_start, size = cast("list[int]", numbers)
    return min(start, host_start, size) >= 0 and max(start, host_start) + size < 1 << 32


@dataclass(frozen=True, slots=True)
class RecordKind:
    """What one of the three files holds: its keys in order, the check of each, and those that are never left out."""

    noun: str
    checks: Mapping[str, Callable[[object], bool]]
    always: frozenset[str]


LAYERS = RecordKind(
    "layer",
    {
        "id": _is_file_name,
        "names": _is_texts,
        "parent": _is_text,
        "metadata": _is_text,
        "mountlabel": _is_text,
        "created": _is_time,
        "compressed-diff-digest": _is_text,
        "compressed-size": _is_int,
        "diff-digest": _is_text,
        "toc-digest": _is_text,
        "diff-size": _is_int,
        "compression": _is_int,
        "uidset": _is_owners,
        "gidset": _is_owners,
        "flags": _is_map,
        "uidmap": _is_id_map,
        "gidmap": _is_id_map,
        "big-data-names": _is_texts,
    },
    frozenset({"id", "created"}),
)

IMAGES = RecordKind(
    "image",
    {
        "id": _is_id,
        "digest": _is_digest_or_empty,
        "names": _is_texts,
        "names-history": _is_texts,
        "layer": _is_text,
        "mapped-layers": _is_texts,
        "metadata": _is_text,
        "big-data-names": _is_texts,
        "big-data-sizes": _is_sizes,
        "big-data-digests": _is_digests,
        "created": _is_time,
        "flags": _is_map,
    },
    frozenset({"id", "created"}),
)

CONTAINERS = RecordKind(
    "container",
    {
        "id": _is_file_name,
        "names": _is_texts,
        "image": _is_id_or_empty,
        "layer": _is_text,
        "metadata": _is_text,
        "big-data-names": _is_texts,
        "big-data-sizes": _is_sizes,
        "big-data-digests": _is_map,
        "created": _is_time,
        "uidmap": _is_id_map,
        "gidmap": _is_id_map,
        "flags": _is_map,
    },
    frozenset({"id", "image", "layer", "created"}),
)


# ------------------------------------------------------------------------------------------------- in and out


def parse_array(data: bytes, path: str) -> tuple[Raw, ...]:
    """The objects of a JSON array; nothing and ``null`` are empty. Raises StoreCorruptError."""
    if not data.strip():
        return ()
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        document = _parse_tolerantly(data, path, error)
    if document is None:
        return ()
    if not isinstance(document, list) or not all(isinstance(item, dict) for item in document):
        raise StoreCorruptError("is not an array of records", path, _RESTORE)
    return tuple(document)


def parse_records(data: bytes, kind: RecordKind, path: str) -> tuple[Raw, ...]:
    """The checked records of a file. Raises StoreCorruptError, which names the record and the key."""
    records = parse_array(data, path)
    for number, record in enumerate(records):
        wrong = _first_wrong_key(record, kind)
        if wrong is not None:
            raise StoreCorruptError(
                f"{kind.noun} {record.get('id', number)!r}: {wrong!r} cannot be {record.get(wrong)!r:.200}",
                path,
                _RESTORE,
            )
    return records


def format_records(records: Iterable[Raw], kind: RecordKind) -> bytes:
    """The bytes of a file. Raises ValueError for a record that would make the store unreadable: a defect of ours."""
    ordered = []
    for record in records:
        wrong = _first_wrong_key(record, kind)
        if wrong is not None:
            raise ValueError(f"{kind.noun} record with {wrong!r} = {record.get(wrong)!r}")
        ordered.append(_in_order(record, kind))
    return format_json(ordered)


def format_json(value: object) -> bytes:
    """Compact JSON with the characters escaped that Go's encoder escapes.

    Raises StoreCorruptError: some records that can be read are nested too deeply for that.
    """
    try:
        text = orjson.dumps(value)
    except orjson.JSONEncodeError as error:
        raise StoreCorruptError("a record is nested too deeply to be written", hint=_RESTORE) from error
    for character, escape in _GO_ESCAPES:
        text = text.replace(character, escape)
    return text


def updated(record: Raw, kind: RecordKind, changes: Mapping[str, object]) -> Raw:
    """A copy with ``changes``; what became empty is left out, as everybody does."""
    return {
        key: value for key, value in {**record, **changes}.items() if value or key not in changes or key in kind.always
    }


_RESTORE = "nothing was changed; every container tool refuses this store until the file is repaired or restored"

# These characters occur in JSON only inside of strings, so replacing bytes is enough.
_GO_ESCAPES = (
    (b"<", b"\\u003c"),
    (b">", b"\\u003e"),
    (b"&", b"\\u0026"),
    ("\u2028".encode(), b"\\u2028"),
    ("\u2029".encode(), b"\\u2029"),
)


def _parse_tolerantly(data: bytes, path: str, reason: Exception) -> object:
    # Go reads bytes that are not UTF-8 as replacement characters; so must we, or we would refuse what podman reads.
    try:
        return orjson.loads(data.decode("utf-8", "replace"))
    except orjson.JSONDecodeError:
        raise StoreCorruptError(f"is not JSON: {reason}", path, _RESTORE) from reason


def _first_wrong_key(record: Raw, kind: RecordKind) -> str | None:
    if not record.get("id"):
        return "id"
    for key, value in record.items():
        check = kind.checks.get(key)
        if check is not None and value is not None and not check(value):
            return key
    return None


def _in_order(record: Raw, kind: RecordKind) -> Raw:
    ordered: Raw = {}
    for key in (*kind.checks, *record):
        if key in record and key not in ordered:
            value = record[key]
            ordered[key] = dict(sorted(value.items())) if key in kind.checks and isinstance(value, dict) else value
    return ordered


# --------------------------------------------------------------------------------------------- times and names


def format_time(nanoseconds: int) -> str:
    """RFC 3339 in UTC from nanoseconds since 1970, without trailing zeros in the fraction."""
    seconds, fraction = divmod(nanoseconds, 1_000_000_000)
    text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{text}.{fraction:09d}".rstrip("0").rstrip(".") + "Z"


def is_time(text: str) -> bool:
    """Whether every program can read ``text`` as a time."""
    return _is_time(text)


def parse_time(text: str) -> datetime:
    """A checked time as a datetime in UTC; outside of the years that those have, the first or the last there is."""
    # Nanoseconds are cut to the microseconds that datetime has.
    match = _TIME.fullmatch(text)
    fraction = match["fraction"] if match else None
    if fraction and len(fraction) > 7:
        text = text.replace(fraction, fraction[:7])
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):  # of the year 0, or brought there by its zone
        return (datetime.max if text.startswith("9") else datetime.min).replace(tzinfo=UTC)


def names_added(names: Sequence[str], history: Sequence[str], new: Sequence[str]) -> tuple[list[str], list[str]]:
    """Names and history after ``new`` was added, newest first; each name moves to the front of the history."""
    merged = list(dict.fromkeys((*new, *names)))
    return merged, _moved_to_front(history, merged)


def names_removed(names: Sequence[str], history: Sequence[str], gone: Sequence[str]) -> tuple[list[str], list[str]]:
    """Names and history after ``gone`` were taken away; the history keeps them."""
    remaining = [name for name in names if name not in set(gone)]
    return remaining, _moved_to_front(history, remaining)


def _moved_to_front(history: Sequence[str], names: Sequence[str]) -> list[str]:
    for name in names:
        history = [name, *(old for old in history if old != name)]
    return list(history)


def big_data_file_name(key: str) -> str:
    """The file that holds a big-data item: plain keys as they are, all others as ``=`` and base64.

    Raises ValueError for a key that cannot be a file name.
    """
    if not key:
        raise ValueError("a big-data item needs a key")
    is_plain = re.fullmatch(r"[.0-9a-z]+", key) and key not in (".", "..")
    name = key if is_plain else "=" + base64.b64encode(key.encode()).decode()
    if "/" in name or len(name) > 255:
        raise ValueError(f"big-data key {key!r} cannot be a file name")
    return name
