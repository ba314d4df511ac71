"""How a registry is convinced: challenges, and the token dance as a conversation (distribution-spec, RFC 6750, 7617).

::

    we ask            401, WWW-Authenticate: Bearer realm="…",service="…",scope="…"   or   Basic realm="…"
    Basic             the user name and password go to the registry itself
    Bearer            GET realm?service=…&scope=… (with user name and password, if there are any)
                      or, with an identity token, POST realm, grant_type=refresh_token&refresh_token=…
                      200 {"token" or "access_token": "…", "expires_in": 300, "issued_at": "…"}
    we ask again      401 or 403, WWW-Authenticate: Bearer error="insufficient_scope",scope="…"
                      a token for what was asked before and for that

``authorize`` is a generator: it yields a TokenRequest and is sent a TokenAnswer, and returns an Authorization. It does
no input or output, so whoever drives it decides how a request is made. Which token server may be told a password is
decided in ``realm``. A challenge may ask for scopes of its own; of those only reading other repositories is passed on.
A server of tokens that knows no POST gets an identity token as a password, as containerd does it.
"""

from __future__ import annotations

import re
from dataclasses import field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from asyncpull.dataclass import dataclass
from asyncpull.errors import (
    AuthenticationError,
    DocumentError,
    ManifestRejectedError,
    NotFoundError,
    UnavailableError,
)
from asyncpull.registry.realm import Realm, parse_realm
from asyncpull.registry.refusal import parse_date, refusal
from asyncpull.spec.fields import Fields

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from asyncpull.registry.credentials import Credentials

# distribution-spec: a token without expires_in is good for at least this long.
DEFAULT_LIFETIME_SECONDS = 60.0

