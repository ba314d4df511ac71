"""A docker daemon, as far as images go in and out of it: where it is, and two requests of its API.

An option says where it is, or ``DOCKER_HOST``, or nobody: then it is at ``/var/run/docker.sock``. What is said means
what it means to those it is taken from:

- an option, as in skopeo: ``tcp://`` and ``https://`` speak TLS, ``http://`` does not;
- ``DOCKER_HOST``, as in docker: ``tcp://`` speaks TLS if ``DOCKER_TLS_VERIFY`` or ``DOCKER_CERT_PATH`` is set, and the
  daemon's certificate is verified if the former is.

``ca.pem``, ``cert.pem`` and ``key.pem`` are in the directory that an option or ``DOCKER_CERT_PATH`` names; without
either, in ``~/.docker`` if the environment wants TLS.
"""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, urlsplit

import orjson

from asyncpull.dataclass import dataclass
from asyncpull.errors import (
    AuthenticationError,
    ConfigurationError,
    NotFoundError,
    SourceError,
    UnavailableError,
)
from asyncpull.http import HttpClient, HttpTimeouts
from asyncpull.proxies import Proxies
from asyncpull.tls import TlsFiles

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from types import TracebackType
    from typing import Self

    from asyncpull.http import HttpResponse, Stream

DEFAULT_HOST: Final = "unix:///var/run/docker.sock"
_NEWEST: Final = (1, 51)  # the version of the API that this was written for
_OLDEST: Final = (1, 24)  # what a daemon speaks that does not say
_SOCKET_URL: Final = "http://docker"
_PORTS: Final = {"http": 2375, "https": 2376}
_ANSWER_LIMIT: Final = 4 << 20
# A daemon packs a whole image before it sends the first byte, and unpacks it before it answers.
_TIMEOUTS: Final = HttpTimeouts(connect=30, headers=3600, idle=3600, verdict=3600)
_RUNNING: Final = "is the daemon running there? --src-daemon-host, --dest-daemon-host or DOCKER_HOST say where it is"
_GROUP: Final = "its socket is for root, and for the members of its group, which is often called docker"


