"""HTTP as the rest of the house wants it; the only importer of aiohttp's client.

What is different from aiohttp as it comes:

- ``Accept-Encoding: identity`` on every request, and a body with any other Content-Encoding is refused: a compressed
  transfer breaks digests and ranges alike.
- No total timeout. A blob may take hours; what must not happen is that nothing happens: connecting, waiting for the
  headers (all of them, so that a server which dribbles them gives up no sooner than we do) and every pause within a
  body have limits of their own.
- A document that comes byte by byte is given up like a blob that does (``stall``), whatever each pause is.
- Redirects are followed here. ``Authorization`` is sent to the origin (scheme, host, port) it was meant for and to no
  other, and https is not left for http unless the caller said that plain http is fine. They lead to this machine or its
  link only from there: nobody out there chooses what we ask the services of our neighbours.
- A body is sent as it comes, piece by piece: whoever makes it waits while the server does not take more, and the server
  must take a piece within the limit for pauses. How long the next piece takes to be made is nobody's fault here.
- Every request of a redirect, and every token, goes through the proxy that the environment names for its URL; the
  proxy's password goes to the proxy only.
- What is only for one origin (certificates of ours, headers that may be secrets) is left out once a redirect left it.
- No cookies, no netrc; URLs are sent byte for byte as they were given, for they may be signed.
- Every exception is one of ours, and its text holds neither a query nor user information of a URL. aiohttp's exception
  stays as the cause, robbed of the request it would print.
"""

from __future__ import annotations

import asyncio
import base64
import socket
import ssl
from contextlib import asynccontextmanager, contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import aiohttp
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from asyncpull.addresses import addresses_of, is_next_door
from asyncpull.dataclass import dataclass
from asyncpull.errors import (
    AuthenticationError,
    DocumentTooLargeError,
    SourceError,
    TemporaryError,
    UnavailableError,
)
from asyncpull.proxies import Proxies
from asyncpull.stall import StallLimits, StallWatch
from asyncpull.tls import TlsFiles, make_context
from asyncpull.urls import origin, redact, redirected, resolved

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping
    from types import TracebackType
    from typing import Self

USER_AGENT = "asyncpull/0.1.0"
REDIRECT_LIMIT = 10
_HEADER_LIMIT = 32 << 10  # bytes per header line: a signed Location may be long
_PIECE = 256 << 10  # bytes of a body that are handed on at once, within the limit for pauses
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
# Their bodies are sent again where they are redirected to; every other redirect makes a GET of it.
_SAME_METHOD = frozenset({307, 308})
_TLS_HINT = "if this registry is to be trusted without a valid certificate, mark it insecure or say --tls-verify=false"


@dataclass(frozen=True, slots=True)
class HttpTimeouts:
    """Limits in seconds: to connect, TLS included; until all headers are here; between two reads or writes of a body.

    ``verdict`` is the limit for the headers that answer a body that was sent: a registry hashes, and often copies, a
    whole blob before it answers.
    """

    connect: float = 30.0
    headers: float = 60.0
    idle: float = 30.0
    verdict: float = 600.0


@dataclass(frozen=True, slots=True)
class Stream:
    """A body of ``length`` bytes that is sent as it comes; ``open`` begins it anew for every try.

    What the iteration raises ends the request and is what the request raises. The iterator is closed in the end, if it
    can be. Such a body may be redirected anywhere: it holds no secret, for nothing of ours does but credentials.
    """

    length: int
    open: Callable[[], AsyncIterator[bytes | memoryview]]


