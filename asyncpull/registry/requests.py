"""Requests to endpoints: by which scheme, with which authorization, and what the answers say beside what was asked.

Per host it is remembered whether https or plain http is spoken there, and what opened the door: per repository, for
each of the things that are done there, because whoever may read may not always write.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import field
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import quote

from asyncpull.dataclass import dataclass
from asyncpull.errors import AsyncpullError, AuthenticationError, SourceError, UnavailableError
from asyncpull.http import Stream
from asyncpull.log import Log
from asyncpull.registry.auth import Scope, parse_challenges
from asyncpull.registry.door import Door, Visit
from asyncpull.registry.notice import parse_notices
from asyncpull.registry.ratelimit import RateLimit, parse_rate_limit
from asyncpull.registry.refusal import ERROR_BODY_LIMIT, refusal
from asyncpull.urls import origin

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
    from contextlib import AbstractAsyncContextManager

    from asyncpull.http import HttpClient, HttpResponse
    from asyncpull.registry.auth import TokenRequest
    from asyncpull.registry.credentials import Keyring
    from asyncpull.registry.door import Ask
    from asyncpull.registry.endpoint import Endpoint

# So many notices are remembered, so as not to be logged twice.
_NOTICES_REMEMBERED = 1000

_log = Log(__name__)


@dataclass(frozen=True, slots=True)
class Errand:
    """What a request wants to do with its repository, and with others that it only reads ``also`` (their paths)."""

    actions: tuple[str, ...]
    also: tuple[str, ...] = ()

    def scopes(self, repository: str) -> tuple[Scope, ...]:
        """What a token is to allow."""
        if not repository:
            return ()
        others = (Scope("repository", other, ("pull",)) for other in self.also if other != repository)
        return Scope("repository", repository, self.actions), *others


PULL = Errand(("pull",))
PUSH = Errand(("pull", "push"))
# What containers/image asks for; servers that know no star give what they know.
DELETE = Errand(("*", "delete", "pull", "push"))


@dataclass(slots=True)
class _Scheme:
    """Whether https or http is spoken at one endpoint, once that is known."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    known: str | None = None


