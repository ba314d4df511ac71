"""What opens a repository: when another key is asked for, and whom the credentials are sent to."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast
from urllib.parse import parse_qs, urlsplit

import pytest

from asyncpull.addresses import addresses_of
from asyncpull.errors import AuthenticationError, NotFoundError
from asyncpull.registry.auth import Scope, parse_challenges
from asyncpull.registry.credentials import AuthPath, Credentials, Keyring
from asyncpull.registry.door import Door, Visit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from asyncpull.http import HttpResponse
    from asyncpull.registry.auth import Challenge, TokenRequest

PULL = Scope("repository", "a/b", ("pull",))
OTHER = "repository:group/c:pull"
ME = Keyring(given=Credentials("me", "secret"))


def challenge(realm: str = "https://auth.example.org/t", **parameters: str) -> tuple[Challenge, ...]:
    return parse_challenges([f'Bearer realm="{realm}",' + ",".join(f'{k}="{v}"' for k, v in parameters.items())])


FIRST = challenge()
INSUFFICIENT = challenge(error="insufficient_scope", scope=f"repository:a/b:pull {OTHER}")


@dataclass
class Server:
    """A token server: what was asked, and what names lead to."""

    requests: list[TokenRequest] = field(default_factory=list)
    addresses: dict[str, Sequence[str]] = field(default_factory=dict)
    expires_in: int = 300
    gate: asyncio.Event | None = None

    @asynccontextmanager
    async def ask(self, request: TokenRequest) -> AsyncIterator[HttpResponse]:
        self.requests.append(request)
        if self.gate is not None:
            await self.gate.wait()
        yield cast("HttpResponse", _Response(f"t{len(self.requests)}", self.expires_in))

    async def resolve(self, name: str) -> Sequence[str]:
        return self.addresses.get(name, ["8.8.8.8"])

    async def unlock(self, door: Door, visit: Visit, challenges: Sequence[Challenge], keyring: Keyring = ME) -> None:
        await door.unlock(visit, challenges, keyring, self.ask, plain_http=False, resolve=self.resolve)

    @property
    def scopes(self) -> list[list[str]]:
        return [parse_qs(urlsplit(request.url).query).get("scope", []) for request in self.requests]


@dataclass
class _Response:
    token: str
    expires_in: int
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)

    async def read(self, limit: int, what: str) -> bytes:
        return json.dumps({"token": self.token, "expires_in": self.expires_in}).encode()


def door() -> Door:
    return Door("example.org", "example.org/a/b", (PULL,))


async def test_a_key_is_asked_for_once_and_then_refused() -> None:
    server, opened = Server(), door()
    visit = Visit(opened)
    assert visit.key() is None
    assert not visit.is_worth_asking(404, FIRST)
    assert not visit.is_worth_asking(401, ())
    assert visit.is_worth_asking(401, FIRST)
    await server.unlock(opened, visit, FIRST)
    assert visit.key() == "Bearer t1"
    assert not visit.is_worth_asking(401, FIRST)
    assert opened.key() is None
    assert "t1" not in repr(opened) + repr(visit)


async def test_a_wider_scope_is_asked_for_exactly_once() -> None:
    server, opened = Server(), door()
    visit = Visit(opened)
    visit.key()
    assert visit.is_worth_asking(401, FIRST)
    await server.unlock(opened, visit, FIRST)
    visit.key()
    assert visit.is_worth_asking(403, INSUFFICIENT)
    await server.unlock(opened, visit, INSUFFICIENT)
    assert visit.key() == "Bearer t2"
    further = challenge(error="insufficient_scope", scope="repository:group/d:pull")
    assert not visit.is_worth_asking(403, further)
    assert server.scopes == [["repository:a/b:pull"], ["repository:a/b:pull", OTHER]]
    # From then on the wider one is asked for at once.
    later = Visit(opened)
    later.key()
    assert later.is_worth_asking(401, FIRST)
    await server.unlock(opened, later, FIRST)
    assert server.scopes[-1] == ["repository:a/b:pull", OTHER]


@pytest.mark.parametrize("scope", ["", "repository:a/b:pull", "repository:a/b:pull,push", "registry:catalog:*"])
async def test_what_would_not_be_wider_is_not_asked_for(scope: str) -> None:
    server, opened = Server(), door()
    visit = Visit(opened)
    visit.key()
    await server.unlock(opened, visit, FIRST)
    visit.key()
    assert not visit.is_worth_asking(403, challenge(error="insufficient_scope", scope=scope))


async def test_a_key_that_is_gone_meanwhile_is_replaced() -> None:
    server, opened = Server(), door()
    visits = [Visit(opened), Visit(opened)]
    visits[0].key()
    await server.unlock(opened, visits[0], FIRST)
    for visit in visits:
        visit.key()
    # The one is refused for good, and the key forgotten, before the other asks.
    assert visits[0].is_worth_asking(401, FIRST)
    assert not visits[0].is_worth_asking(401, FIRST)
    assert visits[1].is_worth_asking(401, FIRST)
    await server.unlock(opened, visits[1], FIRST)
    assert visits[1].key() == "Bearer t2"


async def test_insufficient_without_a_key_is_a_plain_refusal() -> None:
    visit = Visit(door())
    assert visit.key() is None
    assert visit.is_worth_asking(401, INSUFFICIENT)
    assert not visit.is_worth_asking(401, INSUFFICIENT)


async def test_many_visitors_ask_once_for_each_scope() -> None:
    server, opened = Server(gate=asyncio.Event()), door()
    assert server.gate is not None

    async def enter(challenges: Sequence[Challenge]) -> Visit:
        visit = Visit(opened)
        visit.key()
        assert visit.is_worth_asking(401, challenges)
        await server.unlock(opened, visit, challenges)
        visit.key()
        return visit

    entering = [asyncio.ensure_future(enter(FIRST)) for _ in range(10)]
    await asyncio.sleep(0)
    server.gate.set()
    visits = await asyncio.gather(*entering)
    assert {visit.sent for visit in visits} == {"Bearer t1"}
    server.gate.clear()
    assert all(visit.is_worth_asking(403, INSUFFICIENT) for visit in visits)
    widening = [asyncio.ensure_future(server.unlock(opened, visit, INSUFFICIENT)) for visit in visits]
    await asyncio.sleep(0)
    server.gate.set()
    await asyncio.gather(*widening)
    assert {visit.key() for visit in visits} == {"Bearer t2"}
    assert len(server.requests) == 2


async def test_a_visitor_who_leaves_hands_the_asking_on() -> None:
    server, opened = Server(gate=asyncio.Event()), door()
    assert server.gate is not None
    visits = [Visit(opened), Visit(opened)]
    tasks = [asyncio.ensure_future(server.unlock(opened, visit, FIRST)) for visit in visits]
    await asyncio.sleep(0.01)
    tasks[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await tasks[0]
    server.gate.set()
    await tasks[1]
    assert (visits[1].key(), len(server.requests)) == ("Bearer t2", 2)


@pytest.mark.parametrize(
    ("realm", "addresses", "sent", "hint"),
    [
        ("https://example.org/t", {}, True, None),
        ("https://example.org:8443/t", {"example.org": ["10.0.0.1"]}, True, None),
        ("https://auth.example.org/t", {}, True, None),
        ("https://auth.example.org/t", {"auth.example.org": []}, True, None),
        ("https://auth.example.org/t", {"auth.example.org": ["10.0.0.1"], "example.org": ["10.0.0.2"]}, True, None),
        ("https://auth.example.com/t", {}, False, "another site"),
        ("https://10.0.0.1/t", {}, False, "another site"),
        ("https://10.0.0.1/t", {"example.org": ["10.0.0.1"]}, False, "another site"),
    ],
)
async def test_whom_credentials_are_sent_to(
    realm: str, addresses: dict[str, Sequence[str]], sent: bool, hint: str | None
) -> None:
    server, opened = Server(addresses=addresses), door()
    await server.unlock(opened, Visit(opened), challenge(realm))
    assert (server.requests[0].authorization is not None) == sent
    assert "account" in server.requests[0].url or not sent
    error = opened.explained(AuthenticationError("refused", "log in"))
    assert (hint or "log in") in (error.hint or "")
    assert error.message == "refused"
    missing = NotFoundError("missing")
    assert opened.explained(missing) is missing


async def test_without_credentials_nothing_is_held_back() -> None:
    server, opened = Server(), door()
    await server.unlock(opened, Visit(opened), challenge("https://auth.example.com/t"), Keyring())
    assert opened.withheld is None
    assert server.requests[0].authorization is None


@pytest.mark.parametrize(
    ("key", "sent"),
    [
        ("auth.example.com/example.org", True),
        ("auth.example.com", False),
        ("auth.example.com/example.net", False),
        ("auth.example.com/example.org/a", False),
        ("example.org/auth.example.com", False),
    ],
)
async def test_a_foreign_realm_is_allowed_by_name_and_then_told_our_own_scope_only(
    tmp_path: Path, key: str, sent: bool
) -> None:
    (tmp_path / "auth.json").write_text(json.dumps({"auths": {key: {"auth": "bWU6c2VjcmV0"}}}))
    keyring = Keyring((AuthPath(tmp_path / "auth.json"),))
    server, opened = Server(), door()
    asked = challenge("https://auth.example.com/t", scope=OTHER)
    await server.unlock(opened, Visit(opened), asked, keyring)
    assert (server.requests[0].authorization is not None) == sent
    assert server.scopes == [["repository:a/b:pull"] if sent else ["repository:a/b:pull", OTHER]]


@pytest.mark.parametrize("addresses", [["10.0.0.1"], ["8.8.8.8", "169.254.169.254"], ["::1"]])
@pytest.mark.parametrize("realm", ["auth.example.org", "auth.example.com"])
async def test_a_realm_in_here_of_a_registry_out_there_is_not_asked(
    tmp_path: Path, realm: str, addresses: list[str]
) -> None:
    """Neither with credentials, also of an entry that allows it, nor without: its answer would become a token."""
    key = "auth.example.com/example.org"
    (tmp_path / "auth.json").write_text(json.dumps({"auths": {key: {"auth": "bWU6c2VjcmV0"}}}))
    for keyring in (Keyring(), ME, Keyring((AuthPath(tmp_path / "auth.json"),))):
        server, opened = Server(addresses={realm: addresses}), door()
        with pytest.raises(AuthenticationError, match="private address"):
            await server.unlock(opened, Visit(opened), challenge(f"https://{realm}/t"), keyring)
        assert server.requests == []


async def test_names_lead_to_addresses_by_the_resolver_of_this_machine() -> None:
    server, opened = Server(), Door("registry.localhost.invalid", "registry.localhost.invalid/a/b", (PULL,))
    await opened.unlock(Visit(opened), challenge("https://auth.localhost.invalid/t"), ME, server.ask, plain_http=False)
    assert server.requests[0].authorization is not None
    assert await addresses_of("localhost")
    assert set(await addresses_of("localhost")) <= {"127.0.0.1", "::1"}
    assert await addresses_of("127.1") == await addresses_of("127.0.0.1")
    assert list(await addresses_of("nothing.invalid")) == list(await addresses_of("x" * 300)) == []
