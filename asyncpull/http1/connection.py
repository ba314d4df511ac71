"""One connection, over which one exchange after the other goes.

What the other side sends is read ahead by some 256 KiB and no more; then the kernel makes it wait.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final, cast

from asyncpull.http1.body import body_after
from asyncpull.http1.head import NotHttpError, head_length, parse_response_head

if TYPE_CHECKING:
    import ssl

    from asyncpull.http1.body import Body
    from asyncpull.http1.head import ResponseHead

_AHEAD: Final = 256 << 10
_SWITCHING_PROTOCOLS: Final = 101


class ConnectionLostError(ConnectionError):
    """The connection ended before its time; ``is_unanswered`` if nothing of an answer had come."""

    def __init__(self, *, is_unanswered: bool) -> None:
        super().__init__("the connection was lost")
        self.is_unanswered = is_unanswered


class BodyCutError(Exception):
    """The connection ended within a body."""


class Connection(asyncio.Protocol):
    """A connection from ``pool.connect``. Not for two exchanges at once.

    An exchange is ``send``, whose future is the head of the answer, perhaps ``write`` for what the head of the request
    promised, and ``piece`` until there is no more. All raise ConnectionLostError, NotHttpError and BodyCutError.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._method = ""
        self._raw = bytearray()  # the beginning of a head
        self._head: asyncio.Future[ResponseHead] | None = None
        self._body: Body | None = None
        self._pieces: deque[bytes] = deque()
        self._held = 0
        self._is_paused = False
        self._is_persistent = True
        self._failure: Exception | None = None
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None
        self._is_full = False

    @property
    def is_idle(self) -> bool:
        """Whether another exchange may begin: the last answer is here, read or not, and the other side stays."""
        body = self._body
        return body is not None and body.is_done and not body.has_excess and self._is_persistent and not self._failure

    def send(self, method: str, request: bytes) -> asyncio.Future[ResponseHead]:
        """Send a request, or the head of one. The result is the final head; who waits for it may be cancelled."""
        self._method, self._body = method, None
        self._pieces.clear()
        self._held = 0
        self._go_on_reading()
        self._head = self._loop.create_future()
        if self._failure is not None:
            self._fail(self._failure)
        elif self._transport is not None:
            self._transport.write(request)
        return self._head

    async def write(self, data: bytes | memoryview) -> None:
        """Send more of a request; waits until the other side has taken most of it."""
        if self._failure is not None:
            raise self._failure
        if self._transport is not None:
            self._transport.write(data)
        if self._is_full:
            self._writer = self._loop.create_future()
            await self._writer

    def piece_at_hand(self) -> bytes | None:
        """What ``piece`` would give, if it is here; else None."""
        if self._pieces:
            piece = self._pieces.popleft()
            self._held -= len(piece)
            if self._held < _AHEAD:
                self._go_on_reading()
            return piece
        if self._body is not None and self._body.is_done:
            return b""
        if self._failure is not None:
            raise self._failure
        return None

    async def piece(self) -> bytes:
        """The next bytes of the body, as they came; none at its end. A cancellation loses nothing."""
        while (piece := self.piece_at_hand()) is None:
            self._reader = self._loop.create_future()
            await self._reader
        return piece

    async def start_tls(self, context: ssl.SSLContext, name: str) -> None:
        """Speak TLS from here on, with a server that has a certificate for ``name``. Raises OSError."""
        if self._failure is not None or self._transport is None:
            raise self._failure or ConnectionLostError(is_unanswered=True)
        transport = await self._loop.start_tls(self._transport, self, context, server_hostname=name)
        if transport is None:
            raise ConnectionLostError(is_unanswered=True)
        self.connection_made(transport)

    def close(self) -> None:
        """Be done with it: in good order after an exchange that has ended, at once after another."""
        if self._transport is None:
            return
        if self.is_idle and self._transport.get_extra_info("ssl_object") is None:
            self._transport.close()
        else:
            self._transport.abort()  # TLS would wait for an answer to its good-bye
        self._fail(ConnectionLostError(is_unanswered=False))

    # What the loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It stands; once more when TLS has begun on it."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        try:
            if self._body is None:
                self._raw += data
                self._read_heads(len(self._raw) - len(data))
            else:
                self._take(data)
        except NotHttpError as error:
            self._fail(error)
            if self._transport is not None:
                self._transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        """It has ended, by the other side or by us."""
        self._transport = None
        if self._body is not None and error is None:
            self._body.end()
        if self._body is not None and not self._body.is_done:
            failure: Exception = BodyCutError("the body ended too early")
        else:
            failure = ConnectionLostError(is_unanswered=not self._raw)
        failure.__cause__ = error
        self._fail(failure)

    def pause_writing(self) -> None:
        """The other side does not keep up."""
        self._is_full = True

    def resume_writing(self) -> None:
        """The other side has taken most of what was written."""
        self._is_full = False
        _wake(self._writer)

    def _read_heads(self, searched: int) -> None:
        """Take the head that is whole, past those of provisional answers (RFC 9110 §15.2)."""
        if self._head is None:
            raise NotHttpError("an answer to no question")
        while (length := head_length(self._raw, searched)) is not None:
            head = parse_response_head(self._raw[:length])
            del self._raw[:length]
            searched = 0
            if head.status == _SWITCHING_PROTOCOLS:
                raise NotHttpError("another protocol that nobody asked for")
            if head.status < 200:
                continue
            self._body = body_after(self._method, head)
            self._is_persistent = head.is_persistent
            if not self._head.done():
                self._head.set_result(head)
            rest, self._raw = bytes(self._raw), bytearray()
            if rest:
                self._take(rest)
            return

    def _take(self, data: bytes) -> None:
        body = cast("Body", self._body)
        if body.is_done:
            self._is_persistent = False  # whoever speaks without being asked is not asked again
            return
        pieces = body.feed(data)
        self._pieces += pieces
        self._held += sum(map(len, pieces))
        if self._held >= _AHEAD and not self._is_paused and self._transport is not None:
            self._is_paused = True
            self._transport.pause_reading()
        _wake(self._reader)

    def _go_on_reading(self) -> None:
        if self._is_paused and self._transport is not None:
            self._is_paused = False
            self._transport.resume_reading()

    def _fail(self, failure: Exception) -> None:
        """Tell whoever waits, and whoever asks; the first failure stays."""
        self._failure = self._failure or failure
        if self._head is not None and not self._head.done():
            self._head.set_exception(self._failure)
            self._head.exception()  # taken note of: its reader may have gone
        _wake(self._reader)
        if self._writer is not None and not self._writer.done():
            self._writer.set_exception(self._failure)
            self._writer.exception()


def _wake(waiting: asyncio.Future[None] | None) -> None:
    if waiting is not None and not waiting.done():
        waiting.set_result(None)
