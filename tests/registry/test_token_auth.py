"""Debian's docker-registry with tokens from a server of their own: the whole dance, between real parts."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import TYPE_CHECKING

import pytest

from asyncpull.errors import AuthenticationError
from asyncpull.http import HttpTimeouts
from asyncpull.registry.client import RegistryClient
from asyncpull.registry.config import RegistryAccess
from asyncpull.registry.credentials import Credentials
from asyncpull.retry import RetryPolicy
from asyncpull.source.registry import RegistrySource
from asyncpull.spec.digest import Digest
from asyncpull.spec.manifest import CONFIG_LIMIT, Descriptor
from asyncpull.spec.reference import parse_reference
from tests.support.docker_registry import docker_registry, is_installed
from tests.support.images import image, noise
from tests.support.token_server import SERVICE, TokenAuthority, TokenServer, token_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from asyncpull.spec.reference import Reference

pytestmark = pytest.mark.skipif(not is_installed(), reason="docker-registry is not installed")

BUILT = image([noise(1, 10_000)], compression="none")
CONFIG = Descriptor("", Digest.parse(BUILT.config.digest), len(BUILT.config.data))


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> TokenAuthority:
    return TokenAuthority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a registry that has an image."""
    directory = tmp_path_factory.mktemp("registry")
    with docker_registry(directory) as registry:
        registry.push("a/b", "t", BUILT)
    return directory


@pytest.fixture
def served(authority: TokenAuthority, stored: Path) -> Iterator[tuple[TokenServer, Reference]]:
    """A token server that knows me, whose password is secret, and the image in the registry that wants its tokens."""
    with token_server(authority) as tokens, docker_registry(stored, auth=tokens.configuration) as registry:
        tokens.users["me"] = "secret"
        tokens.grants |= {None: {}, "me": {"a/b": {"pull"}}, "you": {}}
        yield tokens, parse_reference(f"{registry.address}/a/b:t")


def logged_in(home: Path, reference: Reference, user: str, password: str, **more: str) -> RegistryClient:
    path = home / "auth.json"
    entry = {"auth": base64.b64encode(f"{user}:{password}".encode()).decode(), **more}
    path.write_text(json.dumps({"auths": {reference.domain: entry}}))
    return client(home, path)


def client(home: Path, authfile: Path | None = None) -> RegistryClient:
    return RegistryClient(
        RegistryAccess(tls_verify=False, authfile=authfile),
        timeouts=HttpTimeouts(connect=5, headers=5, idle=5),
        retry=RetryPolicy(attempts=1, first_seconds=0.0),
        environ={"HOME": str(home)},
    )


async def pull(asking: RegistryClient, reference: Reference) -> None:
    source = RegistrySource(asking, reference)
    assert (await source.manifest()).raw == BUILT.manifest.data
    assert await source.blob_bytes(CONFIG, CONFIG_LIMIT) == BUILT.config.data


async def test_nobody_may_pull_what_everybody_may(tmp_path: Path, served: tuple[TokenServer, Reference]) -> None:
    tokens, reference = served
    tokens.grants[None] = {"a/b": {"pull"}}
    async with client(tmp_path) as asking:
        await pull(asking, reference)
    [asked] = tokens.requests
    assert (asked.method, asked.user, asked.authorization) == ("GET", None, "")
    assert asked.parameters == {"service": [SERVICE], "scope": ["repository:a/b:pull"]}


async def test_a_user_with_a_password(tmp_path: Path, served: tuple[TokenServer, Reference]) -> None:
    tokens, reference = served
    async with logged_in(tmp_path, reference, "me", "secret") as asking:
        await pull(asking, reference)
    assert [(asked.method, asked.user) for asked in tokens.requests] == [("GET", "me")]
    assert tokens.requests[0].parameters["account"] == ["me"]


async def test_many_at_once_ask_for_one_token(tmp_path: Path, served: tuple[TokenServer, Reference]) -> None:
    tokens, reference = served
    async with logged_in(tmp_path, reference, "me", "secret") as asking:
        await asyncio.gather(*(pull(asking, reference) for _ in range(20)))
    assert len(tokens.requests) == 1


@pytest.mark.parametrize("knows_post", [True, False])
@pytest.mark.parametrize("user", ["me", ""])
async def test_an_identity_token(
    tmp_path: Path, served: tuple[TokenServer, Reference], user: str, knows_post: bool
) -> None:
    tokens, reference = served
    tokens.refresh_tokens["sesame"] = "me"
    tokens.knows_post = knows_post
    async with logged_in(tmp_path, reference, user, "", identitytoken="sesame") as asking:
        await pull(asking, reference)
    assert [(asked.method, asked.status) for asked in tokens.requests] == (
        [("POST", 200)] if knows_post else [("POST", 405), ("GET", 200)]
    )
    assert tokens.requests[-1].user == "me"
    assert tokens.requests[0].parameters["scope"] == ["repository:a/b:pull"]


