"""HTTP as the rest of the house wants it, over the connections of ``http1``.

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
- A server may close a connection that was kept at the very moment we ask by it. What can be asked twice is asked again.
- No cookies, no netrc; URLs are sent byte for byte as they were given, for they may be signed.
- Every exception is one of ours, and its text holds neither a query nor user information of a URL, nor what came.
"""

from __future__ import annotations

import asyncio
import base64
from contextlib import asynccontextmanager
from dataclasses import field
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from asyncpull.addresses import addresses_of, is_next_door
from asyncpull.dataclass import dataclass
from asyncpull.errors import (
    DocumentTooLargeError,
    SourceError,
    TemporaryError,
    UnavailableError,
)
from asyncpull.http1.body import content_length
from asyncpull.http1.connection import ConnectionLostError
from asyncpull.http1.failure import connecting, exchanging, refused_by_proxy
from asyncpull.http1.head import request_head
from asyncpull.http1.pool import Pool, Route, Tunnel
from asyncpull.proxies import Proxies
from asyncpull.stall import StallLimits, StallWatch
from asyncpull.tls import TlsFiles, make_context
from asyncpull.urls import authority, origin, redact, redirected, resolved
from asyncpull.waiting import finish

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Callable, Mapping
    from types import TracebackType
    from typing import Self

    from asyncpull.http1.connection import Connection
    from asyncpull.http1.head import ResponseHead

USER_AGENT = "asyncpull/0.1.0"
REDIRECT_LIMIT = 10
_PIECE = 256 << 10  # bytes of a body that are handed on at once, within the limit for pauses
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
# Their bodies are sent again where they are redirected to; every other redirect makes a GET of it.
_SAME_METHOD = frozenset({307, 308})
_IDEMPOTENT = frozenset({"GET", "HEAD", "PUT", "DELETE"})  # RFC 9110 §9.2.2
_WITH_LENGTH = frozenset({"POST", "PUT", "PATCH"})


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

    def __init__(
        self, head: ResponseHead, connection: Connection, url: str, *, is_foreign: bool, patience: float
    ) -> None:
        self._head, self._connection, self._url = head, connection, url
        self._patience = patience
        self.url = redact(url)
        self.is_foreign = is_foreign
        self.status = head.status
        self.headers: Mapping[str, str] = head.headers

    def all(self, name: str) -> tuple[str, ...]:
        """Every value of a header that may come several times."""
        return self._head.headers.all(name)

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
        return content_length(self._head.headers)

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
        return _Chunks(self.url, self._connection, self._patience)

    def __repr__(self) -> str:
        return f"<HttpResponse {self.status} {self.url}>"


class _Chunks:
    """The pieces of a body. Not a generator: one that is left half-way would have to be closed by somebody."""

    def __init__(self, subject: str, connection: Connection, patience: float) -> None:
        self._subject, self._connection, self._patience = subject, connection, patience

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        with exchanging(self._subject):
            chunk = self._connection.piece_at_hand()
            if chunk is None:
                async with asyncio.timeout(self._patience):
                    chunk = await self._connection.piece()
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
        self._pool: Pool | None = None
        self._contexts: dict[tuple[TlsFiles, bool], ssl.SSLContext] = {}
        self._making_context = asyncio.Lock()

    async def __aenter__(self) -> Self:
        self._pool = Pool(self._timeouts.connect)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.aclose()

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
        allows a redirect from https to http. Leaving the context before all of the body is here closes the connection.
        Raises UnavailableError and TemporaryError, also while the body is read; AuthenticationError where a proxy wants
        to know who we are; ConfigurationError for certificates and proxies that cannot be used; and what a Stream
        raises.
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
            async with self._exchange(method, url, sent, body, context) as (head, connection):
                location = head.headers.get("Location")
                if head.status not in _REDIRECTS or location is None:
                    yield HttpResponse(head, connection, url, is_foreign=is_foreign, patience=self._timeouts.idle)
                    return
            if body is not None and head.status not in _SAME_METHOD:
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
    async def _exchange(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | Stream | None,
        context: ssl.SSLContext | None,
    ) -> AsyncIterator[tuple[ResponseHead, Connection]]:
        """The head of the answer, and what its body is read from; the rest of a Stream may still be on its way."""
        pool, subject, proxy = self._pool, redact(url), self._proxies.for_url(url)
        if pool is None:
            raise RuntimeError("HttpClient is used outside of its async with")
        with exchanging(subject):
            raw = _request(method, url, headers, body, proxy)
        stream = body if isinstance(body, Stream) else None
        route, told = self._route(url, proxy, context), redact(proxy) if proxy is not None else None
        question = _Question(route, subject, told, method, raw, stream)
        exchange = await self._asked(pool, question)
        try:
            if proxy is not None and exchange.head.status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
                raise refused_by_proxy(subject, redact(proxy), exchange.head.status)
            yield exchange.head, exchange.connection
        finally:
            await exchange.end()
            pool.give_back(question.route, exchange.connection)

    async def _asked(self, pool: Pool, question: _Question) -> _Exchange:
        """An exchange whose answer has begun, over a connection that was kept or over a new one."""
        connection = pool.take(question.route)
        may_repeat = connection is not None and question.may_be_repeated
        while True:
            if connection is None:
                with connecting(question.subject, question.proxy):
                    connection = await pool.connect(question.route)
            exchange = _Exchange(connection, self._timeouts)
            try:
                with exchanging(question.subject):
                    await exchange.begin(question)
                return exchange
            except BaseException as error:
                await exchange.end()
                connection.close()
                if exchange.failure is not None:
                    raise exchange.failure from error
                lost = error.__cause__
                if not (may_repeat and isinstance(lost, ConnectionLostError) and lost.is_unanswered):
                    raise
            connection, may_repeat = None, False

    def _route(self, url: str, proxy: str | None, context: ssl.SSLContext | None) -> Route:
        """How to get to ``url``."""
        scheme, host, port = origin(url)
        own = None if scheme == "http" else context
        if proxy is None or self._unix_socket is not None:
            return Route(host, port, own, unix_socket=self._unix_socket)
        proxy_scheme, proxy_host, proxy_port = origin(proxy)
        tunnel = None
        if own is not None:
            # What goes through a tunnel is not for the proxy's eyes; what does not is read and changed by it.
            fields = {"User-Agent": USER_AGENT} | _proxy_headers(proxy)
            tunnel = Tunnel(host, authority(url, with_port=True), own, tuple(fields.items()))
        return Route(proxy_host, proxy_port, None if proxy_scheme == "http" else context, tunnel)

    async def _context(self, url: str, files: TlsFiles, *, verify: bool) -> ssl.SSLContext | None:
        """What to make a TLS connection to ``url`` by, or to a proxy; reading certificates takes a thread its time."""
        if origin(url)[0] == "http" and self._proxies.for_url(url) is None:
            return None
        async with self._making_context:
            if (files, verify) not in self._contexts:
                self._contexts[files, verify] = await asyncio.to_thread(make_context, files, verify=verify)
        return self._contexts[files, verify]


