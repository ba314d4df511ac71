"""How a registry is convinced: challenges, and the token dance as a conversation (distribution-spec, RFC 6750, 7617).

::

    we ask            401, WWW-Authenticate: Bearer realm="…",service="…",scope="…"   or   Basic realm="…"
    Basic             the user name and password go to the registry itself
    Bearer            GET realm?service=…&scope=… (with user name and password, if there are any)
                      200 {"token" or "access_token": "…", "expires_in": 300}

``authorize`` is a generator: it yields a TokenRequest and is sent a TokenAnswer, and returns an Authorization. It does
no input or output, so whoever drives it decides how a request is made. What it refuses: a realm that is no http or
https URL, and a realm on plain http named by a registry on https, for the token would go where everybody can read it.
A challenge may ask for scopes of its own; of those only pulling from repositories is passed on.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlencode, urlsplit

from asyncpull.errors import AuthenticationError, DocumentError
from asyncpull.registry.refusal import refusal
from asyncpull.spec.fields import Fields

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence
    from datetime import datetime

    from asyncpull.registry.credentials import Credentials

# distribution-spec: a token without expires_in is good for at least this long.
DEFAULT_LIFETIME_SECONDS = 60.0

_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_SCHEME = re.compile(rf"[\s,]*({_TOKEN})(?:[ \t]+|$|(?=,))")
_PARAMETER = re.compile(rf'[\s,]*({_TOKEN})[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|({_TOKEN}))')
_TOKEN68 = re.compile(r"[A-Za-z0-9\-._~+/]+=*[ \t]*(?=,|$)")
_REPOSITORY_SCOPE = re.compile(r"repository:([^ :]+(?::[0-9]+/[^ :]+)?):([^ ]+)")


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way in that a registry offers; ``scheme`` and the names of ``parameters`` are lower case."""

    scheme: str
    parameters: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """A GET to make; ``authorization`` is only for the origin of ``url``."""

    url: str
    authorization: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class TokenAnswer:
    """What came back, with the time at which it did."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    now: datetime


@dataclass(frozen=True, slots=True)
class Authorization:
    """The value of an Authorization header, and for how many seconds it is good; None is for ever."""

    value: str = field(repr=False)
    lifetime: float | None = None


def parse_challenges(values: Sequence[str]) -> tuple[Challenge, ...]:
    """Parse the WWW-Authenticate headers of one response (RFC 9110, 11.6.1); what makes no sense is left out.

    A header may hold several challenges, separated by the same commas as their parameters: a word that is not
    followed by an equals sign begins a new one.
    """
    challenges: list[Challenge] = []
    for value in values:
        position = 0
        while (found := _SCHEME.match(value, position)) is not None:
            position = found.end()
            parameters: dict[str, str] = {}
            if (token68 := _TOKEN68.match(value, position)) is not None:
                position = token68.end()
            while (parameter := _PARAMETER.match(value, position)) is not None:
                name, quoted, bare = parameter.groups()
                text = bare if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
                parameters.setdefault(name.lower(), text)
                position = parameter.end()
            challenges.append(Challenge(found[1].lower(), parameters))
    return tuple(challenges)


def authorize(
    challenges: Sequence[Challenge],
    repository: str,
    host: str,
    credentials: Credentials | None,
    *,
    plain_http: bool,
) -> Generator[TokenRequest, TokenAnswer, Authorization]:
    """Obtain the right to pull from ``repository`` at ``host``, which answered 401 with ``challenges``.

    ``plain_http`` says that the registry may be spoken to in the clear, and so may its token server. Raises
    AuthenticationError, UnavailableError, TemporaryError and DocumentError.
    """
    bearer = next((item for item in challenges if item.scheme == "bearer" and item.parameters.get("realm")), None)
    if bearer is None:
        if not any(item.scheme == "basic" for item in challenges):
            raise AuthenticationError(f"{host} refuses access and offers neither Bearer nor Basic authentication")
        if credentials is None:
            raise AuthenticationError(f"{host} asks for a user name and a password", f"log in to {host} first")
        return Authorization(credentials.basic())
    answer = yield TokenRequest(
        _token_url(bearer, repository, host, credentials, plain_http=plain_http),
        credentials.basic() if credentials is not None else None,
    )
    realm_host = urlsplit(bearer.parameters["realm"]).hostname or ""
    if answer.status != 200:
        raise refusal(f"a token for {repository}", realm_host, answer.status, answer.headers, answer.body, answer.now)
    return _token(realm_host, answer.body)


def _token_url(
    challenge: Challenge, repository: str, host: str, credentials: Credentials | None, *, plain_http: bool
) -> str:
    realm = challenge.parameters["realm"]
    try:
        parts = urlsplit(realm)
        port_is_fine = parts.port is None or parts.port > 0
    except ValueError:
        parts, port_is_fine = urlsplit(""), False
    if parts.scheme not in ("http", "https") or not parts.hostname or not port_is_fine:
        raise AuthenticationError(f"{host} names a token server that is no http or https URL")
    if parts.scheme == "http" and not plain_http:
        raise AuthenticationError(f"{host} names a token server on plain http, {parts.hostname}, which is refused")
    query = [("scope", scope) for scope in _scopes(challenge.parameters.get("scope", ""), repository)]
    if challenge.parameters.get("service"):
        query.insert(0, ("service", challenge.parameters["service"]))
    if credentials is not None:
        query.insert(0, ("account", credentials.username))
    joint = "&" if parts.query else "?"
    return f"{realm.partition('#')[0]}{joint}{urlencode(query)}"


def _scopes(asked: str, repository: str) -> tuple[str, ...]:
    """Our own scope, and pulling from what else the challenge asks for."""
    wanted = {f"repository:{repository}:pull": None}
    for path, actions in _REPOSITORY_SCOPE.findall(asked):
        if "pull" in actions.split(","):
            wanted[f"repository:{path}:pull"] = None
    return tuple(wanted)


def _token(realm_host: str, body: bytes) -> Authorization:
    what = f"the token from {realm_host}"
    document = Fields.from_bytes(body, what)
    token = document.get("token", str, "") or document.get("access_token", str, "")
    if not token or not token.isascii() or not token.isprintable():
        raise DocumentError(f"{what} is empty or not printable")
    lifetime = document.get("expires_in", int, 0)
    return Authorization(f"Bearer {token}", max(float(lifetime), DEFAULT_LIFETIME_SECONDS))