@pytest.mark.parametrize("more", [{}, {"identitytoken": "wrong-sesame"}])
async def test_wrong_credentials(tmp_path: Path, served: tuple[TokenServer, Reference], more: dict[str, str]) -> None:
    tokens, reference = served
    async with logged_in(tmp_path, reference, "me", "wrong-secret", **more) as asking:
        with pytest.raises(AuthenticationError, match=r"a token for a/b: .* answers 401: incorrect username") as caught:
            await pull(asking, reference)
    assert len(tokens.requests) == 1
    assert "wrong-s" not in str(caught.value) + repr(caught.value)


async def test_a_token_that_allows_too_little_is_not_asked_for_twice(
    tmp_path: Path, served: tuple[TokenServer, Reference]
) -> None:
    tokens, reference = served
    tokens.users["you"] = "secret"
    async with logged_in(tmp_path, reference, "you", "secret") as asking:
        with pytest.raises(AuthenticationError, match="answers 401: authentication required"):
            await pull(asking, reference)
    assert len(tokens.requests) == 1


async def test_a_token_is_asked_for_anew_before_it_expires(
    tmp_path: Path, served: tuple[TokenServer, Reference]
) -> None:
    tokens, reference = served
    tokens.lifetime, tokens.age = 60, 47  # 13 seconds are left, of which the last ten are not used
    async with logged_in(tmp_path, reference, "me", "secret") as asking:
        await pull(asking, reference)
        assert len(tokens.requests) == 1
        await asyncio.sleep(3.1)
        await pull(asking, reference)
    assert len(tokens.requests) == 2


async def test_a_token_that_expired_sooner_is_replaced(tmp_path: Path, served: tuple[TokenServer, Reference]) -> None:
    tokens, reference = served
    tokens.left = 4
    async with logged_in(tmp_path, reference, "me", "secret") as asking:
        await pull(asking, reference)
        await asyncio.sleep(4.2)
        tokens.left = None
        await pull(asking, reference)
    assert len(tokens.requests) == 2


async def test_a_login_is_checked(tmp_path: Path, served: tuple[TokenServer, Reference]) -> None:
    tokens, reference = served
    async with client(tmp_path) as asking:
        await asking.check_login(reference.domain, Credentials("me", "secret"))
        with pytest.raises(AuthenticationError, match="answers 401"):
            await asking.check_login(reference.domain, Credentials("me", "wrong"))
        with pytest.raises(AuthenticationError, match="answers 401"):
            await asking.check_login(reference.domain, Credentials("nobody", "secret"))
    assert [asked.parameters for asked in tokens.requests[:1]] == [{"account": ["me"], "service": [SERVICE]}]


async def test_a_foreign_realm_is_told_no_password(tmp_path: Path, served: tuple[TokenServer, Reference]) -> None:
    tokens, reference = served
    # By another name the registry is another site than the address that it names.
    port = reference.domain.rpartition(":")[2]
    by_name = parse_reference(f"localhost:{port}/a/b:t")
    realm_host = tokens.realm.split("/")[2]
    async with logged_in(tmp_path, by_name, "me", "secret") as asking:
        with pytest.raises(AuthenticationError) as caught:
            await pull(asking, by_name)
        assert caught.value.hint is not None
        assert f"localhost:{port} were not sent to {realm_host}" in caught.value.hint
        assert f'"{realm_host}/localhost:{port}" in auth.json' in caught.value.hint
        with pytest.raises(AuthenticationError, match="could not be asked") as unchecked:
            await asking.check_login(by_name.domain, Credentials("me", "secret"))
        assert "were not sent" in (unchecked.value.hint or "")
        tokens.grants[None] = {"a/b": {"pull"}}
        await pull(asking, by_name)
    assert {asked.authorization for asked in tokens.requests} == {""}
    tokens.grants[None] = {}
    # What the error says helps.
    authfile = tmp_path / "auth.json"
    document = json.loads(authfile.read_text())
    document["auths"][f"{realm_host}/localhost:{port}"] = document["auths"].pop(by_name.domain)
    authfile.write_text(json.dumps(document))
    async with client(tmp_path, authfile) as asking:
        await pull(asking, by_name)
    assert tokens.requests[-1].user == "me"
    # The realm's host alone is not enough: it may be a registry too, which this one would get tokens for.
    document["auths"][realm_host] = document["auths"].pop(f"{realm_host}/localhost:{port}")
    authfile.write_text(json.dumps(document))
    async with client(tmp_path, authfile) as asking:
        with pytest.raises(AuthenticationError):
            await pull(asking, by_name)
    assert tokens.requests[-1].authorization == ""