@dataclass(frozen=True, slots=True)
class _Question:
    """A request that is ready to be sent: where to, its bytes, and the Stream that follows them, if there is one.

    ``subject`` and ``proxy`` are URLs for messages. No repr shows what may be secret.
    """

    route: Route
    subject: str
    proxy: str | None
    method: str
    raw: bytes = field(repr=False)
    stream: Stream | None

    @property
    def may_be_repeated(self) -> bool:
        """Whether it may be sent again where nobody knows if it has arrived."""
        return self.method in _IDEMPOTENT and self.stream is None


class _Exchange:
    """A request and the head of its answer, over one connection. A Stream is sent in a task, beside the wait.

    ``failure`` is what the Stream raised.
    """

    head: ResponseHead

    def __init__(self, connection: Connection, timeouts: HttpTimeouts) -> None:
        self.connection = connection
        self.failure: Exception | None = None
        self._timeouts = timeouts
        self._sending: asyncio.Task[None] | None = None

    async def begin(self, question: _Question) -> None:
        """Send, and wait for the head. Raises TimeoutError, what a connection raises, and what the Stream does."""
        answer = self.connection.send(question.method, question.raw)
        patience = self._timeouts.headers
        if question.stream is not None:
            self._sending = asyncio.ensure_future(self._send(question.stream))
            await asyncio.wait((self._sending, answer), return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                self._sending.result()
            patience = self._timeouts.verdict
        async with asyncio.timeout(patience):
            self.head = await answer

    async def end(self) -> None:
        """Be done with what is still being sent; a connection that has not got all of it is closed."""
        if self._sending is None:
            return
        is_sent = self._sending.done() and not self._sending.cancelled() and self._sending.exception() is None
        if not is_sent:
            self.connection.close()
            self._sending.cancel()
            await finish(asyncio.gather(self._sending, return_exceptions=True))

    async def _send(self, stream: Stream) -> None:
        """Send a body as it is made. Raises TimeoutError for a server that takes no more."""
        pieces, sent = stream.open(), 0
        try:
            while True:
                try:
                    piece = memoryview(await anext(pieces))
                except StopAsyncIteration:
                    break
                except Exception as error:
                    self.failure = error
                    raise
                sent += len(piece)
                for start in range(0, len(piece), _PIECE):
                    async with asyncio.timeout(self._timeouts.idle):
                        await self.connection.write(piece[start : start + _PIECE])
        finally:
            close = getattr(pieces, "aclose", None)
            if close is not None:
                await close()
        if sent != stream.length:
            raise ValueError("a body of another length than it was to have")


def _request(
    method: str, url: str, headers: Mapping[str, str], body: bytes | Stream | None, proxy: str | None
) -> bytes:
    """The head of a request, and its body if that is bytes. Raises ValueError for what cannot be sent."""
    parts = urlsplit(url)
    fields = {"Host": authority(url), "Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": USER_AGENT}
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if proxy is not None and parts.scheme == "http":
        target = f"http://{fields['Host']}{target}"
        fields |= _proxy_headers(proxy)
    if body is not None:
        fields["Content-Type"] = "application/octet-stream"
    length = len(body) if isinstance(body, bytes) else body.length if body is not None else 0
    if body is not None or method in _WITH_LENGTH:
        fields["Content-Length"] = str(length)
    given = {name.lower() for name in headers}
    ours = {name: value for name, value in fields.items() if name.lower() not in given}
    head = request_head(method, target, ours | dict(headers))
    return head + body if isinstance(body, bytes) else head


def _proxy_headers(proxy: str) -> dict[str, str]:
    """What is told to the proxy alone: the user and password of its URL."""
    parts = urlsplit(proxy)
    if parts.username is None:
        return {}
    account = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return {"Proxy-Authorization": "Basic " + base64.b64encode(account.encode()).decode()}
