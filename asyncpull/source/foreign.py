"""Layers that a registry does not have and is not to have: their descriptors say by URL where they are.

Whoever wrote the manifest chose the URLs, so they are asked for nothing unless the caller wants that, and then without
any credentials, client certificates or trust that were meant for the registry. What comes is verified like any blob.
"""

from __future__ import annotations

import os
import time
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from asyncpull.errors import (
    AsyncpullError,
    DocumentTooLargeError,
    NotFoundError,
    SizeMismatchError,
    SourceError,
    UnavailableError,
)
from asyncpull.http import HttpClient
from asyncpull.log import Log
from asyncpull.proxies import Proxies
from asyncpull.registry.extent import extent
from asyncpull.registry.refusal import ERROR_BODY_LIMIT, refusal
from asyncpull.retry import RetryPolicy, retrying
from asyncpull.spec.digest import verify_bytes
from asyncpull.spec.manifest import UNKNOWN_SIZE
from asyncpull.spec.source import BlobResponse
from asyncpull.urls import origin as url_origin
from asyncpull.urls import redact

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from types import TracebackType
    from typing import Self

    from asyncpull.http import HttpResponse
    from asyncpull.spec.digest import Digest
    from asyncpull.spec.manifest import Descriptor
    from asyncpull.spec.source import Fault, Source, SourceDocument

_log = Log(__name__)


class ForeignSource:
    """A registry with its foreign layers: what ``source`` does not have comes from the URLs of its descriptor.

    Implements asyncpull.spec.source.Source; an async context manager that holds the connections.
    """

    def __init__(
        self, source: Source, *, retry: RetryPolicy | None = None, environ: Mapping[str, str] | None = None
    ) -> None:
        self._source, self._retry = source, retry or RetryPolicy()
        self._http = HttpClient(None, Proxies.from_environ(os.environ if environ is None else environ))

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.__aexit__(kind, error, trace)

    @property
    def name(self) -> str:
        """What messages call the registry."""
        return self._source.name

    @property
    def registry(self) -> str:
        """What limits per registry count by."""
        return self._source.registry

    @property
    def origins(self) -> tuple[str, ...]:
        """The endpoints of the registry."""
        return self._source.origins

    def blame(self, origin: str, fault: Fault) -> None:
        """Tell the registry's source, which minds its own endpoints."""
        self._source.blame(origin, fault)

    async def manifest(self, digest: Digest | None = None) -> SourceDocument:
        """A document of the registry."""
        return await self._source.manifest(digest)

    async def digest(self) -> Digest:
        """The digest of what the reference names."""
        return await self._source.digest()

    async def blob_bytes(self, descriptor: Descriptor, limit: int) -> bytes:
        """A small blob, from wherever it is, verified."""
        try:
            return await self._source.blob_bytes(descriptor, limit)
        except NotFoundError:
            if not descriptor.urls:
                raise
        if descriptor.size > limit:
            raise DocumentTooLargeError(f"blob {descriptor.digest} has {descriptor.size} bytes, the limit is {limit}")

        async def once() -> bytes:
            async with self._opened(descriptor, 0, None) as (response, _):
                return await response.read(descriptor.size, f"blob {descriptor.digest}")

        raw = await retrying(self._retry, once)
        if len(raw) != descriptor.size:
            raise SizeMismatchError(f"blob {descriptor.digest}", descriptor.size, len(raw))
        verify_bytes(f"blob {descriptor.digest}", raw, descriptor.digest)
        return raw

    @asynccontextmanager
    async def open_blob(
        self, descriptor: Descriptor, offset: int = 0, end: int | None = None, *, origin: str | None = None
    ) -> AsyncIterator[BlobResponse]:
        """Part of a blob, from wherever it is. Raises what the registry's source raises."""
        async with AsyncExitStack() as opened:
            try:
                response = await opened.enter_async_context(
                    self._source.open_blob(descriptor, offset, end, origin=origin)
                )
            except NotFoundError:
                if not descriptor.urls or origin is not None:
                    raise
                found, start = await opened.enter_async_context(self._opened(descriptor, offset, end))
                response = _response(found, descriptor, start)
            yield response

    @asynccontextmanager
    async def _opened(
        self, descriptor: Descriptor, offset: int, end: int | None
    ) -> AsyncIterator[tuple[HttpResponse, int]]:
        """The answer of the first URL that has something, and where it begins. Raises SourceError: the last one's."""
        failure: AsyncpullError = UnavailableError(f"blob {descriptor.digest} is at no URL that can be asked")
        headers = {"Range": f"bytes={offset}-{'' if end is None else end - 1}"} if offset or end is not None else {}
        async with AsyncExitStack() as opened:
            for url in descriptor.urls:
                try:
                    _scheme, host, _port = url_origin(url)
                except ValueError:
                    continue
                try:
                    response = await opened.enter_async_context(self._http.request("GET", url, headers=headers))
                    if response.status in (200, 206):
                        break
                    raise refusal(
                        f"blob {descriptor.digest}",
                        host,
                        response.status,
                        response.headers,
                        await response.excerpt(ERROR_BODY_LIMIT),
                        datetime.fromtimestamp(time.time(), UTC),
                    )
                except SourceError as error:
                    _log.info("a foreign layer is not there", url=redact(url), reason=str(error))
                    failure = error
            else:
                raise failure
            yield response, offset if response.status == 206 else 0

    def __repr__(self) -> str:
        return f"<ForeignSource {self.name}>"


def _response(found: HttpResponse, descriptor: Descriptor, start: int) -> BlobResponse:
    """What a server sends of a blob. Raises SizeMismatchError, and UnavailableError for an answer of no use."""
    held = extent(found.status, found.headers, found.content_length, start)
    if held is None:
        raise UnavailableError(f"blob {descriptor.digest}: {found.url} answers with other bytes than were asked for")
    if held.total not in (None, descriptor.size) and descriptor.size != UNKNOWN_SIZE:
        raise SizeMismatchError(f"blob {descriptor.digest}", descriptor.size, held.total or 0)
    return BlobResponse(held.start, held.end, held.total, found.chunks())
