"""A repository on a registry as a source: ``docker://``, over the registry itself and its mirrors.

Endpoints are tried in the order of preference. A tag is resolved only by those that may, and blobs are asked of those
that serve them. What one of them cannot give, for whatever reason, the next one is asked for at once, without a pause;
only when all have failed the request has. Then the error is the registry's own, and it is temporary if that of any
endpoint was: what one does not have, another may, once it is back.

Who failed is left alone for a while, by all sources of one client (health.py), and is asked then only after all others.
"""

from __future__ import annotations

import time
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, TypeVar

from asyncpull.errors import (
    AsyncpullError,
    DocumentError,
    DocumentTooLargeError,
    IntegrityError,
    NotFoundError,
    SourceError,
    UnavailableError,
)
from asyncpull.log import Log
from asyncpull.registry.health import Trouble, trouble_of
from asyncpull.retry import retrying
from asyncpull.spec.reference import DEFAULT_TAG
from asyncpull.spec.source import Fault

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence

    from asyncpull.registry.client import RegistryClient
    from asyncpull.registry.endpoint import Endpoint
    from asyncpull.spec.digest import Digest
    from asyncpull.spec.manifest import Descriptor
    from asyncpull.spec.reference import Reference
    from asyncpull.spec.source import BlobResponse, SourceDocument

T = TypeVar("T")

_TROUBLES = {Fault.BROKEN: Trouble.BROKEN, Fault.STALLED: Trouble.STALLED, Fault.CORRUPT: Trouble.CORRUPT}

_log = Log(__name__)


class RegistrySource:
    """What ``reference`` names, asked for through ``client``. Implements asyncpull.spec.source.Source."""

    def __init__(self, client: RegistryClient, reference: Reference) -> None:
        self._client, self._reference = client, reference
        self._known: tuple[Endpoint, ...] = ()

    @property
    def name(self) -> str:
        """The reference, in full."""
        return str(self._reference)

    @property
    def registry(self) -> str:
        """The domain of the reference."""
        return self._reference.domain

    @property
    def origins(self) -> tuple[str, ...]:
        """The names of the endpoints that serve blobs; empty before the first request, which finds them out."""
        return tuple(endpoint.name for endpoint in self._known if endpoint.serves_blobs)

    def blame(self, origin: str, fault: Fault) -> None:
        """Take note of what an endpoint did wrong in the middle of a blob."""
        for endpoint in self._known:
            if endpoint.name == origin:
                is_news = self._client.health.failed(endpoint, _TROUBLES[fault], None, time.monotonic())
                if is_news and len(self.origins) > 1:
                    _log.warning("an endpoint is left alone for a while", endpoint=origin, fault=fault.value)

    async def manifest(self, digest: Digest | None = None) -> SourceDocument:
        """The document that the reference names, or another one of its repository."""
        wanted = digest or self._reference.digest
        name = wanted or self._reference.tag or DEFAULT_TAG
        return await self._whole(
            await self._naming(wanted), wanted, lambda endpoint: self._client.manifest(endpoint, name)
        )

    async def digest(self) -> Digest:
        """The digest of what the reference names now."""
        wanted = self._reference.digest
        name = wanted or self._reference.tag or DEFAULT_TAG
        return await self._whole(
            await self._naming(wanted), wanted, lambda endpoint: self._client.digest(endpoint, name)
        )

    async def referrers(self, subject: Digest) -> tuple[Descriptor, ...]:
        """The manifests that are about that with the digest ``subject``."""
        return tuple(each.descriptor for each in await self._client.referrers(self._reference, subject))

    async def blob_bytes(self, descriptor: Descriptor, limit: int) -> bytes:
        """A small blob, verified."""
        if descriptor.size > limit:
            raise DocumentTooLargeError(f"blob {descriptor.digest} has {descriptor.size} bytes, the limit is {limit}")
        return await self._whole(
            await self._serving(),
            descriptor.digest,
            lambda endpoint: self._client.blob_bytes(endpoint, descriptor),
        )

    @asynccontextmanager
    async def open_blob(
        self, descriptor: Descriptor, offset: int = 0, end: int | None = None, *, origin: str | None = None
    ) -> AsyncIterator[BlobResponse]:
        """Part of a blob of this repository.

        It is not tried again after a pause: whoever reads it knows what is missing, and asks again for that. Raises
        ValueError for an ``origin`` that is none of ``origins``.
        """
        asked = _Round(self._client, await self._serving(origin), descriptor.digest)
        async with AsyncExitStack() as opened:
            for endpoint in asked.order:
                with asked.failing(endpoint):
                    response = await opened.enter_async_context(
                        self._client.open_blob(endpoint, descriptor, offset, end)
                    )
                    break
            else:
                raise asked.error()
            yield response
        # Only if whoever read it found nothing to complain about.
        asked.succeeded(endpoint)

    async def _whole(
        self, endpoints: Sequence[Endpoint], digest: Digest | None, ask: Callable[[Endpoint], Awaitable[T]]
    ) -> T:
        """What ``ask`` gets from the first of ``endpoints`` that has it; after temporary failures of all, once more."""

        async def once() -> T:
            asked = _Round(self._client, endpoints, digest)
            for endpoint in asked.order:
                with asked.failing(endpoint):
                    found = await ask(endpoint)
                    asked.succeeded(endpoint)
                    return found
            raise asked.error()

        return await retrying(self._client.retry, once)

    async def _naming(self, digest: Digest | None) -> list[Endpoint]:
        """Who may be asked for a document: for one with a digest everybody, what a tag means not."""
        if digest is not None:
            return [*await self._endpoints()]
        return [endpoint for endpoint in await self._client.endpoints(self._reference) if endpoint.resolves_tags]

    async def _serving(self, origin: str | None = None) -> list[Endpoint]:
        """Who may be asked for a blob, or only ``origin``."""
        serving = [endpoint for endpoint in await self._endpoints() if endpoint.serves_blobs]
        if origin is None:
            return serving
        if origin not in self.origins:
            raise ValueError(f"{origin} is no endpoint of {self.name}")
        return [endpoint for endpoint in serving if endpoint.name == origin]

    async def _endpoints(self) -> tuple[Endpoint, ...]:
        """Who may be asked for what has a digest, the registry itself last."""
        if not self._known:
            self._known = await self._client.endpoints(self._reference)
        return self._known

    def __repr__(self) -> str:
        return f"<RegistrySource {self.name}>"


