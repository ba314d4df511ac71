"""Where user names, passwords and identity tokens come from (containers-auth.json(5); containers/image's order).

::

    credential-helpers of registries.conf, in order; without any:   containers-auth.json
    where that word stands, the files:
        --authfile or REGISTRY_AUTH_FILE, and then no other
        $XDG_RUNTIME_DIR/containers/auth.json, or /run/containers/UID/auth.json
        $XDG_CONFIG_HOME/containers/auth.json            ~/.config
        $DOCKER_CONFIG/config.json                       ~/.docker
        ~/.dockercfg                                     the old form: no "auths" around the entries
    in each file:
        credHelpers[registry]     decides alone: the entries of this file are not looked at
        auths[repository], auths[any of its namespaces], auths[registry]
        auths of another spelling of the registry: https://HOST/v1/, and docker.io by its three names
        credsStore                asked last, for containers/image does not know it

The first that has something wins. An empty entry is Docker's mark that a program has the password: it ends the search
among the entries, but not that in the other files. Helpers know registries only, no repositories. A helper that fails
or is not installed does not keep the next from being asked; its error is raised when nothing was found. A credsStore
that is not installed is only worth a warning: it comes with many a ``config.json`` that was copied here.
"""

from __future__ import annotations

import base64
import binascii
import os
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from asyncpull.dataclass import dataclass
from asyncpull.errors import AsyncpullError, AuthenticationError, ConfigurationError
from asyncpull.log import Log
from asyncpull.registry.credential_helper import TOKEN_USER, CredentialHelper

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

AUTH_FILES = "containers-auth.json"
"""What stands for the files among the helpers of ``registries.conf``."""
DOCKER_SERVER = "https://index.docker.io/v1/"
"""What Docker calls docker.io where it keeps credentials."""

_FILE_LIMIT = 4 << 20
_DOCKER_HOSTS = frozenset({"docker.io", "registry-1.docker.io", "index.docker.io"})

_log = Log(__name__)


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user name and a password, or an identity token instead of the password; no repr shows the secret ones."""

    username: str
    password: str = field(repr=False)
    identity_token: str | None = field(default=None, repr=False)

    def basic(self) -> str:
        """The value of an Authorization header (RFC 7617)."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


@dataclass(frozen=True, slots=True)
class Found:
    """Credentials, and where they came from, for people."""

    credentials: Credentials
    source: str


@dataclass(frozen=True, slots=True)
class AuthPath:
    """Where a file may be, and whether it has the old form."""

    path: Path
    is_legacy: bool = False


@dataclass(frozen=True, slots=True)
class AuthFile:
    """What one file says: ``entries`` under their keys as written (None: an empty one), ``helpers`` by registry."""

    path: Path
    entries: Mapping[str, Credentials | None] = field(default_factory=dict)
    helpers: Mapping[str, str] = field(default_factory=dict)
    store: str | None = None
    is_legacy: bool = False

    @classmethod
    def from_bytes(cls, path: Path, raw: bytes, *, is_legacy: bool = False) -> AuthFile:
        """Parse the content of ``path``. Raises ConfigurationError that names file and key."""
        try:
            document = orjson.loads(raw)
        except orjson.JSONDecodeError as error:
            raise ConfigurationError(f"{path}: not JSON: {error}") from error
        if not isinstance(document, dict):
            raise ConfigurationError(f"{path}: not a JSON object")
        auths = document if is_legacy else _object(document, "auths", path)
        entries = {key: _entry(f"{path}: auths[{key!r}]", entry) for key, entry in auths.items()}
        if is_legacy:
            return cls(path, entries, is_legacy=True)
        helpers = {}
        for key, helper in _object(document, "credHelpers", path).items():
            if not isinstance(helper, str):
                raise ConfigurationError(f"{path}: credHelpers[{key!r}] is not a string")
            helpers[key] = helper
        store = document.get("credsStore")
        if store is not None and not isinstance(store, str):
            raise ConfigurationError(f"{path}: credsStore is not a string")
        return cls(path, entries, helpers, store or None)

    def key_for(self, account: str) -> str | None:
        """The key of the entry that decides for ``account``, a registry or what is below it."""
        registry = registry_of(account)
        for key in (registry,) if self.is_legacy else _from_the_most_specific(account):
            if key in self.entries:
                return key
        wanted = _canonical_host(registry)
        return next((key for key in self.entries if self._host_of(key) == wanted), None)

    def source(self, key: str) -> str:
        """Where the entry of ``key`` is, for people."""
        return f'{self.path}: {"" if self.is_legacy else "auths"}["{key}"]'

    def _host_of(self, key: str) -> str:
        """The registry that a key of the API address form, or a bare one, is about; a namespaced key is about none."""
        stripped = key.removeprefix("http://").removeprefix("https://")
        if self.is_legacy or stripped != key:
            stripped = registry_of(stripped)
        return _canonical_host(stripped)


