"""Challenges, and the token dance as a conversation."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncpull.errors import AuthenticationError, DocumentError, TemporaryError, UnavailableError
from asyncpull.registry.auth import (
    Authorization,
    Challenge,
    Scope,
    TokenAnswer,
    TokenRequest,
    asked_scopes,
    authorize,
    is_insufficient,
    parse_challenges,
    parse_scopes,
)
from asyncpull.registry.credentials import Credentials

if TYPE_CHECKING:
    from collections.abc import Mapping

NOW = datetime(2024, 5, 1, tzinfo=UTC)
ME = Credentials("me", "secret")
TOKEN_BEARER = Credentials("", "", "sesame")
PULL = Scope("repository", "a/b", ("pull",))


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


def answer(body: object, status: int = 200, headers: Mapping[str, str] | None = None) -> TokenAnswer:
    return TokenAnswer(status, headers or {}, json.dumps(body).encode(), NOW)


def dance(
    challenge: str,
    *replies: TokenAnswer,
    credentials: Credentials | None = None,
    scopes: tuple[Scope, ...] = (PULL,),
    plain_http: bool = False,
    withheld: str | None = None,
) -> tuple[list[TokenRequest], Authorization]:
    """Have the whole conversation; return the requests and the result."""
    conversation = authorize(
        parse_challenges([challenge]), scopes, "example.org", credentials, plain_http=plain_http, withheld=withheld
    )
    requests: list[TokenRequest] = []
    answers = iter(replies or [answer({"token": "t"})])
    try:
        requests.append(next(conversation))
        while True:
            requests.append(conversation.send(next(answers)))
    except StopIteration as end:
        result: Authorization = end.value
        return requests, result


def form(request: TokenRequest) -> dict[str, list[str]]:
    assert request.form is not None
    return parse_qs(request.form.decode())


def test_basic_goes_without_a_request() -> None:
    assert dance('Basic realm="x"', credentials=ME) == ([], Authorization("Basic bWU6c2VjcmV0"))


@pytest.mark.parametrize("challenge", ['Basic realm="x"', "Negotiate", 'Bearer service="no realm"'])
def test_where_nothing_can_be_done(challenge: str) -> None:
    with pytest.raises(AuthenticationError, match=r"example\.org"):
        dance(challenge)


def test_an_identity_token_is_no_password_for_basic() -> None:
    with pytest.raises(AuthenticationError, match="an identity token only"):
        dance('Basic realm="x"', credentials=TOKEN_BEARER)


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
    assert (request.method, request.authorization, request.form) == ("GET", ME.basic(), None)
    assert result == Authorization("Bearer t", 60.0)
    assert "secret" not in repr(request) + repr(result)
    assert "Bearer t" not in repr(result)


def test_several_scopes_are_several_parameters_or_words() -> None:
    scopes = (PULL, Scope("repository", "c", ("pull", "push")))
    [request], _ = dance('Bearer realm="https://h/t"', scopes=scopes)
    assert parse_qs(urlsplit(request.url).query) == {"scope": ["repository:a/b:pull", "repository:c:pull,push"]}
    [request], _ = dance('Bearer realm="https://h/t"', scopes=scopes, credentials=TOKEN_BEARER)
    assert form(request)["scope"] == ["repository:a/b:pull repository:c:pull,push"]
    [request], _ = dance('Bearer realm="https://h/t"', scopes=())
    assert request.url == "https://h/t"


def test_what_is_no_text_goes_back_as_the_bytes_that_it_was() -> None:
    service = b"caf\xe9".decode(errors="surrogateescape")  # as a header is given
    [request], _ = dance(f'Bearer realm="https://h/t",service="{service}"')
    assert "service=caf%E9&" in request.url


def test_an_identity_token_is_posted() -> None:
    reply = answer({"access_token": "t", "expires_in": 900, "refresh_token": "another"})
    [request], result = dance('Bearer realm="https://h/t?x=1",service="s p"', reply, credentials=TOKEN_BEARER)
    assert (request.method, request.url, request.authorization) == ("POST", "https://h/t?x=1", None)
    assert request.headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert form(request) == {
        "grant_type": ["refresh_token"],
        "refresh_token": ["sesame"],
        "service": ["s p"],
        "client_id": ["asyncpull"],
        "scope": ["repository:a/b:pull"],
    }
    assert result == Authorization("Bearer t", 900.0)
    assert "sesame" not in repr(request)


@pytest.mark.parametrize(
    ("credentials", "sent"),
    [
        (TOKEN_BEARER, Credentials("", "sesame")),
        (Credentials("me", "", "sesame"), Credentials("me", "sesame")),
        (Credentials("me", "secret", "sesame"), Credentials("me", "secret")),
    ],
)
@pytest.mark.parametrize("status", [404, 405])
def test_a_server_that_knows_no_post_is_asked_by_get(status: int, credentials: Credentials, sent: Credentials) -> None:
    post, get = dance(
        'Bearer realm="https://h/t"', answer({}, status), answer({"token": "t"}), credentials=credentials
    )[0]
    assert (post.method, post.authorization, get.method) == ("POST", None, "GET")
    assert get.authorization == sent.basic()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("repository:a/b:pull", [PULL]),
        (
            "repository:a/b:pull,push registry:catalog:*",
            [("repository", "a/b", "pull,push"), ("registry", "catalog", "*")],
        ),
        ("repository:host:5000/a/b:pull", [("repository", "host:5000/a/b", "pull")]),
        ("repository(plugin):a/b:pull", [("repository(plugin)", "a/b", "pull")]),
        ("repository:a/b pull ::: repository::pull", []),
    ],
)
def test_scopes(text: str, expected: list[Scope | tuple[str, str, str]]) -> None:
    wanted = [
        each if isinstance(each, Scope) else Scope(each[0], each[1], tuple(each[2].split(","))) for each in expected
    ]
    assert list(parse_scopes(text)) == wanted
    assert parse_scopes(" ".join(map(str, wanted))) == tuple(wanted)


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
def test_only_what_we_do_anyway_is_asked_for(asked: str, scopes: list[str]) -> None:
    challenges = parse_challenges([f'Bearer realm="https://h/t",scope="{asked}"'])
    assert [*map(str, asked_scopes(challenges, (PULL,)))] == scopes
    assert asked_scopes(challenges, ()) == ()


def test_a_registry_cannot_have_us_ask_for_any_number_of_scopes() -> None:
    names = " ".join(f"repository:r{number}:pull" for number in range(1000))
    challenges = parse_challenges([f'Bearer realm="https://h/t",scope="{names} repository:{"x" * 301}:pull"'])
    first = asked_scopes(challenges, (PULL,))
    assert (len(first), first[0]) == (16, PULL)
    assert asked_scopes(challenges, first) == first


@pytest.mark.parametrize(
    ("status", "challenge", "expected"),
    [
        (401, 'Bearer realm="https://h/t",error="insufficient_scope"', True),
        (403, 'Bearer realm="https://h/t",error="insufficient_scope"', True),
        (404, 'Bearer realm="https://h/t",error="insufficient_scope"', False),
        (401, 'Bearer realm="https://h/t",error="invalid_token"', False),
        (401, 'Bearer realm="https://h/t"', False),
        (401, 'Basic realm="h",error="insufficient_scope"', False),
    ],
)
def test_insufficient_scope(status: int, challenge: str, expected: bool) -> None:
    assert is_insufficient(status, parse_challenges([challenge])) is expected


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


@pytest.mark.parametrize(
    ("issued_at", "date", "lifetime"),
    [
        ("2024-05-01T00:00:00Z", None, 300.0),
        ("2024-04-30T23:59:00Z", None, 240.0),
        ("2024-04-30T23:59:00.123456789Z", None, 240.123457),
        ("2024-05-01T01:59:00+02:00", None, 240.0),
        # The clock of the server is another than ours, and its own is the one to tell the age by.
        ("2031-01-01T00:00:00Z", "Wed, 01 Jan 2031 00:00:50 GMT", 250.0),
        # Clocks that differ, where the server does not tell the time.
        ("2031-01-01T00:00:00Z", None, 300.0),
        ("2020-01-01T00:00:00Z", None, 300.0),
        ("2024-04-30T23:59:00Z", "noon", 300.0),
        ("2024-04-30T23:59:00Z", "Wed, 01 May 24444444444 12:00:30 GMT", 300.0),
        ("noon", None, 300.0),
        ("", None, 300.0),
    ],
)
def test_a_token_may_be_older_than_the_answer(issued_at: str, date: str | None, lifetime: float) -> None:
    reply = answer({"token": "t", "expires_in": 300, "issued_at": issued_at}, headers={"Date": date} if date else {})
    result = dance('Bearer realm="https://h/t"', reply)[1]
    assert result.lifetime == pytest.approx(lifetime)


@pytest.mark.parametrize("body", [{}, {"token": ""}, {"token": 7}, [], {"token": "a\r\nb"}, {"token": "\u00e9"}])
def test_answers_without_a_token(body: object) -> None:
    with pytest.raises(DocumentError, match="the token from h"):
        dance('Bearer realm="https://h/t"', answer(body))


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, AuthenticationError), (403, AuthenticationError), (429, TemporaryError), (500, UnavailableError)],
)
@pytest.mark.parametrize("credentials", [None, ME, TOKEN_BEARER])
def test_a_token_server_that_refuses(status: int, kind: type[Exception], credentials: Credentials | None) -> None:
    with pytest.raises(kind, match=f"a token for a/b: h answers {status}: no"):
        dance('Bearer realm="https://h/t"', answer({"details": "no"}, status), credentials=credentials)


@pytest.mark.parametrize("status", [404, 410, 415])
def test_a_token_server_that_has_nothing_there_says_nothing_of_the_image(status: int) -> None:
    with pytest.raises(UnavailableError, match=f"a token for a/b: h answers {status}: no") as caught:
        dance('Bearer realm="https://h/t"', answer({"details": "no"}, status))
    assert caught.value.hint is None


def test_a_refusal_says_that_credentials_were_held_back() -> None:
    with pytest.raises(AuthenticationError, match="h answers 401") as caught:
        dance('Bearer realm="https://h/t"', answer({}, 401), withheld="they were not sent")
    assert caught.value.hint == "they were not sent"
    with pytest.raises(TemporaryError) as later:
        dance('Bearer realm="https://h/t"', answer({}, 429), withheld="they were not sent")
    assert later.value.hint != "they were not sent"


@pytest.mark.parametrize("credentials", [None, ME, TOKEN_BEARER])
def test_the_rules_for_realms_hold_for_all(credentials: Credentials | None) -> None:
    for realm in ("http://h/t", "nonsense", "https://me@h/t"):
        with pytest.raises(AuthenticationError, match=r"example\.org names a token server"):
            dance(f'Bearer realm="{realm}"', credentials=credentials)
    dance('Bearer realm="http://h/t"', credentials=credentials, plain_http=True)
