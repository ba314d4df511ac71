"""Targets: what registries say, and what files say about registries."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from asyncpull.dockerd import DaemonAddress, common_version
from asyncpull.errors import (
    AuthenticationError,
    ConfigurationError,
    DocumentError,
    InvalidReferenceError,
    TemporaryError,
    UnavailableError,
    UsageError,
)
from asyncpull.proxies import Proxies, without_secret
from asyncpull.registry import authfile
from asyncpull.registry.auth import (
    Authorization,
    Scope,
    TokenAnswer,
    TokenRequest,
    asked_scopes,
    authorize,
    is_insufficient,
    parse_challenges,
    realm_of,
)
from asyncpull.registry.credentials import AuthFile, Credentials
from asyncpull.registry.extent import extent
from asyncpull.registry.hosts import HostsFile
from asyncpull.registry.logins import login_key
from asyncpull.registry.notice import parse_notices
from asyncpull.registry.pagination import next_page
from asyncpull.registry.ratelimit import parse_rate_limit
from asyncpull.registry.realm import hostname_of, is_same_site, parse_realm
from asyncpull.registry.refusal import refusal, retry_after_seconds
from asyncpull.registry.registriesconf import RegistriesConf
from asyncpull.registry.shortnames import ShortNameMode, candidates, parse_aliases
from asyncpull.registry.toml import Table
from asyncpull.spec.reference import parse_reference
from asyncpull.urls import origin, redact
from tests.fuzz.spec import DIGITS, deep
from tests.fuzz.target import Target, halves, text_of

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

GOLDEN = Path(__file__).parents[1] / "registry" / "golden"
FILE = Path("/somewhere/file")
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
_OURS = (Scope("repository", "a/b", ("pull",)),)
_WHO = (None, Credentials("me", "secret"), Credentials("", "", "token"))


def _challenge(data: bytes) -> None:
    head, rest = halves(data)
    challenges = parse_challenges([text_of(head), text_of(head)[::-1]])
    assert len(challenges) <= 2 * len(head)
    assert set(_OURS) <= set(asked_scopes(challenges, _OURS))
    is_insufficient(401, challenges)
    with suppress(AuthenticationError):
        realm_of(challenges, "registry.example", plain_http=False)
    status, body = halves(rest)
    code = 200 if not status else 100 + status[0] * 3 % 500
    date, more = halves(body)
    answer = TokenAnswer(code, {"Date": text_of(date), "Retry-After": text_of(date)}, more, NOW)
    for who in _WHO:
        conversation = authorize(
            challenges, asked_scopes(challenges, _OURS), "registry.example", who, plain_http=True, withheld="no"
        )
        result = _conversed(conversation, answer)
        assert result.value.isascii()
        assert result.lifetime is None or result.lifetime >= 0


def _conversed(conversation: Generator[TokenRequest, TokenAnswer, Authorization], answer: TokenAnswer) -> Authorization:
    """What comes of a conversation in which every answer is the same."""
    try:
        request = next(conversation)
        while True:
            assert request.url.isascii()
            request = conversation.send(answer)
    except StopIteration as end:
        result: Authorization = end.value
        return result


def _realm(data: bytes) -> None:
    registry, text = map(text_of, halves(data))
    hosts = [registry, text]
    assert is_same_site(*hosts) == is_same_site(*reversed(hosts))
    realm = parse_realm(text, registry, plain_http=data[:1] == b"p")
    assert realm.hostname
    assert "#" not in realm.url
    assert "@" not in realm.host
    hostname_of(realm.host)


def _link(data: bytes) -> None:
    first, second = map(text_of, halves(data))
    target = next_page("https://registry.example/v2/a/b/tags/list?n=1", [first, second])
    if target is not None:
        assert "://" not in target.partition("?")[0] or target.startswith("/")


def _extent(data: bytes) -> None:
    status = (200, 206, 416, 404)[data[0] % 4] if data else 200
    offset = data[1] if len(data) > 1 else 0
    found = extent(status, {"Content-Range": text_of(data[2:])}, None, offset)
    if found is not None and found.end is not None:
        assert 0 <= found.start <= found.end
        assert found.start == offset or status == 200
        assert found.total is None or found.end <= found.total or status == 416


def _refusal(data: bytes) -> None:
    head, body = halves(data)
    text = text_of(head)
    for status in (400, 401, 404, 415, 429, 500, 302):
        error = refusal("a/b", "registry.example", status, {"Retry-After": text}, body, NOW)
        assert len(str(error)) < 1000
        assert str(error).isprintable()
        assert error.retry_after is None or error.retry_after >= 0


def _headers(data: bytes) -> None:
    text = text_of(data)
    seconds = retry_after_seconds(text, NOW)
    assert seconds is None or seconds >= 0
    assert all(each.isprintable() for each in parse_notices([text, text]))
    for name in ("RateLimit-Remaining", "X-RateLimit-Limit", "RateLimit-Limit"):
        limit = parse_rate_limit({"RateLimit-Remaining": "5", name: text})
        assert limit is None or limit.is_scarce in (True, False)


def _registries(data: bytes) -> None:
    is_drop_in, raw = data[:1] == b"d", data[1:]
    conf = RegistriesConf.from_bytes(FILE, raw, is_drop_in=is_drop_in)
    assert conf.updated(conf).rules == conf.rules
    for text in ("docker.io/library/alpine:3", "registry.example:5000/team/app", f"a.example.com/b@sha256:{'0' * 64}"):
        reference = parse_reference(text)
        rule = conf.rule_for(reference.name)
        if rule is not None:
            assert 0 < rule.matched(reference.name) <= len(reference.name)
            with suppress(ConfigurationError):
                for location in rule.locations(reference):
                    assert (location.repository.tag, location.repository.digest) == (reference.tag, reference.digest)


def _aliases(data: bytes) -> None:
    name, raw = halves(data)
    aliases = parse_aliases(Table.from_bytes(FILE, raw).table("aliases"))
    with suppress(InvalidReferenceError, UsageError):
        found = candidates(text_of(name), aliases, ("a.example", "b.example:5"), ShortNameMode.ENFORCING, FILE)
        assert found.references
        found.unasked()


def _hosts(data: bytes) -> None:
    hosts = HostsFile.from_bytes(FILE, data)
    assert hosts.rules
    for rule in hosts.rules:
        assert rule.scheme in ("", "http", "https")
        assert "@" not in rule.host
        assert not any(mark in name + text for name, text in rule.headers for mark in "\r\n\0")


def _auth_file(data: bytes) -> None:
    is_legacy, raw = data[:1] == b"l", data[1:]
    found = AuthFile.from_bytes(FILE, raw, is_legacy=is_legacy)
    for account in ("docker.io", "registry.example:5000/a/b", "quay.io/a"):
        key = found.key_for(account)
        assert key is None or key in found.entries
    for credentials in found.entries.values():
        if credentials is not None:
            assert credentials.basic().isascii()
    if not is_legacy:
        document = authfile.parse_document(FILE, raw)
        authfile.set_entry(document, "new.example", "user", "p")
        again = AuthFile.from_bytes(FILE, authfile.format_document(document, raw))
        assert dict(again.entries) == {**found.entries, "new.example": Credentials("user", "p")}
        authfile.mark_entry(document, "other.example")
        assert authfile.remove_entry(document, "new.example")


def _login(data: bytes) -> None:
    key = login_key(text_of(data))
    assert login_key(key) == key
    assert "@" not in key


def _proxies(data: bytes) -> None:
    proxy, direct = map(text_of, halves(data))
    proxies = Proxies.from_environ({"HTTP_PROXY": proxy, "https_proxy": proxy, "NO_PROXY": direct})
    for url in ("http://a.example/b", "https://[::1]:5000/", "https://10.1.2.3/", "https://c.b.example:5/"):
        found = proxies.for_url(url)
        if found is not None:
            without_secret(found)


def _url(data: bytes) -> None:
    """What a server names, in a redirect or a descriptor."""
    text = text_of(data)
    assert "?" not in redact(text).replace("?…", "")
    scheme, host, port = origin(text)
    assert scheme in ("http", "https")
    assert host
    assert 0 < port < 1 << 16


def _daemon(data: bytes) -> None:
    host, version = map(text_of, halves(data))
    assert tuple(map(int, common_version(version).split("."))) <= (1, 51)
    address = DaemonAddress.find(host, environ={})
    assert address.socket or address.url.startswith(("http://", "https://"))


def _challenge_seeds() -> Iterator[bytes]:
    bearer = b'Bearer realm="https://auth.registry.example/token?x=1",service="r",scope="repository:a/b:pull,push"'
    token = json.dumps({"token": "t", "expires_in": 300, "issued_at": "2026-01-02T03:04:05Z"}).encode()
    yield bearer + b"\n\nFri, 02 Jan 2026 03:04:05 GMT\n" + token
    yield b'Basic realm="x", Negotiate AAAA==, ' + bearer + b"\n\n\n" + token.replace(b"token", b"access_token")
    yield b'Bearer realm=http://auth.registry.example,error="insufficient_scope"\n\x64\n12\n{"details":"no"}'


def _toml() -> Iterator[bytes]:
    for path in (*sorted(GOLDEN.rglob("*.conf")), *sorted(GOLDEN.rglob("*.toml"))):
        yield path.read_bytes()
    yield b"a = " + b"[" * 1500
    yield b"a = " + b"9" * 4000 + b"9" * 400
    yield b'[[registry]]\nprefix = "*.example.com"\nblocked = true\n[[registry]]\nlocation = "a"\n'


_ERRORS = json.dumps({"errors": [{"code": "DENIED", "message": "no", "detail": {}}]}).encode()
_DATES = (
    b"Fri, 02 Jan 2026 03:04:05 GMT",
    b"120",
    b"Friday, 02-Jan-26 03:04:05 GMT",
    b"02 Jan 2026 03:04 +0100 (x)",
    DIGITS,
    b"2 Jan " + DIGITS,
)
_AUTHS = b'{\n  "auths": {"a.example/b": {"auth": "bWU6c2VjcmV0"}, "https://index.docker.io/v1/": {}},\n'
_AUTHS += b'  "credHelpers": {"quay.io": "x"}, "credsStore": "y", "more": [1.5]\n}\n'
_TOML_WORDS = (b"[[registry]]\n", b'"""', b"'''", b" = ", b"1979-05-27T07:32:00Z", b"0x", b"[[", b"[", b"{a=", b"1e9")
_CONFIGURATION = (ConfigurationError,)

TARGETS = (
    Target(
        "challenge",
        _challenge,
        (AuthenticationError, UnavailableError, TemporaryError, DocumentError),
        _challenge_seeds,
        (b"Bearer ", b"Basic ", b"realm=", b"scope=", b"error=", b'\\"', b"expires_in", b"issued_at", b", "),
    ),
    Target(
        "realm",
        _realm,
        (AuthenticationError,),
        lambda: (b"registry.gitlab.com\nhttps://gitlab.com/jwt/auth", b"plain:5\nhttp://[::1]:80/x#y"),
        (b"https://", b"http://", b"@", b"]:", b".co.uk"),
    ),
    Target(
        "link",
        _link,
        (UnavailableError,),
        lambda: (
            b'</v2/a?last=x>; rel="next"\n<b>; rel=next; x="y\\"z"',
            b'<https://registry.example/v2/x>;rel="a next"',
        ),
        (b"rel=", b"next", b"<", b">;", b"//["),
    ),
    Target(
        "content-range",
        _extent,
        (),
        lambda: (b"\1\0bytes 0-9/10", b"\1\0bytes 0-9/" + DIGITS, b"\2\0bytes */5", b"\1\x20bytes 32-40/*"),
    ),
    Target(
        "refusal",
        _refusal,
        (),
        lambda: (*(each + b"\n" + _ERRORS for each in _DATES), b'\n{"error": "a", "error_description": "b"}'),
        (b'"message"', b'"details"', b"MANIFEST_INVALID", b"\\u202e"),
    ),
    Target(
        "headers",
        _headers,
        (),
        lambda: (*_DATES, b'299 - "text"', b'299 - "a\\"b", 299 - "c"', b"100;w=21600"),
        (b"299 - ", b";w=", b"GMT", b"+0000", b"Jan", b"99999"),
    ),
    Target("registries-conf", _registries, _CONFIGURATION, lambda: (b"-" + each for each in _toml()), _TOML_WORDS),
    Target(
        "aliases",
        _aliases,
        _CONFIGURATION,
        lambda: (b'a:1\n[aliases]\n"a" = "docker.io/library/a"\nb = ""\n',),
        _TOML_WORDS,
    ),
    Target("hosts-toml", _hosts, _CONFIGURATION, _toml, (*_TOML_WORDS, b'[host."https://', b"capabilities", b"client")),
    Target(
        "auth-file",
        _auth_file,
        _CONFIGURATION,
        lambda: (
            b"-" + _AUTHS,
            *(b'-{"x": ' + deep(depth) + b"}" for depth in (300, 1000)),
            b"l" + b'{"a.example": {"auth": "bWU6c2VjcmV0", "identitytoken": "x"}}',
            b"-{}",
        ),
        (b'"auths"', b'"auth"', b'"identitytoken"', b'"new.example"', b"\\udc80", b"1e999", b"NaN"),
        memory=(32 << 20, 400),  # what is nested a thousand times is indented as often
    ),
    Target("login-key", _login, (UsageError,), lambda: (b"https://u@a.example/v1/", b"a.example:5/b/c"), (b"http://",)),
    Target(
        "proxies",
        _proxies,
        _CONFIGURATION,
        lambda: (b"http://u:p@proxy.example:3128\n10.0.0.0/8,.example:5,[::1]:5,*", b"proxy:1\n*.b.example, ::1"),
        (b"https://", b"socks5://", b"/33"),
    ),
    Target(
        "url", _url, (ValueError,), lambda: (b"https://u:p@a.example:5/b?c#d", b"http://[::1]/"), (b"//", b"[", b"@")
    ),
    Target(
        "daemon",
        _daemon,
        _CONFIGURATION,
        lambda: (
            b"unix:///run/x\n1.41",
            b"tcp://a.example:2376/x\n1",
            b"https://[::1]\n2.0",
            b"unix:///x\n1." + DIGITS,
        ),
        (b"http://", b"ssh://", b"npipe://"),
    ),
)