@dataclass(frozen=True, slots=True)
class Keyring:
    """Everything that may have credentials, in order; files are read when they are looked into.

    ``helpers`` are those of ``registries.conf``; ``must_exist`` makes a missing file an error. ``given`` are used for
    everything, and nothing else is looked at.
    """

    paths: tuple[AuthPath, ...] = ()
    helpers: tuple[str, ...] = (AUTH_FILES,)
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)
    must_exist: bool = False
    given: Credentials | None = None

    async def lookup(self, account: str) -> Found | None:
        """The credentials for ``account``: a registry, or ``registry/path`` of a repository or namespace.

        Raises ConfigurationError for a file that cannot be used, and what the helpers raise if nobody else has any.
        """
        if self.given is not None:
            return Found(self.given, "given")
        failures: list[AsyncpullError] = []
        for helper in self.helpers or (AUTH_FILES,):
            try:
                if helper == AUTH_FILES:
                    found = await self._in_files(account)
                else:
                    found = await self._ask(helper, registry_of(account), "credential-helpers of registries.conf")
            except (ConfigurationError, AuthenticationError) as error:
                _log.debug("looking up credentials failed", account=account, helper=helper, error=str(error))
                failures.append(error)
                continue
            if found is not None:
                _log.debug("found credentials", account=account, source=found.source)
                return found
        if failures:
            raise failures[0]
        return None

    async def entry(self, key: str) -> Found | None:
        """What the files have under exactly this key; no program is asked. Raises ConfigurationError."""
        if self.given is not None or AUTH_FILES not in (self.helpers or (AUTH_FILES,)):
            return None
        for place in self.paths:
            file = await read_auth_file(place, must_exist=self.must_exist)
            if file is not None and (credentials := file.entries.get(key)) is not None:
                return Found(credentials, file.source(key))
        return None

    async def _in_files(self, account: str) -> Found | None:
        for place in self.paths:
            file = await read_auth_file(place, must_exist=self.must_exist)
            if file is not None and (found := await self._in_file(file, account)) is not None:
                return found
        return None

    async def _in_file(self, file: AuthFile, account: str) -> Found | None:
        registry = registry_of(account)
        if registry in file.helpers:
            return await self._ask(file.helpers[registry], registry, f"credHelpers of {file.path}")
        key = file.key_for(account)
        if key is not None and (credentials := file.entries[key]) is not None:
            return Found(credentials, file.source(key))
        if file.store is None:
            return None
        server = DOCKER_SERVER if registry in _DOCKER_HOSTS else registry
        try:
            return await self._ask(file.store, server, f"credsStore of {file.path}")
        except ConfigurationError as error:
            _log.warning("a credsStore cannot be asked", file=str(file.path), error=str(error))
            return None

    async def _ask(self, helper: str, server: str, why: str) -> Found | None:
        program = CredentialHelper(helper, self.environ)
        kept = await program.get(server)
        if kept is None:
            return None
        username, secret = kept
        credentials = Credentials("", "", secret) if username == TOKEN_USER else Credentials(username, secret)
        return Found(credentials, f"{program.program} ({why})")