@dataclass(frozen=True, slots=True)
class DaemonAddress:
    """Where a daemon is: ``host`` as it was said, and the URL or the unix ``socket`` where it is asked."""

    host: str
    url: str
    socket: str | None = None
    tls: TlsFiles = field(default_factory=TlsFiles)
    verify_tls: bool = True

    @classmethod
    def find(
        cls,
        host: str | None = None,
        *,
        tls_verify: bool | None = None,
        cert_dir: Path | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> DaemonAddress:
        """Where the daemon is, by options and the environment. Raises ConfigurationError."""
        said = host or environ.get("DOCKER_HOST") or DEFAULT_HOST
        scheme, separator, rest = said.partition("://")
        if "@" in rest and scheme not in ("unix", "ssh"):  # what is told of the daemon later must hold no secret
            raise ConfigurationError("the address of a docker daemon has a user in it, which means nothing there")
        if scheme == "unix" and rest.startswith("/"):
            return cls(said, _SOCKET_URL, socket=rest)
        if scheme not in ("tcp", "http", "https") or not separator or not _has_host(rest):
            form = "the form is unix:///PATH or tcp://HOST:PORT"
            hint = "ssh -L makes a unix socket of it" if scheme == "ssh" else form
            raise ConfigurationError(f"{said!r} is no place where a docker daemon can be asked", hint)
        by_environment = not host and scheme == "tcp"
        wants_tls = bool(environ.get("DOCKER_TLS_VERIFY") or environ.get("DOCKER_CERT_PATH"))
        is_plain = scheme == "http" or (by_environment and not wants_tls and cert_dir is None)
        if cert_dir is None and not host and wants_tls:
            home = Path(environ.get("HOME") or "~").expanduser()
            cert_dir = Path(environ.get("DOCKER_CERT_PATH") or home / ".docker")
        if tls_verify is None:
            tls_verify = bool(host) or bool(environ.get("DOCKER_TLS_VERIFY")) or not wants_tls
        scheme = "http" if is_plain else "https"
        return cls(said, _with_port(scheme, rest), None, TlsFiles() if is_plain else _tls_files(cert_dir), tls_verify)


class DaemonClient:
    """Asks one daemon; an async context manager."""

    def __init__(self, address: DaemonAddress) -> None:
        self._address = address
        self._http = HttpClient(
            _TIMEOUTS, Proxies() if address.socket else Proxies.from_environ(os.environ), unix_socket=address.socket
        )
        self._version: str | None = None

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.__aexit__(kind, error, trace)

    @asynccontextmanager
    async def saved(self, image: str) -> AsyncIterator[AsyncIterator[bytes]]:
        """What ``docker save`` writes of an image, which is a name or an ID, as it comes.

        Raises NotFoundError, AuthenticationError, UnavailableError, SourceError, also while it is read.
        """
        name = quote(image, safe=":@/")
        # podman's service, which speaks this API too, would answer the second request with 500 where there is no image.
        async with self._request("GET", f"/images/{name}/json"):
            pass
        async with self._request("GET", f"/images/get?names={name}") as response:
            yield response.chunks()

    async def load(self, archive: Stream) -> None:
        """Have the daemon load what ``docker save`` writes.

        Raises AuthenticationError, UnavailableError, SourceError, also for what the daemon says of the archive, and
        what ``archive`` raises.
        """
        async with self._request("POST", "/images/load?quiet=1", archive) as response:
            answer = await response.read(_ANSWER_LIMIT, f"the answer of {self._address.host}")
        _require_loaded(self._address.host, answer)

    async def ask_version(self) -> str:
        """The newest version that both sides know. Raises AuthenticationError, UnavailableError, SourceError."""
        if self._version is None:
            async with self._send("GET", "/_ping") as response:
                self._version = common_version(response.headers.get("Api-Version", ""))
        return self._version

    @asynccontextmanager
    async def _request(self, method: str, path: str, body: Stream | None = None) -> AsyncIterator[HttpResponse]:
        async with self._send(method, f"/v{await self.ask_version()}{path}", body) as response:
            yield response

    @asynccontextmanager
    async def _send(self, method: str, path: str, body: Stream | None = None) -> AsyncIterator[HttpResponse]:
        """Ask, and raise every answer other than 200."""
        where = self._address.host
        self._require_access()
        async with self._http.request(
            method,
            self._address.url + path,
            headers={} if body is None else {"Content-Type": "application/x-tar"},
            body=body,
            tls=self._address.tls,
            verify_tls=self._address.verify_tls,
        ) as response:
            if response.status != 200:
                raise _refusal(where, response.status, await response.excerpt(_ANSWER_LIMIT))
            yield response

    def _require_access(self) -> None:
        """Say what is wrong with a socket that cannot be used, in other words than those of the HTTP client."""
        socket = self._address.socket
        if socket is None or os.access(socket, os.R_OK | os.W_OK):
            return
        if os.path.exists(socket):
            raise AuthenticationError(f"{self._address.host}: permission denied", _GROUP)
        raise UnavailableError(f"{self._address.host}: there is no such socket", _RUNNING)


def common_version(theirs: str) -> str:
    """The newest version of the API that a daemon speaks which answers ``theirs``, and that is known here."""
    major, _, minor = theirs.partition(".")
    is_version = all(number.isdecimal() and len(number) < 10 for number in (major, minor))
    known = (int(major), int(minor)) if is_version else _OLDEST
    return "{}.{}".format(*min(known, _NEWEST))


def _refusal(where: str, status: int, body: bytes) -> SourceError:
    try:
        answer = orjson.loads(body)
        message = str(answer["message"]) if isinstance(answer, dict) and "message" in answer else f"answers {status}"
    except orjson.JSONDecodeError:
        message = f"answers {status}"
    text = f"{where}: the docker daemon says: {message[:1000]}"
    if status == 404:
        return NotFoundError(text)
    if status in (401, 403):
        return AuthenticationError(text)
    return UnavailableError(text) if status >= 500 else SourceError(text)


def _require_loaded(where: str, answer: bytes) -> None:
    """Raise what a daemon says after it has answered 200, which it does before it looks at the archive."""
    for line in answer.splitlines():
        try:
            told = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise SourceError(f"{where}: the docker daemon's answer is not JSON: {error}") from error
        if isinstance(told, dict) and (told.get("errorDetail") or told.get("error")):
            detail = told.get("errorDetail")
            message = detail.get("message") if isinstance(detail, dict) else told.get("error")
            raise SourceError(f"{where}: the docker daemon does not load the image: {str(message)[:1000]}")


def _has_host(rest: str) -> bool:
    try:
        parts = urlsplit(f"//{rest}")
        return bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return False


def _with_port(scheme: str, rest: str) -> str:
    parts = urlsplit(f"//{rest}")
    netloc = parts.netloc if parts.port else f"{parts.netloc.rstrip(':')}:{_PORTS[scheme]}"
    return f"{scheme}://{netloc}{parts.path.rstrip('/')}"


def _tls_files(directory: Path | None) -> TlsFiles:
    """The certificates in ``directory``, by the names that docker gives them."""
    if directory is None:
        return TlsFiles()
    authority, certificate, key = (directory / f"{name}.pem" for name in ("ca", "cert", "key"))
    return TlsFiles(
        (authority,) if authority.exists() else (),
        ((certificate, key),) if certificate.exists() or key.exists() else (),
    )
