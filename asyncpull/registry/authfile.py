"""Editing ``auth.json`` and Docker's ``config.json``: one entry changes, everything else stays as it is.

What is not known here is kept, in its order, and so is the indentation; a new file is indented by tabs, as podman
writes it. The file is replaced as a whole, by one that only its owner may read, so that whoever reads it meanwhile sees
the old or the new one; where its name is a symbolic link, the file that is meant is replaced. Those of us who edit the
same file at once wait for each other, by a lock file beside it. podman and Docker lock nothing: if the file is another
when ours is to take its place, our change is made again, to what is there now.
"""

from __future__ import annotations

import base64
import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from asyncpull.errors import ConfigurationError, StoreWriteError
from asyncpull.lockfile import LockMode, locked
from asyncpull.registry.credentials import AuthFile

if TYPE_CHECKING:
    from collections.abc import Callable

    Document = dict[str, object]

T = TypeVar("T")

_INDENTATION = re.compile(r'\A\s*\{\r?\n([ \t]+)"')
# What of an entry makes up the credentials; the rest of it is somebody else's.
_SECRETS = ("auth", "username", "password", "identitytoken", "registrytoken")
_TRIES = 20


def set_entry(document: Document, key: str, username: str, password: str) -> None:
    """Put credentials under ``key``, in place of what is there."""
    entry = _emptied(document, key)
    encoded = base64.b64encode(f"{username}:{password}".encode()).decode()
    _auths(document)[key] = {"auth": encoded, **entry}


def mark_entry(document: Document, key: str) -> None:
    """Leave an empty entry under ``key``: Docker's mark that a program has the credentials."""
    _auths(document)[key] = _emptied(document, key)


def remove_entry(document: Document, key: str) -> bool:
    """Take the entry of ``key`` away; tell whether there was one."""
    auths = _auths(document)
    known = key in auths
    auths.pop(key, None)
    return known


def parse_document(path: Path, raw: bytes | None) -> Document:
    """The content of the file at ``path``; none if there is no file. Raises ConfigurationError."""
    if raw is None:
        return {}
    AuthFile.from_bytes(path, raw)  # what nobody could read is not written anew
    try:
        document: Document = json.loads(raw)
    except RecursionError as error:
        raise ConfigurationError(f"{path}: is nested too deeply to be changed") from error
    return document


def format_document(document: Document, like: bytes) -> bytes:
    """``document`` with the indentation and the end of ``like``, what the file was. Raises ConfigurationError."""
    text = like.decode(errors="replace")
    found = _INDENTATION.match(text)
    end = "\n" if text.endswith("\n") else ""
    try:
        written = json.dumps(document, indent=found[1] if found else "\t", ensure_ascii=False)
    except RecursionError as error:  # sooner than when it was read
        raise ConfigurationError("the file is nested too deeply to be changed") from error
    return (written + end).encode()


async def edit_auth_file(path: Path, change: Callable[[Document], T]) -> T:
    """Have ``change`` change the document at ``path``, and write it unless it is as before; returns what that returns.

    ``change`` may be called several times, each time with what is there. Missing directories are made, for their owner
    only. Raises ConfigurationError for a file that cannot be used, StoreWriteError for one that cannot be written.
    """
    target = Path(os.path.realpath(path))
    try:
        _make_directories(target.parent)
        async with locked(target.with_name(f"{target.name}.lock"), LockMode.EXCLUSIVE):
            for _ in range(_TRIES):
                before = _read(target)
                document = parse_document(path, before)
                result = change(document)
                if document == parse_document(path, before) or _replace(target, before, document):
                    return result
    except OSError as error:
        raise StoreWriteError(f"cannot be written: {error.strerror}", str(path)) from error
    raise StoreWriteError("somebody else changes it all the time", str(path))


def _auths(document: Document) -> Document:
    if document.get("auths") is None:
        document["auths"] = {}
    auths = document["auths"]
    if not isinstance(auths, dict):
        raise ConfigurationError("auths is not an object")
    return auths


def _emptied(document: Document, key: str) -> Document:
    entry = _auths(document).get(key)
    return {name: value for name, value in entry.items() if name not in _SECRETS} if isinstance(entry, dict) else {}


def _make_directories(path: Path) -> None:
    if not path.is_dir():
        _make_directories(path.parent)
        path.mkdir(0o700, exist_ok=True)


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _replace(path: Path, before: bytes | None, document: Document) -> bool:
    """Put ``document`` at ``path`` and on the disk; False, with nothing done, if ``before`` is not there any more."""
    temporary = path.with_name(f".{path.name}.{os.urandom(8).hex()}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(fd, "wb") as file:
            file.write(format_document(document, before or b""))
            file.flush()
            os.fchmod(fd, 0o600)
            os.fsync(fd)
        if _read(path) != before:
            temporary.unlink()
            return False
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
    return True