def auth_paths(environ: Mapping[str, str], uid: int, authfile: Path | None = None) -> tuple[AuthPath, ...]:
    """The files to look at, in order: ``authfile`` (from ``--authfile``) or REGISTRY_AUTH_FILE alone, or the usual."""
    if authfile is not None:
        return (AuthPath(authfile),)
    if environ.get("REGISTRY_AUTH_FILE"):
        return (AuthPath(Path(environ["REGISTRY_AUTH_FILE"])),)
    home = Path(environ.get("HOME") or "/")
    configuration = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
    docker = Path(environ.get("DOCKER_CONFIG") or home / ".docker")
    return (
        AuthPath(runtime_auth_path(environ, uid)),
        AuthPath(configuration / "containers" / "auth.json"),
        AuthPath(docker / "config.json"),
        AuthPath(home / ".dockercfg", is_legacy=True),
    )


def runtime_auth_path(environ: Mapping[str, str], uid: int) -> Path:
    """The file that a login writes to and that is looked at first, where none is named."""
    if environ.get("XDG_RUNTIME_DIR"):
        return Path(environ["XDG_RUNTIME_DIR"]) / "containers" / "auth.json"
    return Path(f"/run/containers/{uid}/auth.json")


def user_id(environ: Mapping[str, str]) -> int:
    """Who we are outside of the user namespace of a rootless store, in which we are root; podman's variable tells."""
    rootless = environ.get("_CONTAINERS_ROOTLESS_UID", "")
    return int(rootless) if rootless.isdecimal() else os.getuid()


def load_keyring(
    environ: Mapping[str, str], authfile: Path | None = None, helpers: Sequence[str] = (AUTH_FILES,)
) -> Keyring:
    """The keyring of this process; ``helpers`` are those of ``registries.conf``, a missing ``authfile`` an error."""
    paths = auth_paths(environ, user_id(environ), authfile)
    return Keyring(paths, tuple(helpers), environ, must_exist=authfile is not None)


async def read_auth_file(place: AuthPath, *, must_exist: bool = False) -> AuthFile | None:
    """Read a file; None if it is not there. Raises ConfigurationError, also then where it ``must_exist``."""
    import aiofiles  # most registries never ask who we are

    path = place.path
    try:
        async with aiofiles.open(path, "rb") as file:
            raw = await file.read(_FILE_LIMIT)
    except (FileNotFoundError, NotADirectoryError) as error:
        if must_exist:
            raise ConfigurationError(f"{path}: no such file with credentials") from error
        return None
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from error
    return AuthFile.from_bytes(path, raw, is_legacy=place.is_legacy)


def registry_of(account: str) -> str:
    """The registry of an account or key: what stands before the first slash."""
    return account.partition("/")[0]


def _from_the_most_specific(account: str) -> Iterator[str]:
    while account:
        yield account
        account = account.rpartition("/")[0]


def _canonical_host(host: str) -> str:
    return "docker.io" if host in _DOCKER_HOSTS else host


def _object(document: Mapping[str, object], key: str, path: Path) -> Mapping[str, object]:
    value = document.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigurationError(f"{path}: {key} is not an object")
    return value


def _entry(where: str, entry: object) -> Credentials | None:
    if not isinstance(entry, dict):
        raise ConfigurationError(f"{where} is not an object")
    encoded, token = entry.get("auth") or "", entry.get("identitytoken") or None
    if not isinstance(encoded, str):
        raise ConfigurationError(f"{where}.auth is not a string")
    if token is not None and not isinstance(token, str):
        raise ConfigurationError(f"{where}.identitytoken is not a string")
    if not encoded:
        return None if token is None else Credentials("", "", token)
    try:
        decoded = base64.b64decode(encoded, validate=True).decode()
    except (binascii.Error, ValueError):
        # Not as its cause, which has the password.
        raise ConfigurationError(f"{where}.auth is not base64 of text") from None
    username, colon, password = decoded.partition(":")
    if not colon:
        raise ConfigurationError(f"{where}.auth is not base64 of user:password")
    # Docker pads the password with zero bytes.
    credentials = Credentials(username, password.strip("\0"), token)
    return None if credentials == Credentials("", "") else credentials
