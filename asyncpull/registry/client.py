"""The distribution API (distribution-spec 1.1) over HTTP: pulling here, and ``repository`` for what changes something.

One client serves all registries of a process and remembers, per endpoint, whether https or plain http is spoken there
and how it behaved (``health``), and per repository, what opened the door. Every request is made once, at the endpoint
that it is given: which one is asked, and what is done when it fails, is the business of the source.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from asyncpull.errors import (
    AuthenticationError,
    DigestMismatchError,
    InvalidDigestError,
    NotFoundError,
    SizeMismatchError,
    SourceError,
    UnavailableError,
)
from asyncpull.http import HttpClient, HttpTimeouts
from asyncpull.log import Log
from asyncpull.proxies import Proxies
from asyncpull.registry.config import RegistryAccess, load_registries
from asyncpull.registry.credentials import Keyring, load_keyring, user_id
from asyncpull.registry.extent import Extent, extent
from asyncpull.registry.health import Health
from asyncpull.registry.pagination import next_page
from asyncpull.registry.requests import PUSH, EndpointRequests, host_of
from asyncpull.retry import RetryPolicy, retrying
from asyncpull.spec.digest import Digest, verify_bytes
from asyncpull.spec.fields import Fields
from asyncpull.spec.manifest import MANIFEST_LIMIT, UNKNOWN_SIZE
from asyncpull.spec.mediatype import ACCEPTED_MANIFESTS, is_schema1
from asyncpull.spec.reference import DEFAULT_TAG, Reference, is_tag
from asyncpull.spec.schema1 import document_digest, verify_document
from asyncpull.spec.signature import SIGNATURE_LIMIT
from asyncpull.spec.source import BlobResponse, SourceDocument

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from types import TracebackType
    from typing import Self

    from asyncpull.http import HttpResponse
    from asyncpull.registry.config import Registries
    from asyncpull.registry.credentials import Credentials
    from asyncpull.registry.endpoint import Endpoint
    from asyncpull.registry.ratelimit import RateLimit
    from asyncpull.registry.referrers import Referrer, Referrers
    from asyncpull.registry.repository import Repository
    from asyncpull.spec.manifest import Descriptor

# A list of tags may have so many pages, and so many bytes in each and in all of them.
TAG_PAGES_LIMIT = 2000
TAG_PAGE_LIMIT = 16 << 20
TAGS_LIMIT = 64 << 20
_TAGS_PER_PAGE = 1000

_RANGE_STATUSES = frozenset({416})
_ACCEPT = {"Accept": ", ".join(ACCEPTED_MANIFESTS)}

_log = Log(__name__)


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
        self._http = HttpClient(timeouts, Proxies.from_environ(self._environ))
        self._requests = EndpointRequests(self._http, self._keyring_for, self._access.token)
        self._registries: Registries | None = None
        self._loading = asyncio.Lock()
        self._rangeless: set[tuple[str, str]] = set()
        self._referrers: dict[Endpoint, Referrers] = {}
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

    async def registries(self) -> Registries:
        """What is configured, read once. Raises ConfigurationError."""
        async with self._loading:
            if self._registries is None:
                self._registries = await load_registries(self._access, self._environ, user_id(self._environ))
        return self._registries

    async def keyring(self) -> Keyring:
        """Where credentials are looked up. Raises ConfigurationError."""
        helpers = (await self.registries()).credential_helpers
        return load_keyring(self._environ, self._access.authfile, helpers)

    async def _keyring_for(self, endpoint: Endpoint) -> Keyring:
        """Where the credentials for ``endpoint`` are: what was given for a registry is not for its mirrors."""
        if self._access.is_anonymous:
            return Keyring()
        if self._access.credentials is not None and endpoint.is_named:
            return Keyring(given=self._access.credentials)
        return await self.keyring()

    async def endpoints(self, reference: Reference) -> tuple[Endpoint, ...]:
        """Where ``reference`` may be asked for, in the order to be tried. Raises ConfigurationError, PolicyError."""
        return (await self.registries()).endpoints(reference)

    async def tags(self, reference: Reference) -> tuple[str, ...]:
        """The tags of the repository of ``reference``, in the order in which the registry lists them.

        Only the registry itself is asked: a mirror has those that somebody asked it for. Raises SourceError,
        DocumentError, and DocumentTooLargeError where the list has no end.
        """
        endpoint = (await self.endpoints(reference))[-1]  # the registry itself, or what hosts.toml has in its place
        return await retrying(self._retry, lambda: self._tags(endpoint))

    async def repository(self, reference: Reference) -> Repository:
        """The repository of ``reference`` at the registry itself. Raises ConfigurationError, PolicyError."""
        from asyncpull.registry.repository import Repository  # a pull needs neither this nor referrers

        endpoint = (await self.registries()).home(reference)
        return Repository(self._requests, endpoint, self._referrers_at(endpoint), self._retry)

    async def referrers(
        self, reference: Reference, subject: Digest, *, asks_mirrors: bool = False
    ) -> tuple[Referrer, ...]:
        """What is about the manifest ``subject`` of the repository of ``reference``, as its registry lists it.

        With ``asks_mirrors``, the first endpoint that lists anything counts, and those that do not answer only if none
        does. Raises SourceError, DocumentError, ConfigurationError, PolicyError.
        """
        failure: SourceError | None = None
        is_answered = False
        endpoints = await self.endpoints(reference)
        for endpoint in endpoints if asks_mirrors else endpoints[-1:]:
            lists = self._referrers_at(endpoint)
            try:
                found = await retrying(self._retry, partial(lists.of, subject))
            except SourceError as error:
                failure = failure or error
                continue
            if found:
                return found
            is_answered = True
        if failure is not None and not is_answered:
            raise failure
        return ()

    def _referrers_at(self, endpoint: Endpoint) -> Referrers:
        from asyncpull.registry.referrers import Referrers

        return self._referrers.setdefault(endpoint, Referrers(self._requests, endpoint))

    async def delete(self, reference: Reference) -> Digest:
        """Delete the manifest that ``reference`` names, with all its tags; gives its digest.

        Raises SourceError, DocumentError, ConfigurationError, PolicyError.
        """
        endpoint = (await self.registries()).home(reference)
        name = reference.digest or reference.tag or DEFAULT_TAG
        document = await retrying(self._retry, lambda: self.manifest(endpoint, name))
        await (await self.repository(reference)).delete_manifest(document)
        return document.digest

    def rate_limit(self, registry: str) -> RateLimit | None:
        """How often ``registry`` (a domain) may still be asked, by its last answer; None if it did not say."""
        return self._requests.rate_limits.get(registry)

    async def check_login(self, registry: str, credentials: Credentials) -> None:
        """Ask ``registry``, a domain, whether ``credentials`` are good there. Raises AuthenticationError if not."""
        # Wherever its repositories may be: a password for this registry is for no other.
        itself = (await self.registries()).itself(Reference(registry, "login"))
        itself = replace(itself, repository="", account=registry)

        async def given(_endpoint: Endpoint) -> Keyring:
            return Keyring(given=credentials)

        asking = EndpointRequests(self._http, given)
        await retrying(self._retry, lambda: asking.check_login(itself))

    async def listed_signatures(self, reference: Reference, manifest: Digest) -> bytes | None:
        """What the registry of ``reference`` lists as signatures, by an extension that it says it has; else None.

        The first endpoint that answers is asked. Raises SourceError, DocumentTooLargeError.
        """
        failure: SourceError | None = None
        for endpoint in await self.endpoints(reference):
            try:
                return await retrying(self._retry, partial(self._listed_signatures, endpoint, manifest))
            except SourceError as error:
                failure = error
        raise failure or UnavailableError(f"{reference}: there is no endpoint to ask for signatures")

    async def list_signature(self, reference: Reference, manifest: Digest, name: str, signature: bytes) -> None:
        """Add a signature in OpenPGP to those that the registry of ``reference`` lists. Raises SourceError."""
        endpoint = (await self.registries()).itself(reference)
        body = {"schemaVersion": 2, "name": name, "type": "atomic", "content": base64.b64encode(signature).decode()}
        target = f"/extensions{endpoint.prefix}/{endpoint.repository}/signatures/{manifest}"
        headers = {"Content-Type": "application/json"}
        raw = json.dumps(body).encode()
        async with self._requests.request(
            "PUT", endpoint, f"a signature of {manifest}", headers, target=target, errand=PUSH, body=raw
        ):
            pass

    async def _listed_signatures(self, endpoint: Endpoint, manifest: Digest) -> bytes | None:
        base, what = f"{endpoint.prefix}/", f"the signatures of {manifest}"
        async with self._requests.request("GET", endpoint, what, {}, target=base) as response:
            if response.headers.get("X-Registry-Supports-Signatures") != "1":
                return None
        target = f"/extensions{endpoint.prefix}/{endpoint.repository}/signatures/{manifest}"
        async with self._requests.request("GET", endpoint, what, {}, target=target) as response:
            return await response.read(SIGNATURE_LIMIT, what)

    async def manifest(self, endpoint: Endpoint, name: str | Digest) -> SourceDocument:
        """The manifest or index that a tag or a digest names at ``endpoint``.

        The raw bytes are verified against that digest, and against Docker-Content-Digest where it is sent. Raises
        SourceError, DocumentTooLargeError, DigestMismatchError.
        """
        what = f"manifest {name} of {endpoint.account}"
        async with self._requests.request("GET", endpoint, f"manifests/{name}", _ACCEPT) as response:
            raw = await response.read(MANIFEST_LIMIT, what)
            said = _content_digest(response)
            media_type = response.headers.get("Content-Type")
        wanted = name if isinstance(name, Digest) else None
        for digest in (wanted, said):
            if digest is not None:
                verify_document(what, raw, digest)
        return SourceDocument(raw, media_type, wanted or said or document_digest(raw))

    async def digest(self, endpoint: Endpoint, name: str | Digest) -> Digest:
        """The digest of what a tag names at ``endpoint``, by a HEAD request, or by GET where HEAD tells nothing."""
        try:
            async with self._requests.request("HEAD", endpoint, f"manifests/{name}", _ACCEPT) as response:
                said = _content_digest(response)
                media_type = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
            if said is not None and isinstance(name, Digest) and said != name:
                raise DigestMismatchError(f"manifest of {endpoint.account}", str(name), str(said))
            # The digest of another document than we would be given is of no use; of schema 1 some say it to all.
            if said is not None and media_type in ACCEPTED_MANIFESTS and not is_schema1(media_type):
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
        async with self._requests.request("GET", endpoint, f"blobs/{descriptor.digest}", {}) as response:
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
        if (offset > 0 or end is not None) and host_of(endpoint) not in self._rangeless:
            last = "" if end is None else end - 1
            headers = {"Range": f"bytes={offset}-{last}"}
            async with self._requests.request("GET", endpoint, path, headers, passed=_RANGE_STATUSES) as response:
                held = _extent(response, descriptor, offset)
                if held is not None and response.status != 416:
                    yield BlobResponse(held.start, held.end, held.total, response.chunks(), endpoint.name)
                    return
            self._rangeless.add(host_of(endpoint))
        async with self._requests.request("GET", endpoint, path, {}) as response:
            held = _extent(response, descriptor, 0)
            if held is None:
                raise UnavailableError(
                    f"{path}: {endpoint.host} answers {response.status} where 200 was to be expected"
                )
            yield BlobResponse(held.start, held.end, held.total, response.chunks(), endpoint.name)

    async def _tags(self, endpoint: Endpoint) -> tuple[str, ...]:
        what = f"the list of tags of {endpoint.account}"
        tags: dict[str, None] = {}
        seen: set[str] = set()
        target: str | None = None
        size = 0
        while len(seen) < TAG_PAGES_LIMIT:
            async with self._requests.request(
                "GET", endpoint, f"tags/list?n={_TAGS_PER_PAGE}", {}, target=target
            ) as response:
                page = await response.read(min(TAG_PAGE_LIMIT, TAGS_LIMIT - size), what)
                links = response.all("Link")
            size += len(page)
            for tag in Fields.from_bytes(page, what).texts("tags"):
                if is_tag(tag):
                    tags[tag] = None
                else:
                    _log.warning("the registry lists something that is no tag", registry=endpoint.host)
            target = next_page(response.url, links)
            if target is None:
                return tuple(tags)
            if target in seen:
                raise UnavailableError(f"{what}: its pages go round in a circle")
            seen.add(target)
        raise UnavailableError(f"{what} has more than {TAG_PAGES_LIMIT} pages, which is the limit")


def _extent(response: HttpResponse, descriptor: Descriptor, offset: int) -> Extent | None:
    """What ``response`` holds. Raises SizeMismatchError if it is part of something of another size."""
    held = extent(response.status, response.headers, response.content_length, offset)
    if held is not None and held.total not in (None, descriptor.size) and descriptor.size != UNKNOWN_SIZE:
        raise SizeMismatchError(f"blob {descriptor.digest}", descriptor.size, held.total or 0)
    return held


def _content_digest(response: HttpResponse) -> Digest | None:
    """What Docker-Content-Digest says. One that cannot be verified is as good as none."""
    try:
        return Digest.parse(response.headers["Docker-Content-Digest"])
    except (KeyError, InvalidDigestError):
        return None
