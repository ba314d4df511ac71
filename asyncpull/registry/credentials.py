"""User names and passwords from ``auth.json`` and Docker's ``config.json`` (containers-auth.json(5)).

A file maps keys to base64 of ``user:password``. Keys are, from the most specific on, a repository, any of its
namespaces, or a registry; the first file that has one of them wins. Docker wrote registries as API addresses
(``https://index.docker.io/v1/``); such a key counts for its host, and docker.io has three names.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import aiofiles
import orjson

from asyncpull.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from asyncpull.spec.reference import Reference

_FILE_LIMIT = 4 << 20
_DOCKER_HOSTS = frozenset({"docker.io", "registry-1.docker.io", "index.docker.io"})


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user name and a password, which no repr shows."""

    username: str
    password: str = field(repr=False)

    def basic(self) -> str:
        """The value of an Authorization header (RFC 7617)."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


@dataclass(frozen=True, slots=True)
class AuthFile:
    """One file; ``entries`` are the credentials under their keys, as written."""

    path: Path
    entries: Mapping[str, Credentials]

    @classmethod
    def from_bytes(cls, path: Path, raw: bytes) -> AuthFile:
        """Parse the content of ``path``. Raises ConfigurationError that names file and key."""
        try:
            document = orjson.loads(raw)
        except orjson.JSONDecodeError as error:
            raise ConfigurationError(f"{path}: not JSON: {error}") from error
        auths = document.get("auths") if isinstance(document, dict) else document
        if auths is None:
            return cls(path, {})
        if not isinstance(auths, dict):
            raise ConfigurationError(f"{path}: auths is not an object")
        entries = {}
        for key, entry in auths.items():
            credentials = _entry(f"{path}: auths[{key!r}]", entry)
            if credentials is not None:
                entries[key] = credentials
        return cls(path, entries)

    def lookup(self, reference: Reference) -> Credentials | None:
        """The credentials for a repository, by the most specific key."""
        for key in _keys(reference):
            if key in self.entries:
                return self.entries[key]
        wanted = _canonical_host(reference.domain)
        return next((found for key, found in self.entries.items() if _host_of(key) == wanted), None)


@dataclass(frozen=True, slots=True)
class Keyring:
    """Several files, the first that has something wins."""

    files: tuple[AuthFile, ...] = ()

    def lookup(self, reference: Reference) -> Credentials | None:
        """The credentials for a repository, if there are any."""
        return next((found for file in self.files if (found := file.lookup(reference)) is not None), None)


def auth_files(environ: Mapping[str, str], uid: int, authfile: Path | None = None) -> tuple[Path, ...]:
    """The files to look at, in order: ``authfile`` (from ``--authfile``) or REGISTRY_AUTH_FILE alone, or the usual."""
    if authfile is not None:
        return (authfile,)
    if environ.get("REGISTRY_AUTH_FILE"):
        return (Path(environ["REGISTRY_AUTH_FILE"]),)
    home = Path(environ.get("HOME") or "/")
    runtime = Path(environ["XDG_RUNTIME_DIR"]) if environ.get("XDG_RUNTIME_DIR") else Path(f"/run/containers/{uid}")
    configuration = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
    docker = Path(environ.get("DOCKER_CONFIG") or home / ".docker")
    primary = runtime / "containers" if environ.get("XDG_RUNTIME_DIR") else runtime
    return (primary / "auth.json", configuration / "containers" / "auth.json", docker / "config.json")


async def load_keyring(paths: Sequence[Path], *, must_exist: bool = False) -> Keyring:
    """Read the files that are there. Raises ConfigurationError, also for a missing one where it ``must_exist``."""
    files = []
    for path in paths:
        try:
            async with aiofiles.open(path, "rb") as file:
                raw = await file.read(_FILE_LIMIT)
        except (FileNotFoundError, NotADirectoryError) as error:
            if must_exist:
                raise ConfigurationError(f"{path}: no such file with credentials") from error
            continue
        except OSError as error:
            raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from error
        files.append(AuthFile.from_bytes(path, raw))
    return Keyring(tuple(files))


def _keys(reference: Reference) -> Iterator[str]:
    key = reference.name
    while key:
        yield key
        key = key.rpartition("/")[0]


def _host_of(key: str) -> str:
    """The registry that a key of the API address form, or a bare one, is about; a namespaced key is about none."""
    for scheme in ("https://", "http://"):
        if key.startswith(scheme):
            return _canonical_host(key.removeprefix(scheme).partition("/")[0])
    return _canonical_host(key)


def _canonical_host(host: str) -> str:
    return "docker.io" if host in _DOCKER_HOSTS else host


def _entry(where: str, entry: object) -> Credentials | None:
    if not isinstance(entry, dict):
        raise ConfigurationError(f"{where} is not an object")
    encoded = entry.get("auth")
    if encoded is None or encoded == "":
        # Docker leaves an empty entry where a credential helper has the password.
        return None
    if not isinstance(encoded, str):
        raise ConfigurationError(f"{where}.auth is not a string")
    try:
        decoded = base64.b64decode(encoded, validate=True).decode()
    except (binascii.Error, ValueError) as error:
        raise ConfigurationError(f"{where}.auth is not base64 of text") from error
    username, colon, password = decoded.partition(":")
    if not colon:
        raise ConfigurationError(f"{where}.auth is not base64 of user:password")
    # Docker pads the password with zero bytes.
    return Credentials(username, password.strip("\0"))
