"""A blob whose digest is wrong is fetched again, afresh, from one endpoint alone (suspects.py says which, and why)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, TypeVar

from asyncpull.errors import DigestMismatchError, IntegrityError, LayerError, SourceError
from asyncpull.fetch.fetcher import FetchingBlob
from asyncpull.fetch.suspects import Suspects
from asyncpull.log import Log
from asyncpull.spec.source import Fault

if TYPE_CHECKING:
    from asyncpull.fetch.fetcher import Fetcher
    from asyncpull.spec.manifest import Descriptor
    from asyncpull.spec.source import Source

T = TypeVar("T")
Opening = Callable[[str | None, bool], AbstractAsyncContextManager[FetchingBlob]]
Use = Callable[[FetchingBlob], Awaitable[T]]

_log = Log(__name__)


async def use_fetched(fetcher: Fetcher, descriptor: Descriptor, source: Source, opening: Opening, use: Use[T]) -> T:
    """What ``use`` makes of a blob, which it verifies; where the digest is wrong, once more per endpoint of ``source``.

    ``opening`` opens the blob of ``fetcher``, from the endpoint that it is given alone, and afresh if it is told so.
    What nobody can use is not kept. Raises what ``use`` raised last, and what the opening raises.
    """
    suspects = Suspects()
    origin: str | None = None
    failure: DigestMismatchError | None = None
    while True:
        try:
            async with opening(origin, failure is not None) as blob:
                return await _used(fetcher, descriptor, source, blob, use, suspects, origin)
        except (IntegrityError, LayerError) as error:
            await fetcher.discard(descriptor.digest)
            if not isinstance(error, DigestMismatchError):
                raise
            failure = error
        except SourceError as error:
            if origin is None or failure is None:
                raise
            _log.warning("an endpoint asked alone does not give the blob", endpoint=origin, reason=str(error))
            suspects.add((), alone=origin)
        origin = suspects.next(source.origins)
        if origin is None:
            raise failure
        _log.warning("a blob is fetched again from one endpoint alone", endpoint=origin, reason=str(failure))


async def _used(
    fetcher: Fetcher,
    descriptor: Descriptor,
    source: Source,
    blob: FetchingBlob,
    use: Use[T],
    suspects: Suspects,
    origin: str | None,
) -> T:
    """One attempt, which says who sent wrong bytes."""
    try:
        result = await use(blob)
    except DigestMismatchError:
        records = await fetcher.records(descriptor.digest)
        suspects.add(records, alone=origin, resumed=blob.resumed > 0)
        raise
    for liar in await asyncio.to_thread(suspects.liars, blob.differs):
        _log.warning("an endpoint sent wrong bytes", endpoint=liar, blob=str(descriptor.digest))
        source.blame(liar, Fault.CORRUPT)
    return result
