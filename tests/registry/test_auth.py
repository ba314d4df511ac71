"""Challenges, and the token dance as a conversation."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncpull.errors import AuthenticationError, DocumentError, TemporaryError, UnavailableError
from asyncpull.registry.auth import Authorization, Challenge, TokenAnswer, TokenRequest, authorize, parse_challenges
from asyncpull.registry.credentials import Credentials

NOW = datetime(2024, 5, 1, tzinfo=UTC)
ME = Credentials("me", "secret")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ('Basic realm="x"', [("basic", {"realm": "x"})]),
        ('Bearer realm="https://a/t",service="s"', [("bearer", {"realm": "https://a/t", "service": "s"})]),
        ('BEARER Realm = "a" , SCOPE="b c"', [("bearer", {"realm": "a", "scope": "b c"})]),
        ('Bearer realm="a,b=c",scope="x"', [("bearer", {"realm": "a,b=c", "scope": "x"})]),
        (r'Bearer realm="a\"b\\c"', [("bearer", {"realm": r'a"b\c'})]),
        ("Bearer realm=bare", [("bearer", {"realm": "bare"})]),
        (
            'Basic realm="x", Bearer realm="y", service="s"',
            [("basic", {"realm": "x"}), ("bearer", {"realm": "y", "service": "s"})],
        ),
        ('Negotiate, Basic realm="x"', [("negotiate", {}), ("basic", {"realm": "x"})]),
        ('NTLM TlRMTVNTUAAC==, Basic realm="x"', [("ntlm", {}), ("basic", {"realm": "x"})]),
        ('Bearer realm="a",realm="b"', [("bearer", {"realm": "a"})]),
        ('Bearer realm="open', [("bearer", {})]),
        ("", []),
        (", ,", []),
        ('=="', []),
    ],
)
def test_challenges(value: str, expected: list[tuple[str, dict[str, str]]]) -> None:
    assert parse_challenges([value]) == tuple(Challenge(scheme, parameters) for scheme, parameters in expected)


def test_several_headers_are_several_challenges() -> None:
    assert [item.scheme for item in parse_challenges(['Basic realm="x"', 'Bearer realm="y"'])] == ["basic", "bearer"]


@given(st.lists(st.text(alphabet='Bearer realm=",\\ =x:/', max_size=40)))
def test_nonsense_is_parsed_to_something(values: list[str]) -> None:
    for challenge in parse_challenges(values):
        assert challenge.scheme == challenge.scheme.lower() != ""


def answer(body: object, status: int = 200) -> TokenAnswer:
    return TokenAnswer(status, {}, json.dumps(body).encode(), NOW)


def dance(
    challenge: str,
    reply: TokenAnswer | None = None,
    credentials: Credentials | None = None,
    *,
    plain_http: bool = False,
) -> tuple[list[TokenRequest], Authorization]:
    """Have the whole conversation; return the requests and the result."""
    conversation = authorize(parse_challenges([challenge]), "a/b", "example.org", credentials, plain_http=plain_http)
    requests: list[TokenRequest] = []
    try:
        requests.append(next(conversation))
        while True:
            requests.append(conversation.send(reply or answer({"token": "t"})))
    except StopIteration as end:
        result: Authorization = end.value
        return requests, result


def test_basic_goes_without_a_request() -> None:
    assert dance('Basic realm="x"', credentials=ME) == ([], Authorization("Basic bWU6c2VjcmV0"))


@pytest.mark.parametrize("challenge", ['Basic realm="x"', "Negotiate", 'Bearer service="no realm"'])
def test_where_nothing_can_be_done(challenge: str) -> None:
    with pytest.raises(AuthenticationError, match=r"example\.org"):
        dance(challenge)


def test_bearer_asks_for_a_token() -> None:
    [request], result = dance('Bearer realm="https://auth.example.org/t?x=1#y",service="s p"', credentials=ME)
    parts = urlsplit(request.url)
    assert f"{parts.scheme}://{parts.netloc}{parts.path}" == "https://auth.example.org/t"
    assert parse_qs(parts.query) == {
        "x": ["1"],
        "account": ["me"],
        "service": ["s p"],
        "scope": ["repository:a/b:pull"],
    }
    assert request.authorization == ME.basic()
    assert result == Authorization("Bearer t", 60.0)
    assert "secret" not in repr(request) + repr(result)
    assert "Bearer t" not in repr(result)


@pytest.mark.parametrize(
    ("asked", "scopes"),
    [
        ("", ["repository:a/b:pull"]),
        ("repository:a/b:pull", ["repository:a/b:pull"]),
        ("repository:a/b:pull,push", ["repository:a/b:pull"]),
        ("repository:a/b:push registry:catalog:*", ["repository:a/b:pull"]),
        ("repository:group/a/b:pull", ["repository:a/b:pull", "repository:group/a/b:pull"]),
        ("repository:host:5000/a/b:pull,delete", ["repository:a/b:pull", "repository:host:5000/a/b:pull"]),
        ("repository:a/b:*", ["repository:a/b:pull"]),
    ],
)
def test_only_pulling_is_asked_for(asked: str, scopes: list[str]) -> None:
    [request], _ = dance(f'Bearer realm="https://h/t",scope="{asked}"')
    assert parse_qs(urlsplit(request.url).query)["scope"] == scopes


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"token": "t", "access_token": "u", "expires_in": 300}, Authorization("Bearer t", 300.0)),
        ({"access_token": "u"}, Authorization("Bearer u", 60.0)),
        ({"token": "", "access_token": "u", "expires_in": 5}, Authorization("Bearer u", 60.0)),
        ({"token": "t", "expires_in": -5}, Authorization("Bearer t", 60.0)),
    ],
)
def test_tokens(body: dict[str, object], expected: Authorization) -> None:
    assert dance('Bearer realm="https://h/t"', answer(body))[1] == expected


@pytest.mark.parametrize("body", [{}, {"token": ""}, {"token": 7}, [], {"token": "a\r\nb"}, {"token": "\u00e9"}])
def test_answers_without_a_token(body: object) -> None:
    with pytest.raises(DocumentError, match="the token from h"):
        dance('Bearer realm="https://h/t"', answer(body))


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, AuthenticationError), (403, AuthenticationError), (429, TemporaryError), (500, UnavailableError)],
)
def test_a_token_server_that_refuses(status: int, kind: type[Exception]) -> None:
    with pytest.raises(kind, match=f"a token for a/b: h answers {status}: no"):
        dance('Bearer realm="https://h/t"', answer({"details": "no"}, status))


@pytest.mark.parametrize("realm", ["/token", "ftp://h/t", "https://", "https://h:99999/t", "https://h:0/t", "nonsense"])
def test_realms_that_are_no_urls(realm: str) -> None:
    with pytest.raises(AuthenticationError, match="no http or https URL"):
        dance(f'Bearer realm="{realm}"', plain_http=True)


@pytest.mark.parametrize("credentials", [None, ME])
def test_a_token_is_not_asked_for_in_the_clear_unless_the_registry_is(credentials: Credentials | None) -> None:
    with pytest.raises(AuthenticationError, match="plain http, h, which is refused"):
        dance('Bearer realm="http://h/t"', credentials=credentials)
    assert dance('Bearer realm="http://h/t"', credentials=credentials, plain_http=True)[0][0].url.startswith("http://h")