class HttpResponse:
    """A response whose headers are here; its body is read once, by ``read`` or ``chunks``.

    ``is_foreign`` is true if and only if a redirect led to another origin. Names of ``headers`` are compared without
    regard to case.
    """

    def __init__(self, response: aiohttp.ClientResponse, url: str, *, is_foreign: bool, patience: float) -> None:
        self._response, self._url = response, url
        self._patience = patience
        self.url = redact(url)
        self.is_foreign = is_foreign
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers

    def all(self, name: str) -> tuple[str, ...]:
        """Every value of a header that may come several times."""
        return tuple(self._response.headers.getall(name, ()))

    @property
    def location(self) -> str | None:
        """The absolute URL that Location names, which may be a secret; None where there is none.

        Raises UnavailableError where it names none of http or https.
        """
        location = self.headers.get("Location")
        return None if location is None else resolved(self._url, location)

    @property
    def content_length(self) -> int | None:
        """The length that the headers promise, in bytes; None if they do not."""
        return self._response.content_length

    async def read(self, limit: int, what: str) -> bytes:
        """The whole body. Raises DocumentTooLargeError as soon as it is seen that it exceeds ``limit`` bytes.

        Also UnavailableError, and TemporaryError where it is too slow.
        """
        if (self.content_length or 0) > limit:
            raise DocumentTooLargeError(f"{what} has {self.content_length} bytes, the limit is {limit}")
        body = bytearray()
        async for chunk in self._watched():
            body += chunk
            if len(body) > limit:
                raise DocumentTooLargeError(f"{what} has more than {limit} bytes, which is the limit")
        return bytes(body)

    async def excerpt(self, limit: int) -> bytes:
        """As much of the body as comes, up to ``limit`` bytes; for bodies of errors, so it raises nothing of ours."""
        body = bytearray()
        try:
            async for chunk in self._watched():
                body += chunk
                if len(body) >= limit:
                    break
        except SourceError:
            pass
        return bytes(body[:limit])

    async def _watched(self) -> AsyncIterator[bytes]:
        """The chunks, as long as they come fast enough."""
        watch, clock, chunks = StallWatch(StallLimits(self._patience)), asyncio.get_running_loop().time, self.chunks()
        while True:
            asked = clock()
            try:
                async with asyncio.timeout(watch.patience):
                    chunk = await anext(chunks)
            except StopAsyncIteration:
                return
            except TimeoutError:
                chunk = b""
            try:
                watch.moved(len(chunk), clock() - asked)
            except TemporaryError as error:
                raise TemporaryError(f"{self.url}: {error.message}") from error
            if chunk:
                yield chunk

    def chunks(self) -> AsyncIterator[bytes]:
        """The body as it comes from the socket, in pieces of up to some 256 KiB.

        Raises UnavailableError where the body is encoded, and while iterating UnavailableError and TemporaryError.
        """
        encoding = self.headers.get("Content-Encoding", "identity").strip().lower()
        if encoding not in ("", "identity"):
            raise UnavailableError(
                f"{self.url}: the body comes with Content-Encoding {encoding[:40]!r}, though identity was asked for",
                "a proxy or a registry that recompresses breaks digests; it has to be told not to",
            )
        return _Chunks(self.url, self._response.content)

    def __repr__(self) -> str:
        return f"<HttpResponse {self.status} {self.url}>"


class _Chunks:
    """The pieces of a body. Not a generator: one that is left half-way would have to be closed by somebody."""

    def __init__(self, subject: str, content: aiohttp.StreamReader) -> None:
        self._subject, self._content = subject, content

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        with _translated(self._subject):
            chunk = await self._content.readany()
        if not chunk:
            raise StopAsyncIteration
        return chunk