class _Round:
    """The endpoints asked for one thing, each once: in which ``order``, and how they fail."""

    def __init__(self, client: RegistryClient, endpoints: Sequence[Endpoint], digest: Digest | None) -> None:
        self._health, self._digest = client.health, digest
        self.order = self._health.order(endpoints, digest, time.monotonic())
        self._failures: list[tuple[Endpoint, AsyncpullError]] = []

    @contextmanager
    def failing(self, endpoint: Endpoint) -> Iterator[None]:
        """Swallow what says that ``endpoint`` does not give it, and hold that against it."""
        self._health.begin(endpoint, self._digest, time.monotonic())
        try:
            yield
        except (SourceError, IntegrityError, DocumentError) as error:
            self._failures.append((endpoint, error))
            retry_after = error.retry_after if isinstance(error, SourceError) else None
            trouble = trouble_of(error)
            is_news = self._health.failed(endpoint, trouble, self._digest, time.monotonic(), retry_after)
            if endpoint.is_mirror:
                tell = _log.warning if is_news and trouble is not Trouble.MISSING else _log.info
                tell("a mirror failed, asking the next endpoint", mirror=endpoint.name, reason=str(error))

    def succeeded(self, endpoint: Endpoint) -> None:
        """Take note that ``endpoint`` did what it should."""
        self._health.succeeded(endpoint, self._digest)

    def error(self) -> AsyncpullError:
        """Why the request has failed: the registry's own error, temporary if any was."""
        if not self._failures:
            return UnavailableError("none of the endpoints that are configured may be asked for this")
        own = next((error for endpoint, error in self._failures if not endpoint.is_mirror), self._failures[-1][1])
        others = [(endpoint, error) for endpoint, error in self._failures if error is not own]
        if not others or not isinstance(own, SourceError):
            return own
        temporary = [error for _, error in self._failures if isinstance(error, SourceError) and error.temporary]
        if isinstance(own, NotFoundError) and self._digest is None:
            temporary = []  # whether there is such a tag, the registry knows best
        pauses = [error.retry_after for error in temporary]
        named = "; ".join(f"{endpoint.name}: {error}" for endpoint, error in others)
        joint = type(own)(
            own.message,
            f"{own.hint}; mirrors failed too: {named}" if own.hint else f"mirrors failed too: {named}",
            temporary=bool(temporary),
            retry_after=None if None in pauses else min((pause for pause in pauses if pause is not None), default=None),
        )
        joint.__cause__ = own
        return joint
