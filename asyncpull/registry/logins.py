"""Keeping and forgetting logins, where containers/image does.

A login is kept by the first that can: a helper of ``registries.conf``, or, where that says containers-auth.json, the
file, or the program that the file names for the registry (``credHelpers``) or for all (``credsStore``). A logout has
all of them forget it. Programs know registries only; namespaced logins are for files.

The file is the one that is named, or REGISTRY_AUTH_FILE, or $DOCKER_CONFIG/config.json, or the runtime directory's
``auth.json``. Docker's file is written as Docker reads it: docker.io under the address of its API, no namespaces.
"""

from __future__ import annotations

from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING

from asyncpull.dataclass import dataclass
from asyncpull.errors import AsyncpullError, ConfigurationError, UsageError
from asyncpull.log import Log
from asyncpull.registry.authfile import edit_auth_file, mark_entry, remove_entry, set_entry
from asyncpull.registry.credential_helper import CredentialHelper
from asyncpull.registry.credentials import (
    AUTH_FILES,
    DOCKER_SERVER,
    AuthFile,
    AuthPath,
    Keyring,
    auth_paths,
    read_auth_file,
    registry_of,
    runtime_auth_path,
    user_id,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_log = Log(__name__)


@dataclass(frozen=True, slots=True)
class Logins:
    """Where logins are kept: ``path``, in Docker's way if ``is_docker``, and ``helpers`` of ``registries.conf``.

    ``is_named`` says that somebody named the file: then no other is read.
    """

    path: Path
    is_named: bool = False
    is_docker: bool = False
    helpers: tuple[str, ...] = (AUTH_FILES,)
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def choose(
        cls,
        environ: Mapping[str, str],
        authfile: Path | None = None,
        docker_file: Path | None = None,
        helpers: Sequence[str] = (AUTH_FILES,),
    ) -> Logins:
        """The place for options and environment. Raises UsageError and ConfigurationError."""
        if authfile is not None and docker_file is not None:
            raise UsageError("--authfile and --compat-auth-file name two files; one is written")
        named = authfile or (None if docker_file else _path(environ, "REGISTRY_AUTH_FILE"))
        if named is not None:
            return cls(named, True, False, tuple(helpers) or (AUTH_FILES,), environ)
        directory = _path(environ, "DOCKER_CONFIG")
        docker_file = docker_file or (None if directory is None else directory / "config.json")
        if docker_file is not None:
            # Docker does not know of the helpers in registries.conf.
            return cls(docker_file, True, True, (AUTH_FILES,), environ)
        runtime = _path(environ, "XDG_RUNTIME_DIR")
        if runtime is not None and not runtime.is_dir():
            raise ConfigurationError(
                f"{runtime}, which XDG_RUNTIME_DIR names, does not exist", "make it, or unset XDG_RUNTIME_DIR"
            )
        return cls(runtime_auth_path(environ, user_id(environ)), False, False, tuple(helpers) or (AUTH_FILES,), environ)

    @property
    def keyring(self) -> Keyring:
        """Where the logins that are kept here are looked up, with the others that count."""
        paths = (AuthPath(self.path),) if self.is_named else auth_paths(self.environ, user_id(self.environ))
        return Keyring(paths, self.helpers, self.environ)

    async def keep(self, key: str, username: str, password: str) -> str:
        """Keep a login for ``key``, a registry or a namespace in one; return where, for people.

        Raises UsageError, ConfigurationError, AuthenticationError and StoreWriteError, the first there was.
        """
        failures: list[AsyncpullError] = []
        for helper in self.helpers:
            try:
                if helper == AUTH_FILES:
                    return await self._keep_in_file(self._spelled(key), username, password)
                return await self._keep_by(helper, key, username, password)
            except AsyncpullError as error:
                _log.debug("a login could not be kept", key=key, helper=helper, error=str(error))
                failures.append(error)
        raise failures[0]

    async def forget(self, key: str) -> bool:
        """Have everybody forget the login for ``key``; tell whether anybody knew it. Raises as ``keep`` does."""
        failures: list[AsyncpullError] = []
        known = False
        for helper in self.helpers:
            try:
                if helper == AUTH_FILES:
                    known |= await self._forget_in_file(self._spelled(key))
                elif not _is_namespaced(key):
                    known |= await self._program(helper).erase(key)
            except AsyncpullError as error:
                failures.append(error)
        if failures:
            raise failures[0]
        return known

    async def forget_all(self) -> None:
        """Have everybody forget all logins. Helpers of ``registries.conf`` that are not installed know none."""
        failures: list[AsyncpullError] = []
        for helper in self.helpers:
            try:
                if helper == AUTH_FILES:
                    await self._forget_all_in_file()
                else:
                    await self._forget_all_by(helper)
            except AsyncpullError as error:
                failures.append(error)
        if failures:
            raise failures[0]

    def _spelled(self, key: str) -> str:
        """``key`` as it stands in the file. Raises UsageError where it cannot."""
        if not self.is_docker:
            return key
        if _is_namespaced(key):
            raise UsageError(f"{self.path}: Docker knows no credentials for a namespace, such as {key}")
        return DOCKER_SERVER if key == "docker.io" else key

    def _program(self, helper: str) -> CredentialHelper:
        return CredentialHelper(helper, self.environ)

    async def _file(self) -> AuthFile:
        return await read_auth_file(AuthPath(self.path)) or AuthFile(self.path)

    async def _keep_by(self, helper: str, key: str, username: str, password: str) -> str:
        if _is_namespaced(key):
            raise UsageError(f"the credential helper {helper} knows registries only, not {key}")
        await self._program(helper).store(key, username, password)
        return f"credential helper: {helper}"

    async def _keep_in_file(self, key: str, username: str, password: str) -> str:
        file = await self._file()
        if key in file.helpers:
            return await self._keep_by(file.helpers[key], key, username, password)
        if file.store is not None and not _is_namespaced(key):
            kept_by = await self._keep_by(file.store, _server(key), username, password)
            await edit_auth_file(self.path, lambda document: mark_entry(document, key))
            return kept_by
        await edit_auth_file(self.path, lambda document: set_entry(document, key, username, password))
        return str(self.path)

    async def _forget_in_file(self, key: str) -> bool:
        file = await self._file()
        known = False
        if key in file.helpers:
            known = await self._program(file.helpers[key]).erase(key)
        elif file.store is not None and not _is_namespaced(key):
            known = await self._program(file.store).erase(_server(key))
        if key in file.entries:
            known |= await edit_auth_file(self.path, lambda document: remove_entry(document, key))
        return known

    async def _forget_all_in_file(self) -> None:
        file = await self._file()
        for registry, helper in file.helpers.items():
            await self._program(helper).erase(registry)
        if file.store is not None:
            for key in file.entries:
                await self._program(file.store).erase(_server(key))
        if file.entries or file.helpers:
            await edit_auth_file(self.path, self._clear)

    def _clear(self, document: dict[str, object]) -> None:
        document["auths"] = {}
        if not self.is_docker:
            document.pop("credHelpers", None)

    async def _forget_all_by(self, helper: str) -> None:
        program = self._program(helper)
        try:
            servers = await program.list()
        except ConfigurationError as error:
            _log.debug("a credential helper is not there", helper=helper, error=str(error))
            return
        for server in servers:
            await program.erase(server)


def login_key(text: str) -> str:
    """What a person means by the argument of a login: ``registry[/namespace]``; of a URL only its host counts.

    Raises UsageError.
    """
    for scheme in ("https://", "http://"):
        if text.startswith(scheme):
            text = registry_of(text.removeprefix(scheme)).rpartition("@")[2]
    registry, _, path = text.partition("/")
    if not registry or "@" in text or ":" in path or any(not part for part in text.split("/")) or not _is_plain(text):
        raise UsageError(f"{text!r} is no registry, and no namespace or repository in one")
    return text


def _is_plain(text: str) -> bool:
    return text.isascii() and text.isprintable() and " " not in text


def _is_namespaced(key: str) -> bool:
    return "/" in key and key != DOCKER_SERVER


def _server(key: str) -> str:
    """What Docker calls a registry towards the program that keeps all."""
    return DOCKER_SERVER if key == "docker.io" else key


def _path(environ: Mapping[str, str], name: str) -> Path | None:
    return Path(environ[name]) if environ.get(name) else None