_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_SCHEME = re.compile(rf"[\s,]*({_TOKEN})(?:[ \t]+|$|(?=,))")
_PARAMETER = re.compile(rf'[\s,]*({_TOKEN})[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|({_TOKEN}))')
_TOKEN68 = re.compile(r"[A-Za-z0-9\-._~+/]+=*[ \t]*(?=,|$)")
_SCOPE = re.compile(r"([a-z0-9]+(?:\([a-z0-9]+\))?):([^ ]{1,300}):([^ :]+)")
# So many scopes are asked for; challenge upon challenge could name any number.
_SCOPES_LIMIT = 16
_CLIENT_ID = "asyncpull"
_FORM = {"Content-Type": "application/x-www-form-urlencoded"}
_NO_POST = frozenset({404, 405})


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way in that a registry offers; ``scheme`` and the names of ``parameters`` are lower case."""

    scheme: str
    parameters: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Scope:
    """What a token is to allow: ``actions`` on the ``name`` of a ``kind``, ``repository`` nearly always."""

    kind: str
    name: str
    actions: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}:{','.join(self.actions)}"


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """A GET to make, or a POST of ``form``; ``authorization`` and ``form`` are only for the origin of ``url``."""

    url: str
    authorization: str | None = field(default=None, repr=False)
    form: bytes | None = field(default=None, repr=False)

    @property
    def method(self) -> str:
        """The method of the request."""
        return "GET" if self.form is None else "POST"

    @property
    def headers(self) -> Mapping[str, str]:
        """What else to send."""
        return {} if self.form is None else _FORM


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


def parse_scopes(text: str) -> tuple[Scope, ...]:
    """Parse what a challenge asks for; a name may have a port in it. What makes no sense is left out."""
    found = (_SCOPE.fullmatch(word) for word in text.split())
    return tuple(Scope(each[1], each[2], tuple(each[3].split(","))) for each in found if each is not None)


def asked_scopes(challenges: Sequence[Challenge], ours: Sequence[Scope]) -> tuple[Scope, ...]:
    """``ours``, and of what the challenge asks for reading other repositories, where we read ours.

    Nothing else: whoever makes us write here must not make us able to write there.
    """
    found = {(scope.kind, scope.name): scope for scope in ours}
    actions = {action for scope in ours for action in scope.actions if action == "pull"}
    challenge = _bearer(challenges)
    for asked in parse_scopes(challenge.parameters.get("scope", "")) if challenge is not None else ():
        allowed = tuple(sorted(actions.intersection(asked.actions)))
        if asked.kind == "repository" and allowed and len(found) < _SCOPES_LIMIT:
            found.setdefault((asked.kind, asked.name), replace(asked, actions=allowed))
    return tuple(found.values())


def is_insufficient(status: int, challenges: Sequence[Challenge]) -> bool:
    """Whether a token was sent that is good, but not for this."""
    challenge = _bearer(challenges)
    return status in (401, 403) and challenge is not None and challenge.parameters.get("error") == "insufficient_scope"


def realm_of(challenges: Sequence[Challenge], host: str, *, plain_http: bool) -> Realm | None:
    """The token server that the registry ``host`` names, None where it wants no token. Raises AuthenticationError."""
    challenge = _bearer(challenges)
    return None if challenge is None else parse_realm(challenge.parameters["realm"], host, plain_http=plain_http)


def authorize(
    challenges: Sequence[Challenge],
    scopes: Sequence[Scope],
    host: str,
    credentials: Credentials | None,
    *,
    plain_http: bool,
    withheld: str | None = None,
) -> Generator[TokenRequest, TokenAnswer, Authorization]:
    """Obtain the right to ``scopes`` at ``host``, which answered 401 with ``challenges``.

    ``plain_http`` says that the registry may be spoken to in the clear, and so may its token server. ``credentials``
    are sent to that server; where there are some that are not, ``withheld`` says why. Raises AuthenticationError,
    UnavailableError, TemporaryError and DocumentError.
    """
    challenge = _bearer(challenges)
    if challenge is None:
        return _basic(challenges, host, credentials)
    realm = parse_realm(challenge.parameters["realm"], host, plain_http=plain_http)
    what = f"a token for {scopes[0].name if scopes else host}"
    service = challenge.parameters.get("service", "")
    answer = None
    if credentials is not None and credentials.identity_token is not None:
        answer = yield _refresh(realm, service, scopes, credentials.identity_token)
        if answer.status in _NO_POST:
            answer = None
    if answer is None:
        answer = yield _get(realm, service, scopes, credentials)
    if answer.status != 200:
        error = refusal(what, realm.host, answer.status, answer.headers, answer.body, answer.now)
        if withheld is not None and isinstance(error, AuthenticationError):
            raise AuthenticationError(error.message, withheld)
        if isinstance(error, NotFoundError | ManifestRejectedError):  # that is so of no image, it is so of the token
            raise UnavailableError(error.message)
        raise error
    return _token(realm.host, answer)


def _bearer(challenges: Sequence[Challenge]) -> Challenge | None:
    return next((item for item in challenges if item.scheme == "bearer" and item.parameters.get("realm")), None)


def _basic(challenges: Sequence[Challenge], host: str, credentials: Credentials | None) -> Authorization:
    if not any(item.scheme == "basic" for item in challenges):
        raise AuthenticationError(f"{host} refuses access and offers neither Bearer nor Basic authentication")
    if credentials is None:
        raise AuthenticationError(f"{host} asks for a user name and a password", f"log in to {host} first")
    if credentials.identity_token is not None and not credentials.password:
        raise AuthenticationError(
            f"{host} asks for a user name and a password, and there is an identity token only",
            f"log in to {host} with a password",
        )
    return Authorization(credentials.basic())


def _refresh(realm: Realm, service: str, scopes: Sequence[Scope], identity_token: str) -> TokenRequest:
    form = {
        "grant_type": "refresh_token",
        "service": service,
        "client_id": _CLIENT_ID,
        "scope": " ".join(map(str, scopes)),
        "refresh_token": identity_token,
    }
    return TokenRequest(realm.url, form=_encoded([(key, value) for key, value in form.items() if value]).encode())


def _get(realm: Realm, service: str, scopes: Sequence[Scope], credentials: Credentials | None) -> TokenRequest:
    query = [("account", credentials.username)] if credentials is not None and credentials.username else []
    if service:
        query.append(("service", service))
    query += [("scope", str(scope)) for scope in scopes]
    joint = "" if not query else "&" if "?" in realm.url else "?"
    authorization = None
    if credentials is not None:
        password = credentials.password or credentials.identity_token or ""
        authorization = replace(credentials, password=password).basic()
    return TokenRequest(f"{realm.url}{joint}{_encoded(query)}", authorization)


def _encoded(query: Sequence[tuple[str, str]]) -> str:
    """For a URL or a form; what came in a header and was no UTF-8 goes back as the bytes that it was."""
    return urlencode(query, errors="surrogateescape")


def _token(realm_host: str, answer: TokenAnswer) -> Authorization:
    what = f"the token from {realm_host}"
    document = Fields.from_bytes(answer.body, what)
    token = document.get("token", str, "") or document.get("access_token", str, "")
    if not token or not token.isascii() or not token.isprintable():
        raise DocumentError(f"{what} is empty or not printable")
    lifetime = max(float(document.get("expires_in", int, 0)), DEFAULT_LIFETIME_SECONDS)
    age = _age(document.get("issued_at", str, ""), answer)
    # A token that was never any good tells of clocks that differ; it is tried.
    return Authorization(f"Bearer {token}", lifetime - age if age < lifetime else lifetime)


def _age(issued_at: str, answer: TokenAnswer) -> float:
    """The seconds since a token was issued, by the server's clock where it tells the time, else by ours."""
    try:
        issued = datetime.fromisoformat(issued_at)
    except ValueError:
        return 0.0
    date = answer.headers.get("Date")
    now = answer.now if date is None else parse_date(date)
    if now is None:
        return 0.0
    return max(0.0, (now - (issued if issued.tzinfo is not None else issued.replace(tzinfo=UTC))).total_seconds())
