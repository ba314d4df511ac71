"""The pulling half of the distribution API (distribution-spec 1.1) over HTTP.

One client serves all registries of a process and remembers, per endpoint, whether https or plain http is spoken there,
and per repository, what opened the door. Documents are asked for again after temporary failures; of blobs only the
opening belongs here: whoever reads one knows what is missing, and asks again for that.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from asyncpull.errors import (
    AsyncpullError,
    AuthenticationError,
    DocumentTooLargeError,
    InvalidDigestError,
    NotFoundError,
    SizeMismatchError,
    SourceError,
    UnavailableError,
)
from asyncpull.http import HttpClient, HttpTimeouts
from asyncpull.registry.auth import TokenAnswer, authorize, parse_challenges
from asyncpull.registry.config import RegistryAccess
from asyncpull.registry.credentials import auth_files, load_keyring
from asyncpull.registry.extent import Extent, extent
from asyncpull.registry.refusal import ERROR_BODY_LIMIT, refusal
from asyncpull.retry import RetryPolicy, retrying
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
    from asyncpull.registry.config import Endpoint
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
        self._doors: dict[tuple[Endpoint, str], _Door] = {}
        self._schemes: dict[Endpoint, _Scheme] = {}
        self._rangeless: set[Endpoint] = set()
        self._keyring: Keyring | None = None

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.__aexit__(kind, error, trace)

    async def manifest(self, reference: Reference) -> SourceDocument:
        """The manifest or index that ``reference`` names; its digest, if it names one, wins over its tag.

        The raw bytes are verified against that digest, and against Docker-Content-Digest where it is sent. Raises
        SourceError, DocumentTooLargeError, DigestMismatchError.
        """
        return await retrying(self._retry, lambda: self._manifest(reference))

    async def digest(self, reference: Reference) -> Digest:
        """The digest of what ``reference`` names, by a HEAD request, or by GET where HEAD tells nothing."""
        return await retrying(self._retry, lambda: self._digest(reference))

    async def blob_bytes(self, reference: Reference, descriptor: Descriptor, limit: int) -> bytes:
        """A small blob, its size and digest verified. Raises SourceError, DocumentTooLargeError, IntegrityError."""
        what = f"blob {descriptor.digest}"
        if descriptor.size > limit:
            raise DocumentTooLargeError(f"{what} has {descriptor.size} bytes, the limit is {limit}")
        body = await retrying(self._retry, lambda: self._blob_bytes(reference, descriptor, what))
        if len(body) != descriptor.size:
            raise SizeMismatchError(what, descriptor.size, len(body))
        verify_bytes(what, body, descriptor.digest)
        return body

    @asynccontextmanager
    async def open_blob(
        self, reference: Reference, descriptor: Descriptor, offset: int = 0, end: int | None = None
    ) -> AsyncIterator[BlobResponse]:
        """Ask for the bytes of a blob from ``offset`` to ``end`` (None is its end).

        The response begins at zero and goes on to the end, if the registry ignores ranges; one that is wrong about
        them is asked without a range, and from then on always. Raises SourceError, and SizeMismatchError where the
        registry says that the blob has another size.
        """
        path = f"blobs/{descriptor.digest}"
        endpoint = self._access.endpoint(reference)
        if (offset > 0 or end is not None) and endpoint not in self._rangeless:
            last = "" if end is None else end - 1
            headers = {"Range": f"bytes={offset}-{last}"}
            async with self._request("GET", reference, path, headers, passed=_RANGE_STATUSES) as response:
                held = _extent(response, descriptor, offset)
                if held is not None and response.status != 416:
                    yield BlobResponse(held.start, held.end, held.total, response.chunks())
                    return
            self._rangeless.add(endpoint)
        async with self._request("GET", reference, path, {}) as response:
            held = _extent(response, descriptor, 0)
            if held is None:
                raise UnavailableError(
                    f"{path}: {endpoint.host} answers {response.status} where 200 was to be expected"
                )
            yield BlobResponse(held.start, held.end, held.total, response.chunks())

    async def _manifest(self, reference: Reference) -> SourceDocument:
        async with self._request("GET", reference, _manifest_path(reference), _ACCEPT) as response:
            raw = await response.read(MANIFEST_LIMIT, f"manifest of {reference}")
            said = _content_digest(response)
            media_type = response.headers.get("Content-Type")
        wanted = reference.digest or said
        for digest in (reference.digest, said):
            if digest is not None:
                verify_bytes(f"manifest of {reference}", raw, digest)
        return SourceDocument(raw, media_type, wanted or Digest.of(raw))

    async def _digest(self, reference: Reference) -> Digest:
        try:
            async with self._request("HEAD", reference, _manifest_path(reference), _ACCEPT) as response:
                said = _content_digest(response)
            if said is not None:
                return said
        except (NotFoundError, UnavailableError) as error:
            # Some registries know no HEAD, and those that do cannot say what is wrong in a body.
            if error.temporary:
                raise
        return (await self._manifest(reference)).digest

    async def _blob_bytes(self, reference: Reference, descriptor: Descriptor, what: str) -> bytes:
        async with self._request("GET", reference, f"blobs/{descriptor.digest}", {}) as response:
            return await response.read(descriptor.size, what)

    @asynccontextmanager
    async def _request(
        self,
        method: str,
        reference: Reference,
        path: str,
        headers: Mapping[str, str],
        passed: frozenset[int] = frozenset(),
    ) -> AsyncIterator[HttpResponse]:
        """Yield the answer to a request below a repository, authorized as far as the registry wants it.

        Only a status of 200 to 299, or one of ``passed``, is yielded; any other is raised as the error it means.
        """
        endpoint = self._access.endpoint(reference)
        scheme = await self._scheme(endpoint)
        url = f"{scheme}://{endpoint.host}/v2/{reference.path}/{path}"
        door = self._doors.setdefault((endpoint, reference.path), _Door())
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
                raise _refusal(f"{path} of {reference.name}", endpoint, response, body)
            await self._unlock(door, key, challenges, reference, endpoint, scheme)

    async def _unlock(
        self,
        door: _Door,
        tried: str | None,
        challenges: tuple[Challenge, ...],
        reference: Reference,
        endpoint: Endpoint,
        scheme: str,
    ) -> None:
        """Obtain an authorization, unless somebody else did since ``tried`` was sent."""
        loop = asyncio.get_running_loop()
        async with door.lock:
            if door.key(loop.time()) != tried:
                return
            door.authorization = None
            credentials = (await self._load_keyring()).lookup(reference)
            plain_http = endpoint.insecure or scheme == "http"
            dance = authorize(challenges, reference.path, endpoint.host, credentials, plain_http=plain_http)
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
                            body = await response.read(TOKEN_LIMIT, f"token for {reference.name}")
                        else:
                            body = await response.excerpt(ERROR_BODY_LIMIT)
                    request = dance.send(TokenAnswer(response.status, response.headers, body, datetime.now(UTC)))
            except StopIteration as end:
                door.unlock(end.value, loop.time())

    async def _load_keyring(self) -> Keyring:
        if self._keyring is None:
            authfile = self._access.authfile
            # In the user namespace of a rootless store we are root; podman's variable tells who we really are.
            rootless = self._environ.get("_CONTAINERS_ROOTLESS_UID", "")
            uid = int(rootless) if rootless.isdecimal() else os.getuid()
            paths = auth_files(self._environ, uid, authfile)
            self._keyring = await load_keyring(paths, must_exist=authfile is not None)
        return self._keyring

    async def _scheme(self, endpoint: Endpoint) -> str:
        """https, or for an insecure endpoint whatever answers there first."""
        if not endpoint.insecure:
            return "https"
        entry = self._schemes.setdefault(endpoint, _Scheme())
        async with entry.lock:
            if entry.known is None:
                entry.known = await self._probe(endpoint)  # whoever asks tries again
        return entry.known

    async def _probe(self, endpoint: Endpoint) -> str:
        failures: list[SourceError] = []
        for scheme in endpoint.schemes:
            try:
                async with self._http.request("GET", f"{scheme}://{endpoint.host}/v2/", verify_tls=False):
                    return scheme
            except SourceError as error:
                failures.append(error)
        if any(failure.temporary for failure in failures):
            failures.sort(key=lambda failure: failure.temporary)
        raise failures[-1]


def _manifest_path(reference: Reference) -> str:
    return f"manifests/{reference.digest or reference.tag}"


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