class EndpointRequests:
    """Makes requests through ``http``, each once, with the credentials of what ``keyring`` gives when it is needed.

    A ``token`` is sent instead to endpoints that references name, whatever they ask for.
    """

    def __init__(
        self, http: HttpClient, keyring: Callable[[Endpoint], Awaitable[Keyring]], token: str | None = None
    ) -> None:
        self._http, self._keyring, self._token = http, keyring, token
        self._doors: dict[tuple[Endpoint, Errand], Door] = {}
        self._schemes: dict[tuple[str, str], _Scheme] = {}
        self._notices: set[tuple[str, str]] = set()
        self.rate_limits: dict[str, RateLimit] = {}
        """The last word on how often each registry, by its domain, may be asked."""

    @asynccontextmanager
    async def request(
        self,
        method: str,
        endpoint: Endpoint,
        path: str,
        headers: Mapping[str, str],
        *,
        passed: frozenset[int] = frozenset(),
        target: str | None = None,
        errand: Errand = PULL,
        body: bytes | Stream | None = None,
    ) -> AsyncIterator[HttpResponse]:
        """Yield the answer to a request for ``path`` below the repository of ``endpoint``, authorized as it wants it.

        ``target`` is asked for instead where the endpoint itself said what the URL is, or the path and query; at
        another origin than the endpoint's that is done without credentials. Only a status of 200 to 299, or one of
        ``passed``, is yielded; any other is raised as the error it means. Raises also what a ``body`` raises.
        """
        scheme = await self._scheme(endpoint)
        home = f"{scheme}://{endpoint.host}"
        door = self._door(endpoint, errand)
        if isinstance(body, Stream) and door.has_expired():
            await self._knock(endpoint, errand)
        visit = Visit(door)
        given = f"Bearer {self._token}" if self._token is not None and endpoint.is_named else None
        while True:
            async with self._http.request(
                method,
                target or _target(endpoint, path),
                home=home,
                headers=headers,
                private_headers=dict(endpoint.headers),
                authorization=given or visit.key(),
                body=body,
                tls=endpoint.tls,
                verify_tls=not endpoint.insecure,
                plain_http=endpoint.insecure or scheme == "http",
            ) as response:
                self._hear(endpoint, response)
                if response.status < 300 or response.status in passed:
                    yield response
                    return
                said = await response.excerpt(ERROR_BODY_LIMIT)
                challenges = parse_challenges(response.all("WWW-Authenticate"))
            if given or response.is_foreign or not visit.is_worth_asking(response.status, challenges):
                raise door.explained(_refusal(f"{path} of {endpoint.account}", endpoint, response, said))
            ask = self._token_requests(endpoint, scheme)
            plain_http = endpoint.insecure or scheme == "http"
            await door.unlock(visit, challenges, await self._keyring(endpoint), ask, plain_http=plain_http)

    async def check_login(self, endpoint: Endpoint) -> None:
        """Ask whether the credentials are good for ``endpoint`` as such. Raises AuthenticationError if not."""
        door, refused = self._door(endpoint, PULL), None
        try:
            async with self.request("GET", endpoint, "the login", {}, target=f"{endpoint.prefix}/"):
                pass
        except AuthenticationError as error:
            refused = error
        if door.withheld is not None:
            message = f"{endpoint.host} could not be asked whether the credentials are good"
            raise AuthenticationError(message, door.withheld) from refused
        if refused is not None:
            raise AuthenticationError(f"invalid username/password: {refused.message}") from refused

    async def _knock(self, endpoint: Endpoint, errand: Errand) -> None:
        """Have a key before a long body is sent, which without one would be sent for nothing."""
        async with self.request("GET", endpoint, "", {}, target=f"{endpoint.prefix}/", errand=errand):
            pass

    def _door(self, endpoint: Endpoint, errand: Errand) -> Door:
        made = Door(endpoint.host, endpoint.account, errand.scopes(endpoint.repository))
        return self._doors.setdefault((endpoint, errand), made)

    def _hear(self, endpoint: Endpoint, response: HttpResponse) -> None:
        """Take note of what the endpoint says about itself."""
        if response.is_foreign:
            return
        registry = endpoint.account.partition("/")[0]
        for text in parse_notices(response.all("Warning")):
            if (registry, text) not in self._notices and len(self._notices) < _NOTICES_REMEMBERED:
                self._notices.add((registry, text))
                _log.warning("the registry warns", registry=registry, text=text)
        limit = parse_rate_limit(response.headers)
        if limit is not None:
            before = self.rate_limits.get(registry)
            self.rate_limits[registry] = limit
            if limit.is_scarce and (before is None or not before.is_scarce):
                _log.warning(
                    "the registry will soon refuse to be asked",
                    registry=registry,
                    remaining=limit.remaining,
                    limit=limit.limit,
                    window_seconds=limit.window_seconds,
                )

    def _token_requests(self, endpoint: Endpoint, scheme: str) -> Ask:
        """How the token server of ``endpoint`` is asked: only at home do we show our certificates."""

        def ask(request: TokenRequest) -> AbstractAsyncContextManager[HttpResponse]:
            is_home = origin(request.url) == origin(f"{scheme}://{endpoint.host}")
            return self._http.request(
                request.method,
                request.url,
                headers=request.headers,
                authorization=request.authorization,
                body=request.form,
                tls=endpoint.tls if is_home else endpoint.tls.without_clients(),
                verify_tls=not endpoint.insecure,
                plain_http=endpoint.insecure or scheme == "http",
            )

        return ask

    async def _scheme(self, endpoint: Endpoint) -> str:
        """The scheme to speak: of several, the first by which anything answers there."""
        if len(endpoint.schemes) == 1:
            return endpoint.schemes[0]
        entry = self._schemes.setdefault(host_of(endpoint), _Scheme())
        async with entry.lock:
            if entry.known is None:
                entry.known = await self._probe(endpoint)  # whoever asks tries again
        return entry.known

    async def _probe(self, endpoint: Endpoint) -> str:
        failures: list[SourceError] = []
        for scheme in endpoint.schemes:
            try:
                async with self._http.request(
                    "GET",
                    f"{scheme}://{endpoint.host}{endpoint.prefix}/",
                    private_headers=dict(endpoint.headers),
                    tls=endpoint.tls,
                    verify_tls=not endpoint.insecure,
                ):
                    return scheme
            except SourceError as error:
                failures.append(error)
        if any(failure.temporary for failure in failures):
            failures.sort(key=lambda failure: failure.temporary)
        raise failures[-1]


def host_of(endpoint: Endpoint) -> tuple[str, str]:
    """What endpoints of several repositories have in common."""
    return endpoint.host, endpoint.prefix


def _target(endpoint: Endpoint, path: str) -> str:
    """The path and query of ``path`` below the repository of ``endpoint``."""
    target = f"{endpoint.prefix}/{endpoint.repository}/{path}"
    if endpoint.namespace is None:
        return target
    return f"{target}{'&' if '?' in path else '?'}ns={quote(endpoint.namespace, safe='')}"


def _refusal(what: str, endpoint: Endpoint, response: HttpResponse, body: bytes) -> AsyncpullError:
    error = refusal(what, endpoint.host, response.status, response.headers, body, datetime.now(UTC))
    if response.is_foreign and isinstance(error, AuthenticationError):
        # A signed URL that expired on the way; the registry will sign another.
        return UnavailableError(f"{what}: {response.url} answers {response.status}", temporary=True)
    return error
