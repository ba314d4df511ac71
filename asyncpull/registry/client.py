"""The pulling half of the distribution API (distribution-spec 1.1) over HTTP.

One client serves all registries of a process and remembers, per endpoint, whether https or plain http is spoken there
and how it behaved (``health``), and per repository, what opened the door. Every request is made once, at the endpoint
that it is given: which one is asked, and what is done when it fails, is the business of the source.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import quote

from asyncpull.errors import (
    AsyncpullError,
    AuthenticationError,
    InvalidDigestError,
    NotFoundError,
    SizeMismatchError,
    SourceError,
    UnavailableError,
)
from asyncpull.http import HttpClient, HttpTimeouts
from asyncpull.registry.auth import TokenAnswer, authorize, parse_challenges
from asyncpull.registry.config import RegistryAccess
from asyncpull.registry.credentials import load_keyring
from asyncpull.registry.endpoint import Endpoint
from asyncpull.registry.extent import Extent, extent
from asyncpull.registry.health import Health
from asyncpull.registry.refusal import ERROR_BODY_LIMIT, refusal
from asyncpull.retry import RetryPolicy
from asyncpull.spec.digest import Digest, verify_bytes
from asyncpull.spec.manifest import MANIFEST_LIMIT, TOKEN_LIMIT
from asyncpull.spec.mediatype import ACCEPTED_MANIFESTS
from asyncpull.spec.source import BlobResponse, SourceDocument

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from types import TracebackType
    from typing import Self

    from asyncpull.http import HttpResponse
    from asyncpull.registry.auth import Authorization, Challenge
    from asyncpull.registry.credentials import Keyring
    from asyncpull.spec.manifest import Descriptor
    from asyncpull.spec.reference import Reference

_RANGE_STATUSES = frozenset({416})
_ACCEPT = {"Accept": ", ".join(ACCEPTED_MANIFESTS)}
# A token is not used in its last seconds, in which it could expire on the way.
_TOKEN_MARGIN_SECONDS = 10.0


@dataclass(slots=True)
class _Door:
    """What opened one repository: the header to send, and until when (in seconds of the loop's clock)."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    authorization: str | None = field(default=None, repr=False)
    expires: float | None = None

    def key(self, now: float) -> str | None:
        """The Authorization to send now."""
        if self.expires is not None and now >= self.expires:
            self.authorization = self.expires = None
        return self.authorization

    def unlock(self, found: Authorization, now: float) -> None:
        """Remember what was obtained."""
        self.authorization = found.value
        self.expires = None if found.lifetime is None else now + found.lifetime - _TOKEN_MARGIN_SECONDS


@dataclass(slots=True)
class _Scheme:
    """Whether https or http is spoken at one endpoint, once that is known."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    known: str | None = None


class RegistryClient:
    """Asks registries for manifests and blobs; an async context manager that holds the connections."""

    def __init__(
        self,
        access: RegistryAccess | None = None,
        *,
        timeouts: HttpTimeouts | None = None,
        retry: RetryPolicy | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self._access = access or RegistryAccess()
        self._retry = retry or RetryPolicy()
        self._environ = os.environ if environ is None else environ
        self._http = HttpClient(timeouts)
        self._doors: dict[Endpoint, _Door] = {}
        self._schemes: dict[tuple[str, str], _Scheme] = {}
        self._rangeless: set[tuple[str, str]] = set()
        self.health = Health()

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.__aexit__(kind, error, trace)

    @property
    def retry(self) -> RetryPolicy:
        """How patient to be with registries."""
        return self._retry

    async def endpoints(self, reference: Reference) -> tuple[Endpoint, ...]:
        """Where ``reference`` may be asked for, in the order to be tried. Raises ConfigurationError, PolicyError."""
        found = self._access.endpoint(reference)
        return (Endpoint(found.host, reference.path, reference.name, insecure=found.insecure),)

    async def manifest(self, endpoint: Endpoint, name: str | Digest) -> SourceDocument:
        """The manifest or index that a tag or a digest names at ``endpoint``.

        The raw bytes are verified against that digest, and against Docker-Content-Digest where it is sent. Raises
        SourceError, DocumentTooLargeError, DigestMismatchError.
        """
        what = f"manifest {name} of {endpoint.account}"
        async with self._request("GET", endpoint, f"manifests/{name}", _ACCEPT) as response:
            raw = await response.read(MANIFEST_LIMIT, what)
            said = _content_digest(response)
            media_type = response.headers.get("Content-Type")
        wanted = name if isinstance(name, Digest) else None
        for digest in (wanted, said):
            if digest is not None:
                verify_bytes(what, raw, digest)
        return SourceDocument(raw, media_type, wanted or said or Digest.of(raw))

    async def digest(self, endpoint: Endpoint, name: str | Digest) -> Digest:
        """The digest of what a tag names at ``endpoint``, by a HEAD request, or by GET where HEAD tells nothing."""
        try:
            async with self._request("HEAD", endpoint, f"manifests/{name}", _ACCEPT) as response:
                said = _content_digest(response)
                media_type = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
            # The digest of another document than we would be given is of no use.
            if said is not None and media_type in ACCEPTED_MANIFESTS:
                return said
        except (AuthenticationError, NotFoundError, UnavailableError) as error:
            # Some registries know no HEAD, and those that do cannot say what is wrong in a body.
            if error.temporary:
                raise
        return (await self.manifest(endpoint, name)).digest

    async def blob_bytes(self, endpoint: Endpoint, descriptor: Descriptor) -> bytes:
        """A blob, its size and digest verified; no more bytes are read than it should have.

        Raises SourceError, DocumentTooLargeError, IntegrityError.
        """
        what = f"blob {descriptor.digest}"
        async with self._request("GET", endpoint, f"blobs/{descriptor.digest}", {}) as response:
            body = await response.read(descriptor.size, what)
        if len(body) != descriptor.size:
            raise SizeMismatchError(what, descriptor.size, len(body))
        verify_bytes(what, body, descriptor.digest)
        return body

    @asynccontextmanager
    async def open_blob(
        self, endpoint: Endpoint, descriptor: Descriptor, offset: int = 0, end: int | None = None
    ) -> AsyncIterator[BlobResponse]:
        """Ask for the bytes of a blob from ``offset`` to ``end`` (None is its end).

        The response begins at zero and goes on to the end, if the registry ignores ranges; one that is wrong about
        them is asked without a range, and from then on always. Raises SourceError, and SizeMismatchError where the
        registry says that the blob has another size.
        """
        path = f"blobs/{descriptor.digest}"
        if (offset > 0 or end is not None) and _host(endpoint) not in self._rangeless:
            last = "" if end is None else end - 1
            headers = {"Range": f"bytes={offset}-{last}"}
            async with self._request("GET", endpoint, path, headers, passed=_RANGE_STATUSES) as response:
                held = _extent(response, descriptor, offset)
                if held is not None and response.status != 416:
                    yield BlobResponse(held.start, held.end, held.total, response.chunks(), endpoint.name)
                    return
            self._rangeless.add(_host(endpoint))
        async with self._request("GET", endpoint, path, {}) as response:
            held = _extent(response, descriptor, 0)
            if held is None:
                raise UnavailableError(
                    f"{path}: {endpoint.host} answers {response.status} where 200 was to be expected"
                )
            yield BlobResponse(held.start, held.end, held.total, response.chunks(), endpoint.name)

    @asynccontextmanager
    async def _request(
        self,
        method: str,
        endpoint: Endpoint,
        path: str,
        headers: Mapping[str, str],
        passed: frozenset[int] = frozenset(),
    ) -> AsyncIterator[HttpResponse]:
        """Yield the answer to a request below a repository, authorized as far as the endpoint wants it.

        Only a status of 200 to 299, or one of ``passed``, is yielded; any other is raised as the error it means.
        """
        scheme = await self._scheme(endpoint)
        namespace = "" if endpoint.namespace is None else f"?ns={quote(endpoint.namespace, safe='')}"
        url = f"{scheme}://{endpoint.host}{endpoint.prefix}/{endpoint.repository}/{path}{namespace}"
        door = self._doors.setdefault(endpoint, _Door())
        loop = asyncio.get_running_loop()
        for is_last in (False, True):
            key = door.key(loop.time())
            async with self._http.request(
                method,
                url,
                headers=headers,
                authorization=key,
                verify_tls=not endpoint.insecure,
                plain_http=endpoint.insecure,
            ) as response:
                if response.status < 300 or response.status in passed:
                    yield response
                    return
                body = await response.excerpt(ERROR_BODY_LIMIT)
                challenges = parse_challenges(response.all("WWW-Authenticate"))
            if response.status != 401 or response.is_foreign or is_last or not challenges:
                raise _refusal(f"{path} of {endpoint.account}", endpoint, response, body)
            await self._unlock(door, key, challenges, endpoint, scheme)

    async def _unlock(
        self,
        door: _Door,
        tried: str | None,
        challenges: tuple[Challenge, ...],
        endpoint: Endpoint,
        scheme: str,
    ) -> None:
        """Obtain an authorization, unless somebody else did since ``tried`` was sent."""
        loop = asyncio.get_running_loop()
        async with door.lock:
            if door.key(loop.time()) != tried:
                return
            door.authorization = None
            found = await self._load_keyring().lookup(endpoint.account)
            credentials = None if found is None else found.credentials
            plain_http = endpoint.insecure or scheme == "http"
            dance = authorize(challenges, endpoint.repository, endpoint.host, credentials, plain_http=plain_http)
            try:
                request = next(dance)
                while True:
                    async with self._http.request(
                        "GET",
                        request.url,
                        authorization=request.authorization,
                        verify_tls=not endpoint.insecure,
                        plain_http=plain_http,
                    ) as response:
                        if response.status == 200:
                            body = await response.read(TOKEN_LIMIT, f"token for {endpoint.account}")
                        else:
                            body = await response.excerpt(ERROR_BODY_LIMIT)
                    request = dance.send(TokenAnswer(response.status, response.headers, body, datetime.now(UTC)))
            except StopIteration as end:
                door.unlock(end.value, loop.time())

    def _load_keyring(self) -> Keyring:
        return load_keyring(self._environ, self._access.authfile)

    async def _scheme(self, endpoint: Endpoint) -> str:
        """The scheme to speak: of several, the first by which anything answers there."""
        if len(endpoint.schemes) == 1:
            return endpoint.schemes[0]
        entry = self._schemes.setdefault(_host(endpoint), _Scheme())
        async with entry.lock:
            if entry.known is None:
                entry.known = await self._probe(endpoint)  # whoever asks tries again
        return entry.known

    async def _probe(self, endpoint: Endpoint) -> str:
        failures: list[SourceError] = []
        for scheme in endpoint.schemes:
            try:
                async with self._http.request("GET", f"{scheme}://{endpoint.host}{endpoint.prefix}/", verify_tls=False):
                    return scheme
            except SourceError as error:
                failures.append(error)
        if any(failure.temporary for failure in failures):
            failures.sort(key=lambda failure: failure.temporary)
        raise failures[-1]


def _host(endpoint: Endpoint) -> tuple[str, str]:
    """What endpoints of several repositories have in common."""
    return endpoint.host, endpoint.prefix


def _extent(response: HttpResponse, descriptor: Descriptor, offset: int) -> Extent | None:
    """What ``response`` holds. Raises SizeMismatchError if it is part of something of another size."""
    held = extent(response.status, response.headers, response.content_length, offset)
    if held is not None and held.total is not None and held.total != descriptor.size:
        raise SizeMismatchError(f"blob {descriptor.digest}", descriptor.size, held.total)
    return held


def _content_digest(response: HttpResponse) -> Digest | None:
    """What Docker-Content-Digest says. One that cannot be verified is as good as none."""
    try:
        return Digest.parse(response.headers["Docker-Content-Digest"])
    except (KeyError, InvalidDigestError):
        return None


def _refusal(what: str, endpoint: Endpoint, response: HttpResponse, body: bytes) -> AsyncpullError:
    error = refusal(what, endpoint.host, response.status, response.headers, body, datetime.now(UTC))
    if response.is_foreign and isinstance(error, AuthenticationError):
        # A signed URL that expired on the way; the registry will sign another.
        return UnavailableError(f"{what}: {response.url} answers {response.status}", temporary=True)
    return error
