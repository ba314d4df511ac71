"""Programs that keep credentials: the protocol of ``docker-credential-*`` (docker/docker-credential-helpers).

::

    docker-credential-NAME get     stdin: server      stdout: {"ServerURL", "Username", "Secret"}
    docker-credential-NAME store   stdin: the same object
    docker-credential-NAME erase   stdin: server
    docker-credential-NAME list    stdin: unused      stdout: {server: user name}

A program that fails exits with 1 and says why on stdout; one that has nothing says a fixed sentence there. What it
writes to stderr is nobody's business. A user name ``<token>`` means that the secret is an identity token.

It runs in a thread, like the workers that extract: any event loop and any thread will do, and no child watcher is
needed. Its stdin is a file in memory, which needs no writer; its stdout is read up to a limit, for a limited time, or
until we are cancelled; then it is killed. Only names that are a plain word are run, found by the PATH.
"""

from __future__ import annotations

import asyncio
import os
import re
import selectors
import subprocess
import time
from dataclasses import field
from typing import TYPE_CHECKING

import orjson

from asyncpull.dataclass import dataclass
from asyncpull.errors import AuthenticationError, ConfigurationError, DocumentError
from asyncpull.log import Log
from asyncpull.spec.fields import Fields
from asyncpull.waiting import finish

if TYPE_CHECKING:
    from collections.abc import Mapping

# The user name under which an identity token is kept.
TOKEN_USER = "<token>"

_PREFIX = "docker-credential-"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_NOTHING_FOUND = "credentials not found in native keychain"
_OUTPUT_LIMIT = 1 << 20
_PIECE = 64 << 10
# Long enough for a person to be asked for the password of a keyring.
_TIME_LIMIT_SECONDS = 120.0
_SHOWN_CHARACTERS = 200

_log = Log(__name__)


@dataclass(frozen=True, slots=True)
class CredentialHelper:
    """The program ``docker-credential-NAME``, run with ``environ``.

    Every method raises ConfigurationError where there is no such program, and AuthenticationError where it fails.
    """

    name: str
    environ: Mapping[str, str] = field(repr=False)
    time_limit: float = _TIME_LIMIT_SECONDS

    @property
    def program(self) -> str:
        """What is run."""
        return _PREFIX + self.name

    async def get(self, server: str) -> tuple[str, str] | None:
        """User name and secret for ``server``, None where the program has none."""
        output = await self._ask("get", server.encode())
        if output is None:
            return None
        fields = self._object(output)
        try:
            username, secret = fields.get("Username", str, ""), fields.get("Secret", str, "")
        except DocumentError as error:
            raise AuthenticationError(str(error)) from error
        return (username, secret) if username or secret else None

    async def store(self, server: str, username: str, secret: str) -> None:
        """Have the program keep a user name and a secret for ``server``."""
        await self._ask("store", orjson.dumps({"ServerURL": server, "Username": username, "Secret": secret}), secret)

    async def erase(self, server: str) -> bool:
        """Have the program forget ``server``; tell whether it knew it."""
        return await self._ask("erase", server.encode()) is not None

    async def list(self) -> Mapping[str, str]:
        """Every server the program has a secret for, with its user name."""
        fields = self._object(await self._ask("list", b"unused") or b"{}")
        return {server: username for server, username in fields.values.items() if isinstance(username, str)}

    def _object(self, output: bytes) -> Fields:
        try:
            return Fields.from_bytes(output, f"the answer of {self.program}")
        except DocumentError as error:
            raise AuthenticationError(str(error)) from error

    async def _ask(self, action: str, text: bytes, secret: str = "") -> bytes | None:
        """Run the program; return its stdout, None where it says that there is nothing."""
        path = self._find()
        stop = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        try:
            job = asyncio.ensure_future(asyncio.to_thread(self._converse, path, action, text, stop))
            await finish(job, lambda: os.eventfd_write(stop, 1))
        finally:
            os.close(stop)
        code, output = job.result()
        _log.debug("asked a credential helper", program=self.program, action=action, code=code)
        if code == 0:
            return output
        said = " ".join(output.decode(errors="replace").split())
        if said == _NOTHING_FOUND:
            return None
        if said.startswith("{") or (secret and secret in said):
            said = ""  # it may be the credentials
        reason = f": {said[:_SHOWN_CHARACTERS]}" if said else ""
        raise AuthenticationError(f"{self.program} {action} failed with exit code {code}{reason}")

    def _find(self) -> str:
        if _NAME.fullmatch(self.name) is None:
            raise ConfigurationError(
                f"{self.name!r} is no name of a credential helper", "it is what follows docker-credential- in its name"
            )
        from shutil import which  # here, for it brings three compressions along

        path = which(self.program, path=self.environ.get("PATH", os.defpath))
        if path is None or not os.path.isabs(path):
            raise ConfigurationError(
                f"the credential helper {self.program} is not installed",
                "install it, or take it out of the file that names it",
            )
        return path

    def _converse(self, path: str, action: str, text: bytes, stop: int) -> tuple[int, bytes]:
        """Run the program at ``path`` to its end; return its exit code and stdout. ``stop`` is read when cancelled."""
        deadline = time.monotonic() + self.time_limit
        stdin = os.memfd_create("credential", os.MFD_CLOEXEC)
        try:
            os.write(stdin, text)
            os.lseek(stdin, 0, os.SEEK_SET)
            try:
                process = subprocess.Popen(
                    [path, action],
                    stdin=stdin,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    env=dict(self.environ),
                )
            except OSError as error:
                raise ConfigurationError(f"{path} cannot be run: {error.strerror}") from error
        finally:
            os.close(stdin)
        with process:
            try:
                assert process.stdout is not None
                output = self._read(process.stdout.fileno(), stop, deadline)
                if output is not None:
                    process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired as error:
                raise self._too_long() from error
            finally:
                process.kill()
        return process.returncode, output or b""

    def _read(self, fd: int, stop: int, deadline: float) -> bytes | None:
        """Read until the program closes its stdout; None where we are to stop."""
        output = bytearray()
        with selectors.DefaultSelector() as selector:
            selector.register(fd, selectors.EVENT_READ)
            selector.register(stop, selectors.EVENT_READ)
            while True:
                ready = {key.fd for key, _ in selector.select(max(0.0, deadline - time.monotonic()))}
                if stop in ready:
                    return None
                if not ready:
                    raise self._too_long()
                piece = os.read(fd, _PIECE)
                if not piece:
                    return bytes(output)
                output += piece
                if len(output) > _OUTPUT_LIMIT:
                    raise AuthenticationError(f"{self.program} says more than {_OUTPUT_LIMIT} bytes")

    def _too_long(self) -> AuthenticationError:
        return AuthenticationError(f"{self.program} did not answer in {self.time_limit:g} seconds")
