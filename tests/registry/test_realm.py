"""Which token server may be told a password."""

from __future__ import annotations

import pytest

from asyncpull.addresses import is_inside
from asyncpull.errors import AuthenticationError
from asyncpull.registry.realm import Realm, hostname_of, is_same_site, parse_realm


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://h/t", Realm("https://h/t", "h", "h")),
        ("https://H.Example:8443/t?x=1#y", Realm("https://H.Example:8443/t?x=1", "h.example", "h.example:8443")),
        ("https://[::1]:5000/t", Realm("https://[::1]:5000/t", "::1", "[::1]:5000")),
    ],
)
def test_realms(text: str, expected: Realm) -> None:
    assert parse_realm(text, "r", plain_http=False) == expected


@pytest.mark.parametrize(
    "text",
    [
        *("/token", "ftp://h/t", "https://", "https://h:99999/t", "https://h:0/t", "https://h:x/t", "nonsense", "//h"),
        *("https://h/a b", "https://h/\u00e9", "https://h/\udce9", "https://h/\t"),
    ],
)
def test_realms_that_are_no_urls(text: str) -> None:
    with pytest.raises(AuthenticationError, match="r names a token server that is no http or https URL"):
        parse_realm(text, "r", plain_http=True)


@pytest.mark.parametrize(
    "text", ["https://me:secret@h/t", "https://me@h/t", "https://@h/t", "https://r@evil.example/t"]
)
def test_a_realm_with_user_information_is_refused(text: str) -> None:
    with pytest.raises(AuthenticationError, match="user information") as caught:
        parse_realm(text, "r", plain_http=True)
    assert "secret" not in str(caught.value)


def test_a_token_is_not_asked_for_in_the_clear_unless_the_registry_is() -> None:
    with pytest.raises(AuthenticationError, match="plain http, h, which is refused"):
        parse_realm("http://h/t", "r", plain_http=False)
    assert parse_realm("http://h/t", "r", plain_http=True).url == "http://h/t"


@pytest.mark.parametrize(
    ("registry", "realm", "expected"),
    [
        ("quay.io", "quay.io", True),
        ("Quay.io", "quay.io.", True),
        ("registry-1.docker.io", "auth.docker.io", True),
        ("registry.gitlab.com", "gitlab.com", True),
        ("gitlab.com", "registry.gitlab.com", True),
        ("registry.suse.com", "scc.suse.com", True),
        ("a.b.example.org", "c.d.example.org", True),
        ("registry.example.co.uk", "auth.example.co.uk", True),
        ("registry.example.co.uk", "auth.other.co.uk", False),
        ("example.co.uk", "co.uk", False),
        ("registry.example.com.au", "evil.com.au", False),
        ("dhi.io", "auth.docker.io", False),
        ("quay.io", "quay.io.evil.example", False),
        ("quay.io", "evilquay.io", False),
        ("quay.io", "io", False),
        ("gcr.io", "eu.gcr.io", True),
        ("me.github.io", "you.github.io", False),
        ("github.io", "me.github.io", False),
        ("x.me.github.io", "me.github.io", False),
        ("me.github.io", "me.github.io", True),
        ("one.azurecr.io", "two.azurecr.io", False),
        ("1.dkr.ecr.us-east-1.amazonaws.com", "2.dkr.ecr.us-east-1.amazonaws.com", False),
        ("localhost", "localhost", True),
        ("localhost", "auth.localhost", False),
        ("registry", "auth", False),
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "127.0.0.2", False),
        ("10.0.0.1", "11.0.0.1", False),
        ("::1", "::1", True),
        ("::1", "::2", False),
        ("127.0.0.1", "localhost", False),
        ("a..example.org", "b.example.org", False),
        ("registry.example.org", "", False),
    ],
)
def test_the_same_site(registry: str, realm: str, expected: bool) -> None:
    assert is_same_site(registry, realm) is expected
    assert is_same_site(realm, registry) is expected


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1", True),
        ("10.1.2.3", True),
        ("172.16.0.1", True),
        ("192.168.0.1", True),
        ("169.254.169.254", True),
        ("100.64.0.1", True),
        ("0.0.0.0", True),
        ("::1", True),
        ("fe80::1%eth0", True),
        ("fd00::1", True),
        ("::ffff:127.0.0.1", True),
        ("::ffff:8.8.8.8", False),
        ("64:ff9b::a00:1", True),
        ("64:ff9b::808:808", False),
        ("2002:7f00:1::", True),
        ("8.8.8.8", False),
        ("2606:4700::1", False),
    ],
)
def test_addresses_inside(address: str, expected: bool) -> None:
    assert is_inside([address]) is expected
    assert is_inside(["8.8.8.8", address]) is expected


def test_no_address_is_not_inside() -> None:
    assert not is_inside([])


@pytest.mark.parametrize(("host", "name"), [("h", "h"), ("H:5000", "h"), ("[::1]:5000", "::1")])
def test_hostnames(host: str, name: str) -> None:
    assert hostname_of(host) == name
