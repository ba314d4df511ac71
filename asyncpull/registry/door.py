"""What opens one repository at one endpoint, and how it is obtained: one token request at a time.

A request is a ``Visit``: it sends the key that the door has, and is told by a refusal whether it is worth asking for
another. It asks at most twice: once to be let in at all, or anew where the key is no longer good, and once for a wider
scope. While one visitor asks, the others wait; a key that came meanwhile is tried before another is asked for.
"""

from __future__ import annotations

import asyncio
from dataclasses import field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from asyncpull.addresses import addresses_of, is_inside
from asyncpull.dataclass import dataclass
from asyncpull.errors import AuthenticationError
from asyncpull.log import Log
from asyncpull.registry.auth import TokenAnswer, asked_scopes, authorize, is_insufficient, realm_of
from asyncpull.registry.realm import hostname_of, is_same_site
from asyncpull.registry.refusal import ERROR_BODY_LIMIT
from asyncpull.spec.manifest import TOKEN_LIMIT

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    from asyncpull.errors import AsyncpullError
    from asyncpull.http import HttpResponse
    from asyncpull.registry.auth import Authorization, Challenge, Scope, TokenRequest
    from asyncpull.registry.credentials import Credentials, Keyring
    from asyncpull.registry.realm import Realm

    Resolve = Callable[[str], Awaitable[Sequence[str]]]
    Ask = Callable[[TokenRequest], AbstractAsyncContextManager[HttpResponse]]

# A token is not used in its last seconds, in which it could expire on the way, but for some time it is.
_MARGIN_SECONDS = 10.0
_LEAST_SECONDS = 1.0

_log = Log(__name__)


@dataclass(slots=True)
class Visit:
    """One request on its way in: what it sent, and what it already asked for."""

    door: Door
    sent: str | None = field(default=None, repr=False)
    scopes: tuple[Scope, ...] = ()
    has_asked: bool = False
    has_widened: bool = False

    def key(self) -> str | None:
        """The Authorization to send now."""
        self.sent, self.scopes = self.door.key(), self.door.scopes
        return self.sent

    def is_worth_asking(self, status: int, challenges: Sequence[Challenge]) -> bool:
        """Whether another key may help after a refusal with ``status`` and ``challenges``; says so once for each.

        If not, the door forgets the key: the next visitor may be let in by a new one.
        """
        if self.sent is not None and is_insufficient(status, challenges):
            wider = asked_scopes(challenges, self.scopes)
            if not self.has_widened and len(wider) > len(self.scopes):
                self.has_widened = True
                self.door.wanted = asked_scopes(challenges, self.door.wanted)
                return True
        elif status == 401 and challenges and not self.has_asked:
            self.has_asked = True
            return True
        if status in (401, 403):
            self.door.forget(self.sent)
        return False


@dataclass(slots=True)
class Door:
    """``host`` is the registry and ``account`` what credentials are looked up by; ``wanted`` grows with what is asked.

    ``scopes`` are those of the key that it has.
    """

    host: str
    account: str
    wanted: tuple[Scope, ...] = ()
    scopes: tuple[Scope, ...] = ()
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    withheld: str | None = None
    _key: str | None = field(default=None, repr=False)
    _expires: float | None = None
    _was_open: bool = False

    def key(self) -> str | None:
        """The key, unless it has expired."""
        if self._expires is not None and asyncio.get_running_loop().time() >= self._expires:
            self._key = self._expires = None
        return self._key

    def has_expired(self) -> bool:
        """Whether it was opened before and now there is no key."""
        return self._was_open and self.key() is None

    def forget(self, key: str | None) -> None:
        """Have ``key`` no more, if it is the one."""
        if key is not None and self._key == key:
            self._key = self._expires = None

    def explained(self, error: AsyncpullError) -> AsyncpullError:
        """``error``, which a request ended with; if credentials were held back before, it says so."""
        if self.withheld is not None and isinstance(error, AuthenticationError):
            return AuthenticationError(error.message, self.withheld)
        return error

    async def unlock(
        self,
        visit: Visit,
        challenges: Sequence[Challenge],
        keyring: Keyring,
        ask: Ask,
        *,
        plain_http: bool,
        resolve: Resolve | None = None,
    ) -> None:
        """Obtain a key, unless somebody else did since ``visit`` sent the one it had.

        ``ask`` makes a request to the token server. Raises AuthenticationError, UnavailableError, TemporaryError,
        DocumentError and ConfigurationError.
        """
        async with self.lock:
            key = self.key()
            if key is not None and key != visit.sent and set(self.wanted) <= set(self.scopes):
                return
            self._key = None
            realm = realm_of(challenges, self.host, plain_http=plain_http)
            if realm is not None:
                await self._refuse_inward(realm, resolve or addresses_of)
            credentials, self.withheld = await self._credentials(realm, keyring)
            scopes = asked_scopes(challenges, self.wanted)
            if realm is not None and credentials is not None and self._is_foreign(realm):
                scopes = self.wanted[:1]  # what else it asks for may be somebody else's
            dance = authorize(challenges, scopes, self.host, credentials, plain_http=plain_http, withheld=self.withheld)
            try:
                request = next(dance)
                while True:
                    async with ask(request) as response:
                        if response.status == 200:
                            body = await response.read(TOKEN_LIMIT, f"the token for {self.account}")
                        else:
                            body = await response.excerpt(ERROR_BODY_LIMIT)
                    request = dance.send(TokenAnswer(response.status, response.headers, body, datetime.now(UTC)))
            except StopIteration as end:
                self._open(end.value, scopes)

    def _open(self, found: Authorization, scopes: tuple[Scope, ...]) -> None:
        self._key, self.scopes, self._expires, self._was_open = found.value, scopes, None, True
        if found.lifetime is not None:
            lifetime = max(found.lifetime - _MARGIN_SECONDS, _LEAST_SECONDS)
            self._expires = asyncio.get_running_loop().time() + lifetime
        _log.debug("have a key", account=self.account, scopes=[*map(str, scopes)], lifetime=found.lifetime)

    def _is_foreign(self, realm: Realm) -> bool:
        return not is_same_site(hostname_of(self.host), realm.hostname)

    async def _refuse_inward(self, realm: Realm, resolve: Resolve) -> None:
        """Raise AuthenticationError for a realm in here of a registry out there (rule 3 of ``realm``)."""
        hostname = hostname_of(self.host)
        if (
            realm.hostname != hostname
            and is_inside(await resolve(realm.hostname))
            and not is_inside(await resolve(hostname))
        ):
            raise AuthenticationError(
                f"{self.host} sends us to {realm.host} for a token, which is refused: that is a private address, and"
                " the registry is not at one"
            )

    async def _credentials(self, realm: Realm | None, keyring: Keyring) -> tuple[Credentials | None, str | None]:
        """The credentials to use, or None and, where there are some that must not be sent, why not."""
        found = await keyring.lookup(self.account)
        if realm is not None and self._is_foreign(realm):
            allowed = f"{realm.host}/{self.host}"
            refusal = (
                f"the credentials for {self.host} were not sent to {realm.host}, where it sends us: that is another"
                f' site; to allow it, put credentials under "{allowed}" in auth.json'
            )
            withheld = None if found is None else refusal
            found = await keyring.entry(allowed)
            if found is None:
                return None, withheld
        if found is None:
            return None, None
        _log.debug("credentials are used", account=self.account, source=found.source)
        return found.credentials, None
