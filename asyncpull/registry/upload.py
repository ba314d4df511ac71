"""The upload of one blob into one repository (distribution-spec 1.1, "Pushing Blobs").

::

    POST  blobs/uploads/                  202, Location: where it goes, OCI-Chunk-Min-Length: bytes
    PUT   Location?digest=…   the blob    201                     as a whole, in one request

and after any trouble, in pieces, which a connection that breaks again costs less of::

    GET   Location                        204, Range: 0-LAST      what has arrived
    PATCH Location            a piece     202, Range: 0-LAST      each from where the last one ended
    PUT   Location?digest=…               201

==============================  ======================================================================================
what comes                      what is done
==============================  ======================================================================================
no connection, no answer, 5xx   ask what has arrived, go on from there; where nobody knows, begin anew
404                             the upload is gone; the blob may be there, as the answer that said so was lost
413                             smaller pieces, from the beginning
416, another range than ours    ask what has arrived; where that is nothing new, begin anew
400 about digest, size, range   something was lost on the way: begin anew
an error of the content         give up; the registry is told, and has not had the last bytes
==============================  ======================================================================================

How often is a matter of the retry policy, for which bytes are progress that never got so far before. ``Range: 0-0`` is
what registries say of one byte and of none, so that it is believed to be neither. Every answer may move the upload to
another URL, also to one at another host; that gets the bytes and no credentials.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import field
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from asyncpull.dataclass import dataclass
from asyncpull.errors import (
    AsyncpullError,
    DigestMismatchError,
    InvalidDigestError,
    SizeMismatchError,
    SourceError,
    UnavailableError,
)
from asyncpull.http import Stream
from asyncpull.log import Log
from asyncpull.registry.refusal import ERROR_BODY_LIMIT, error_codes, explanation
from asyncpull.registry.requests import DELETE, PUSH
from asyncpull.retry import RetryBudget
from asyncpull.spec.digest import Digest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asyncpull.http import HttpResponse
    from asyncpull.registry.endpoint import Endpoint
    from asyncpull.registry.requests import EndpointRequests
    from asyncpull.retry import RetryPolicy
    from asyncpull.spec.destination import Content
    from asyncpull.spec.manifest import Descriptor

# A piece, once there was trouble; an eighth of it after each 413.
PIECE = 16 << 20
SMALLEST_PIECE = 64 << 10
# How long a registry has to take note that an upload is given up.
_FAREWELL_SECONDS = 5.0

_TROUBLE = frozenset({400, 404, 413, 416})
_LOST_ON_THE_WAY = frozenset(
    {"BLOB_UPLOAD_INVALID", "BLOB_UPLOAD_UNKNOWN", "DIGEST_INVALID", "RANGE_INVALID", "SIZE_INVALID"}
)
_UNKNOWN_UPLOAD = frozenset({400, 404, 405, 410, 416})
_RANGE = re.compile(r"(?:bytes=)?0-([0-9]{1,18})")

_log = Log(__name__)


@dataclass(slots=True)
class UploadSession:
    """An upload that a registry has begun: where it goes, which may be a secret, and the smallest piece it takes."""

    location: str = field(repr=False)
    least: int = 0
    offset: int = 0

    @classmethod
    def of(cls, response: HttpResponse) -> UploadSession:
        """What an answer to POST began. Raises UnavailableError where it does not say where."""
        location = response.location
        if location is None:
            raise UnavailableError(f"{response.url}: begins an upload and does not say where it goes")
        least = response.headers.get("OCI-Chunk-Min-Length", "").strip()
        return cls(location, int(least[:12]) if least.isascii() and least.isdigit() else 0)


class _TooMuchError(UnavailableError):
    """More bytes at once than somebody on the way lets through."""


class BlobUpload:
    """The upload of ``content`` as the blob ``descriptor``; ``session`` is one that was begun already."""

    def __init__(
        self,
        requests: EndpointRequests,
        endpoint: Endpoint,
        descriptor: Descriptor,
        content: Content,
        retry: RetryPolicy,
        session: UploadSession | None = None,
    ) -> None:
        self._requests, self._endpoint, self._descriptor = requests, endpoint, descriptor
        self._session = session
        self._reader = _Reader(f"blob {descriptor.digest}", content, descriptor.size)
        self._budget = RetryBudget(retry)
        self._piece: int | None = None  # None while it is tried as a whole
        self._is_unsure = False
        self._furthest = 0
        self._told: int | None = None  # what the registry said last that it has

    async def run(self) -> None:
        """Have the registry hold the blob. After an error, or a cancellation, it holds none and no part of one.

        Raises what the content raises, SizeMismatchError where that is not as long as the descriptor says, SourceError,
        and DigestMismatchError.
        """
        try:
            while not await self._attempt():
                pass
        except BaseException:
            await give_up(self._requests, self._endpoint, self._session)
            raise
        finally:
            await self._reader.aclose()

    async def _attempt(self) -> bool:
        """Try to get to the end; false after a failure that is worth another try, and a pause."""
        try:
            await self._go_on()
            return True
        except _TooMuchError:
            return False  # with smaller pieces, of which there is an end
        except SourceError as error:
            pause = None if error is self._reader.failure else self._budget.pause_after(error)
            if pause is None:
                raise
            _log.info("an upload is gone on with", blob=str(self._descriptor.digest), reason=str(error))
        self._is_unsure = True
        self._piece = self._piece or PIECE
        await asyncio.sleep(pause)
        return False

    async def _go_on(self) -> None:
        size = self._descriptor.size
        if self._is_unsure:
            if self._session is not None:
                await self._ask_what_arrived()
            if self._session is None and await is_there(self._requests, self._endpoint, self._descriptor):
                return
        if self._session is None:
            self._session = await begin(self._requests, self._endpoint)
        self._is_unsure = False
        if self._piece is None:
            await self._send("PUT", 0, size)
            return
        while (start := self._session.offset) < size:
            await self._send("PATCH", start, min(size, start + max(self._piece, self._session.least)))
        await self._send("PUT", size, size)

    async def _ask_what_arrived(self) -> None:
        """Set the session to what the registry has, or to None where that cannot be known."""
        session = self._session
        if session is None:
            return
        async with self._requests.request(
            "GET", self._endpoint, self._subject, {}, passed=_UNKNOWN_UPLOAD, target=session.location, errand=PUSH
        ) as response:
            arrived = _arrived(response)
            if response.status < 300:
                session.location = response.location or session.location
        if response.status == 404:
            self._session = None
            return
        if response.status >= 300 or arrived is None or arrived > self._descriptor.size:
            await self._begin_anew()
            return
        session.offset = self._told = arrived
        self._progressed(arrived)

    async def _send(self, method: str, start: int, end: int) -> None:
        """Send the bytes from ``start`` to ``end``; with PUT they are the last, and the blob is there."""
        session = self._session
        if session is None:
            raise UnavailableError("no upload has begun")
        headers = {"Content-Type": "application/octet-stream"}
        target = session.location
        if method == "PATCH":
            headers["Content-Range"] = f"{start}-{end - 1}"
        else:
            target += f"{'&' if urlsplit(target).query else '?'}digest={quote(str(self._descriptor.digest), safe='')}"
        if end == 0:
            async for _ in self._reader.pieces(0, 0):
                pass
        body = Stream(end - start, lambda: self._reader.pieces(start, end)) if end > start else None
        async with self._requests.request(
            method, self._endpoint, self._subject, headers, passed=_TROUBLE, target=target, errand=PUSH, body=body
        ) as response:
            if response.status >= 300:
                raise await self._trouble(response)
            if method == "PUT":
                self._require_stored(response)
                self._session = None
                return
            arrived = _arrived(response)
            session.location = response.location or session.location
        if arrived is not None and not start < arrived <= end:
            raise UnavailableError(
                f"{self._subject}: {self._endpoint.host} says that {arrived} bytes arrived, of {start} to {end}",
                temporary=True,
            )
        session.offset = end if arrived is None else arrived
        self._progressed(session.offset)

    async def _trouble(self, response: HttpResponse) -> SourceError:
        """What a refusal is; the upload is in such a state afterwards that it can be gone on with."""
        body = await response.excerpt(ERROR_BODY_LIMIT)
        said = explanation(body)
        message = f"{self._subject}: {self._endpoint.host} answers {response.status}" + (f": {said}" if said else "")
        match response.status:
            case 413 if self._piece is None or self._piece > SMALLEST_PIECE:
                self._piece = PIECE if self._piece is None else max(SMALLEST_PIECE, self._piece // 8)
                await self._begin_anew()
                return _TooMuchError(message)
            case 404:
                self._session = None
                return UnavailableError(message, temporary=True)
            case 416:
                # Whoever has just been told what arrived and disagrees again will not agree the next time.
                if self._session is not None and self._session.offset == self._told:
                    await self._begin_anew()
                return UnavailableError(message, temporary=True)
            case 400 if error_codes(body) & _LOST_ON_THE_WAY:
                await self._begin_anew()
                return UnavailableError(message, temporary=True)
        return UnavailableError(message)

    def _require_stored(self, response: HttpResponse) -> None:
        """Raise unless the answer says that the blob is there: there are servers that answer 200 to everything."""
        if response.status != 201:
            raise UnavailableError(f"{self._subject}: {self._endpoint.host} answers {response.status} where 201 is due")
        digest = self._descriptor.digest
        try:
            said = Digest.parse(response.headers.get("Docker-Content-Digest", str(digest)))
        except InvalidDigestError:
            return
        if said.algorithm == digest.algorithm and said != digest:
            raise DigestMismatchError(self._subject, str(digest), str(said))

    async def _begin_anew(self) -> None:
        session, self._session, self._told = self._session, None, None
        await give_up(self._requests, self._endpoint, session)

    def _progressed(self, offset: int) -> None:
        if offset > self._furthest:
            self._budget.progressed(offset - self._furthest)
            self._furthest = offset

    @property
    def _subject(self) -> str:
        return f"blobs/{self._descriptor.digest}"


async def begin(requests: EndpointRequests, endpoint: Endpoint) -> UploadSession:
    """Begin an upload. Raises SourceError."""
    async with requests.request("POST", endpoint, "blobs/uploads/", {}, errand=PUSH) as response:
        return UploadSession.of(response)


async def give_up(requests: EndpointRequests, endpoint: Endpoint, session: UploadSession | None) -> None:
    """Tell the registry that nothing more will come, if it wants to hear that; otherwise it finds out by itself."""
    if session is None:
        return
    try:
        async with asyncio.timeout(_FAREWELL_SECONDS):
            # Registries that ask for the right to delete, to take back what is not there yet, are not rare.
            async with requests.request("DELETE", endpoint, "the upload", {}, target=session.location, errand=DELETE):
                pass
    except (AsyncpullError, TimeoutError) as error:
        _log.debug("an upload could not be taken back", registry=endpoint.host, reason=str(error))


async def is_there(requests: EndpointRequests, endpoint: Endpoint, descriptor: Descriptor) -> bool:
    """Whether the repository has the blob. Raises SourceError, and SizeMismatchError where it has another size."""
    size = await size_there(requests, endpoint, descriptor.digest)
    if size and size != descriptor.size:
        raise SizeMismatchError(f"blobs/{descriptor.digest}", descriptor.size, size)
    return size is not None


async def size_there(requests: EndpointRequests, endpoint: Endpoint, digest: Digest) -> int | None:
    """How many bytes a blob has that is there, None if it is not; zero is what some say of every blob."""
    path = f"blobs/{digest}"
    async with requests.request("HEAD", endpoint, path, {}, passed=frozenset({404, 405}), errand=PUSH) as response:
        return None if response.status >= 300 else response.content_length or 0


def _arrived(response: HttpResponse) -> int | None:
    """How many bytes the registry says it has; None where it does not say."""
    found = _RANGE.fullmatch(response.headers.get("Range", "").strip())
    return None if found is None or int(found[1]) == 0 else int(found[1]) + 1


class _Reader:
    """The bytes of ``content``, from wherever they are asked for; read in order they are read once.

    ``failure`` is the error of the content, which the registry is not to blame for.
    """

    def __init__(self, what: str, content: Content, size: int) -> None:
        self._what, self._content, self._size = what, content, size
        self._chunks: AsyncIterator[bytes] | None = None
        self._rest = memoryview(b"")
        self._position = 0
        self.failure: Exception | None = None

    async def pieces(self, start: int, end: int) -> AsyncIterator[bytes | memoryview]:
        """The bytes from ``start`` to ``end``; the last ones of all only when the content has proved to be right."""
        try:
            if self._chunks is None or self._position != start:
                await self.aclose()
                self._chunks, self._position = self._content.chunks(start), start
            left = end - start
            while left:
                if not self._rest:
                    self._rest = await self._next()
                    if not self._rest:
                        raise SizeMismatchError(self._what, self._size, self._position)
                piece, self._rest = self._rest[:left], self._rest[left:]
                self._position += len(piece)
                left -= len(piece)
                if self._position == self._size:
                    await self._require_end()
                yield piece
            if self._size == 0:
                await self._require_end()
        except Exception as error:
            self.failure = error
            raise

    async def aclose(self) -> None:
        """Be done with the content."""
        chunks, self._chunks, self._rest = self._chunks, None, memoryview(b"")
        close = getattr(chunks, "aclose", None)
        if close is not None:
            await close()

    async def _next(self) -> memoryview:
        """What comes next, empty at the end."""
        if self._chunks is not None:
            async for chunk in self._chunks:
                if chunk:
                    return memoryview(chunk)
        return memoryview(b"")

    async def _require_end(self) -> None:
        surplus = len(self._rest) or len(await self._next())
        if surplus:
            raise SizeMismatchError(self._what, self._size, self._size + surplus)