class HttpClient:
    """A pool of connections, used as an async context manager. Not to be shared between event loops.

    With the path of a ``unix_socket`` every request goes there, whatever the host in its URL.
    """

    def __init__(
        self, timeouts: HttpTimeouts | None = None, proxies: Proxies | None = None, *, unix_socket: str | None = None
    ) -> None:
        self._unix_socket = unix_socket
        self._timeouts = timeouts or HttpTimeouts()
        self._proxies = proxies or Proxies()
        self._session: aiohttp.ClientSession | None = None
        self._contexts: dict[tuple[TlsFiles, bool], ssl.SSLContext] = {}
        self._making_context = asyncio.Lock()

    async def __aenter__(self) -> Self:
        timeouts = self._timeouts
        self._session = aiohttp.ClientSession(
            # How many connections there are is the scheduler's decision, not the pool's.
            connector=aiohttp.UnixConnector(self._unix_socket, limit=0)
            if self._unix_socket
            else aiohttp.TCPConnector(limit=0),
            timeout=_session_timeout(timeouts, timeouts.idle),
            headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity"},
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            max_line_size=_HEADER_LIMIT,
            max_field_size=_HEADER_LIMIT,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    @asynccontextmanager
    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        private_headers: Mapping[str, str] | None = None,
        authorization: str | None = None,
        body: bytes | Stream | None = None,
        home: str | None = None,
        tls: TlsFiles | None = None,
        verify_tls: bool = True,
        plain_http: bool = False,
    ) -> AsyncIterator[HttpResponse]:
        """Send a request and yield the response once its headers are here, whatever its status.

        ``private_headers`` are sent, like ``authorization`` and the client certificates of ``tls``, to the origin of
        ``home`` only, which is a URL that ``url`` may be relative to, and ``url`` itself where it is not given. A
        request with a ``body`` of bytes, which may be a secret, is not redirected to another origin. ``plain_http``
        allows a redirect from https to http. Leaving the context with the body unread closes the connection. Raises
        UnavailableError and TemporaryError, also while the body is read; AuthenticationError where a proxy wants to
        know who we are; ConfigurationError for certificates and proxies that cannot be used; and what a Stream raises.
        """
        if home is not None:
            url = redirected(home, url, plain_http=plain_http)
        home = home or url
        homeland, is_foreign, tls = origin(home), False, tls or TlsFiles()
        for _ in range(REDIRECT_LIMIT):
            await self._refuse_next_door(home, url)
            # Once abroad, always abroad: a foreign server must not choose what we ask for in our own name.
            is_foreign = is_foreign or origin(url) != homeland
            sent = dict(headers or {})
            if is_foreign:
                if isinstance(body, bytes):
                    raise UnavailableError(f"{redact(url)}: is where a request with secrets is redirected to")
                tls = tls.without_clients()
            else:
                sent |= private_headers or {}
                if authorization is not None:
                    sent["Authorization"] = authorization
            context = await self._context(url, tls, verify=verify_tls)
            async with self._sending(method, url, sent, body, context) as response:
                location = response.headers.get("Location")
                if response.status not in _REDIRECTS or location is None:
                    yield HttpResponse(response, url, is_foreign=is_foreign, patience=self._timeouts.idle)
                    return
            if body is not None and response.status not in _SAME_METHOD:
                method, body = "GET", None
            url = redirected(url, location, plain_http=plain_http)
        raise UnavailableError(f"{redact(url)}: more than {REDIRECT_LIMIT} redirects")

    async def _refuse_next_door(self, home: str, url: str) -> None:
        """Raise UnavailableError where we were sent from ``home`` to this machine or its link, unless it is there too.

        A proxy asks for names itself; addresses are the same to it.
        """
        host, here = origin(url)[1], origin(home)[1]
        if host == here or self._unix_socket is not None:
            return
        is_address = ":" in host or host.replace(".", "").isdigit()
        if self._proxies.for_url(url) is not None and not is_address:
            return
        if is_next_door(await addresses_of(host)) and not is_next_door(await addresses_of(here)):
            raise UnavailableError(
                f"{redact(home)}: sends us to {redact(url)}, which is refused: that is at this machine"
            )

    @asynccontextmanager
    async def _sending(
        self,
        method: str,
        url: str,
        headers: dict[str, str],
        body: bytes | Stream | None,
        context: ssl.SSLContext | bool,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The response, for whose time the rest of a streamed body may still be on its way."""
        if not isinstance(body, Stream):
            async with await self._send(method, url, headers, body, context) as response:
                yield response
            return
        headers = headers | {"Content-Length": str(body.length)}
        sending = _Sending(body, self._timeouts)
        try:
            try:
                response = await self._send(method, url, headers, sending, context)
            except SourceError as error:
                if sending.failure is not None:
                    raise sending.failure from error
                raise
            async with response:
                yield response
        finally:
            await sending.aclose()

    async def _send(
        self,
        method: str,
        url: str,
        headers: dict[str, str],
        body: bytes | _Sending | None,
        context: ssl.SSLContext | bool,
    ) -> aiohttp.ClientResponse:
        if self._session is None:
            raise RuntimeError("HttpClient is used outside of its async with")
        proxy = self._proxies.for_url(url)
        for_proxy = {} if proxy is None else _proxy_headers(proxy)
        if origin(url)[0] == "http":
            # What goes through a tunnel is not for the proxy's eyes; what does not is read and changed by it.
            headers, for_proxy = headers | for_proxy, {}
        timeouts = self._timeouts
        # By itself aiohttp would wait for the answer to a long body no longer than for a piece of one.
        idle = timeouts.verdict if isinstance(body, _Sending) else timeouts.idle
        with _translated(redact(url), proxy):
            async with asyncio.timeout(timeouts.headers) as limit:
                sending = body if isinstance(body, _Sending) else None
                if sending is not None:
                    sending.limit = limit
                response = await self._session.request(
                    method,
                    # Without user information, which aiohttp would turn into an Authorization of its own.
                    URL(url, encoded=True).with_user(None),
                    headers=headers,
                    data=body,
                    timeout=_session_timeout(timeouts, idle),
                    allow_redirects=False,
                    ssl=context,
                    proxy=None if proxy is None else URL(proxy).with_user(None),
                    proxy_headers=for_proxy,
                )
                if sending is not None:
                    sending.limit = None
        if proxy is not None and response.status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
            response.close()
            raise _refused_by_proxy(redact(url), proxy, response.status)
        return response

    async def _context(self, url: str, files: TlsFiles, *, verify: bool) -> ssl.SSLContext | bool:
        """What to make a TLS connection to ``url`` by, or to a proxy; reading certificates takes a thread its time."""
        if origin(url)[0] == "http" and self._proxies.for_url(url) is None:
            return True
        async with self._making_context:
            if (files, verify) not in self._contexts:
                self._contexts[files, verify] = await asyncio.to_thread(make_context, files, verify=verify)
        return self._contexts[files, verify]


class _Sending:
    """A Stream on its way, for aiohttp, which iterates in a task of its own.

    ``limit`` ends the request; it is moved while pieces are taken, and set aside while the next one is made.
    ``failure`` is what the Stream raised.
    """

    def __init__(self, stream: Stream, timeouts: HttpTimeouts) -> None:
        self._stream, self._timeouts = stream, timeouts
        self._pieces: AsyncIterator[bytes | memoryview] | None = None
        self._rest = memoryview(b"")
        self._taking = asyncio.Lock()
        self.limit: asyncio.Timeout | None = None
        self.failure: Exception | None = None

    def __aiter__(self) -> Self:
        if self._pieces is not None:  # whether what was sent has arrived, nobody knows here
            raise ConnectionResetError
        return self

    async def __anext__(self) -> memoryview:
        async with self._taking:
            if not self._rest:
                self._allow(None)
                try:
                    if self._pieces is None:
                        self._pieces = self._stream.open()
                    self._rest = memoryview(await anext(self._pieces))
                except StopAsyncIteration:
                    self._allow(self._timeouts.verdict)
                    raise
                except Exception as error:
                    self.failure = error
                    raise
            self._allow(self._timeouts.idle)
            piece, self._rest = self._rest[:_PIECE], self._rest[_PIECE:]
            return piece

    async def aclose(self) -> None:
        """Be done with it, whether all was sent or not."""
        self.limit = None
        async with self._taking:  # who is taking a piece was cancelled by now
            pieces, self._pieces, self._rest = self._pieces, None, memoryview(b"")
            close = getattr(pieces, "aclose", None)
            if close is not None:
                await close()

    def _allow(self, seconds: float | None) -> None:
        if self.limit is not None and not self.limit.expired():
            now = asyncio.get_running_loop().time()
            self.limit.reschedule(None if seconds is None else now + seconds)


def _session_timeout(timeouts: HttpTimeouts, idle: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=None, connect=timeouts.connect, sock_connect=timeouts.connect, sock_read=idle)


def _proxy_headers(proxy: str) -> dict[str, str]:
    """What is told to the proxy alone: the user and password of its URL."""
    parts = urlsplit(proxy)
    if parts.username is None:
        return {}
    account = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return {"Proxy-Authorization": "Basic " + base64.b64encode(account.encode()).decode()}


def _refused_by_proxy(subject: str, proxy: str, status: int) -> SourceError:
    """What it means that a proxy did not open a tunnel, or did not take a request."""
    if status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
        return AuthenticationError(
            f"{subject}: the proxy {redact(proxy)} wants a user name and a password, or others",
            "give them in the proxy's URL: http://user:password@host:port",
        )
    if status == HTTPStatus.FORBIDDEN:
        return UnavailableError(f"{subject}: the proxy {redact(proxy)} does not allow this")
    return UnavailableError(f"{subject}: the proxy {redact(proxy)} answers {status}", temporary=status >= 500)


@contextmanager
def _translated(subject: str, proxy: str | None = None) -> Iterator[None]:
    """Turn what aiohttp, ssl and the socket raise into our errors about ``subject``, a redacted URL."""
    try:
        yield
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
        raise _our_error(subject, error, proxy) from _without_request(error)


def _our_error(subject: str, error: Exception, proxy: str | None) -> SourceError:
    match error:
        case aiohttp.ClientHttpProxyError() if proxy is not None:
            return _refused_by_proxy(subject, proxy, error.status)
        case aiohttp.ClientProxyConnectionError() if proxy is not None:
            reason = error.os_error.strerror or "the host name cannot be resolved"
            return UnavailableError(f"{subject}: cannot connect to proxy {redact(proxy)}: {reason}", temporary=True)
        case aiohttp.ClientConnectorCertificateError():
            reason = getattr(error.certificate_error, "verify_message", "") or "not valid for this host"
            return UnavailableError(f"{subject}: the TLS certificate is refused: {reason}", _TLS_HINT)
        case aiohttp.ClientSSLError() | ssl.SSLError():
            reason = getattr(error.__cause__, "reason", None) or getattr(error, "reason", None) or "handshake failed"
            return UnavailableError(f"{subject}: no TLS connection: {reason}", "is it a registry that speaks https?")
        case aiohttp.ClientConnectorDNSError():
            unknown = isinstance(error.os_error, socket.gaierror) and error.os_error.errno == socket.EAI_NONAME
            return UnavailableError(f"{subject}: the host name cannot be resolved", temporary=not unknown)
        case aiohttp.ConnectionTimeoutError():
            return TemporaryError(f"{subject}: no connection in time")
        case TimeoutError():
            return TemporaryError(f"{subject}: nothing was received in time")
        case aiohttp.ClientConnectorError():
            return UnavailableError(f"{subject}: cannot connect: {error.os_error.strerror}", temporary=True)
        case aiohttp.ClientPayloadError():
            return UnavailableError(f"{subject}: the body ended too early", temporary=True)
        case aiohttp.ClientResponseError():
            return UnavailableError(f"{subject}: the answer is not HTTP", temporary=True)
        case aiohttp.ClientConnectionError() | OSError():
            return UnavailableError(f"{subject}: the connection was lost", temporary=True)
        case _:
            return UnavailableError(f"{subject}: the request cannot be made ({type(error).__name__})")


def _without_request(error: Exception) -> Exception:
    """``error``, unable to print a URL, a header or what came instead of HTTP; as a cause it may end up in a log."""
    if isinstance(error, aiohttp.ClientResponseError):
        nowhere, nothing = URL("http://redacted"), CIMultiDictProxy[str](CIMultiDict())
        error.request_info = aiohttp.RequestInfo(nowhere, error.request_info.method, nothing, nowhere)
        error.args, error.history, error.headers, error.message = (), (), None, "not HTTP"
        error.__cause__ = error.__context__ = None
    elif isinstance(error, aiohttp.InvalidURL):
        error.args = ("a URL",)
    return error
