"""Which requests go through a proxy: the rules of Go's httpproxy, case by case."""

from __future__ import annotations

import pytest

from asyncpull.errors import ConfigurationError
from asyncpull.proxies import Proxies, without_secret

BOTH = {"HTTP_PROXY": "http://plain:3128", "HTTPS_PROXY": "http://safe:3128"}


@pytest.mark.parametrize(
    ("environ", "url", "proxy"),
    [
        ({}, "https://registry.example/v2/", None),
        (BOTH, "https://registry.example/v2/", "http://safe:3128"),
        (BOTH, "http://registry.example/v2/", "http://plain:3128"),
        ({"https_proxy": "http://small:1"}, "https://registry.example/", "http://small:1"),
        ({"https_proxy": "http://small:1", "HTTPS_PROXY": "http://big:1"}, "https://a.example/", "http://big:1"),
        ({"https_proxy": "http://small:1", "HTTPS_PROXY": ""}, "https://a.example/", "http://small:1"),
        ({"HTTPS_PROXY": "proxy:3128"}, "https://registry.example/", "http://proxy:3128"),
        ({"HTTPS_PROXY": "192.0.2.1"}, "https://registry.example/", "http://192.0.2.1"),
        ({"HTTPS_PROXY": "https://safe:3129"}, "https://registry.example/", "https://safe:3129"),
        ({"HTTPS_PROXY": "http://me:word@safe:1"}, "https://registry.example/", "http://me:word@safe:1"),
        ({"HTTP_PROXY": "http://plain:1"}, "https://registry.example/", None),
        ({"HTTPS_PROXY": "http://safe:1"}, "http://registry.example/", None),
        # A web server that runs us sets HTTP_PROXY from a header; HTTPS_PROXY cannot come from there.
        (BOTH | {"REQUEST_METHOD": "GET"}, "https://registry.example/", "http://safe:3128"),
        # What would not be used is not looked at.
        ({"HTTPS_PROXY": "socks5://safe:1", "NO_PROXY": "*"}, "https://registry.example/", None),
        ({"HTTPS_PROXY": "socks5://safe:1"}, "https://localhost:5000/", None),
    ],
)
def test_a_proxy_is_chosen_by_scheme(environ: dict[str, str], url: str, proxy: str | None) -> None:
    assert Proxies.from_environ(environ).for_url(url) == proxy


@pytest.mark.parametrize(
    ("no_proxy", "url", "is_direct"),
    [
        ("", "https://localhost/", True),
        ("", "https://localhost:5000/", True),
        ("", "https://127.0.0.1:5000/", True),
        ("", "https://127.9.9.9/", True),
        ("", "https://[::1]:5000/", True),
        ("", "https://[::ffff:127.0.0.1]/", True),
        ("", "https://localhost.example/", False),
        ("*", "https://registry.example/", True),
        ("other.example,*", "https://192.0.2.7/", True),
        ("registry.example", "https://registry.example/", True),
        ("registry.example", "https://registry.example:5000/", True),
        ("registry.example", "https://REGISTRY.example/", True),
        ("REGISTRY.example", "https://registry.example/", True),
        ("registry.example", "https://eu.registry.example/", True),
        ("registry.example", "https://otherregistry.example/", False),
        (".example", "https://registry.example/", True),
        (".registry.example", "https://registry.example/", False),
        (".registry.example", "https://eu.registry.example/", True),
        ("*.registry.example", "https://registry.example/", False),
        ("*.registry.example", "https://eu.registry.example/", True),
        ("reg*.example", "https://registry.example/", False),
        ("registry.example:5000", "https://registry.example:5000/", True),
        ("registry.example:5000", "https://registry.example/", False),
        ("registry.example:443", "https://registry.example/", True),
        ("registry.example:80", "https://registry.example/", False),
        (".example:5000", "https://registry.example:5000/", True),
        ("192.0.2.7", "https://192.0.2.7/", True),
        ("192.0.2.7", "https://192.0.2.7:5000/", True),
        ("192.0.2.7", "https://192.0.2.70/", False),
        ("192.0.2.7:5000", "https://192.0.2.7:5000/", True),
        ("192.0.2.7:5000", "https://192.0.2.7/", False),
        ("192.0.2.0/24", "https://192.0.2.7:5000/", True),
        ("192.0.2.99/24", "https://192.0.2.7/", True),
        ("192.0.2.0/24", "https://192.0.3.7/", False),
        ("192.0.2.0/24", "https://registry.example/", False),
        ("2001:db8::/32", "https://[2001:db8::7]:5000/", True),
        ("2001:db8::7", "https://[2001:db8::7]/", True),
        ("[2001:db8::7]", "https://[2001:db8::7]/", True),
        ("[2001:db8::7]:5000", "https://[2001:db8::7]:5000/", True),
        ("[2001:db8::7]:5000", "https://[2001:db8::7]/", False),
        # A name's suffix says nothing about addresses.
        (".7", "https://192.0.2.7/", False),
        (" other.example , registry.example ", "https://registry.example/", True),
        (",,:5000,", "https://registry.example:5000/", False),
    ],
)
def test_what_is_asked_directly(no_proxy: str, url: str, is_direct: bool) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        proxy = Proxies.from_environ(BOTH | {name: no_proxy}).for_url(url)
        assert proxy == (None if is_direct else "http://safe:3128")


@pytest.mark.parametrize(
    ("environ", "url", "said"),
    [
        ({"HTTPS_PROXY": "socks5://safe:1080"}, "https://a.example/", "HTTPS_PROXY: a proxy of scheme 'socks5'"),
        ({"HTTPS_PROXY": "http://me:word@safe:port"}, "https://a.example/", "HTTPS_PROXY: 'http://safe:port' is not"),
        ({"HTTP_PROXY": "http://"}, "http://a.example/", "HTTP_PROXY: 'http://' is not the URL"),
        (BOTH | {"REQUEST_METHOD": "GET"}, "http://a.example/", "HTTP_PROXY is not used where REQUEST_METHOD is set"),
    ],
)
def test_what_cannot_be_used_is_refused(environ: dict[str, str], url: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Proxies.from_environ(environ).for_url(url)
    assert said in str(caught.value)
    assert "word" not in str(caught.value)


def test_passwords_are_not_shown() -> None:
    proxies = Proxies.from_environ({"HTTPS_PROXY": "http://me:word@safe:1", "HTTP_PROXY": "http://me:word@safe:1"})
    assert "word" not in repr(proxies)
    assert without_secret("http://me:word@safe:1") == "http://me:…@safe:1"
    assert without_secret("http://safe:1") == "http://safe:1"
