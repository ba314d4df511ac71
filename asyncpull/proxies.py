"""Which proxy a request goes through, as the environment says (the rules of Go's ``golang.org/x/net/http/httpproxy``).

``HTTP_PROXY`` is for http and ``HTTPS_PROXY`` for https, in capitals or else in small letters; the proxy itself is
``[http://|https://][user:password@]host[:port]``. ``NO_PROXY`` is a list with commas of what is asked directly:

=====================  =============================================================
``*``                  everything
``192.0.2.7``          that address; ``192.0.2.7:5000`` on that port only
``192.0.2.0/24``       the addresses of a network
``example.com``        that name and every name below it; with ``:port`` on that port
``.example.com``       only the names below it, and so is ``*.example.com``
=====================  =============================================================

``localhost`` and loopback addresses are always asked directly. A program that a web server runs (``REQUEST_METHOD`` is
set) gets HTTP_PROXY from whoever sends a ``Proxy:`` header, so it is refused there.

Go ignores a proxy that it cannot parse; here that is an error, because asking directly is not what was wanted.
"""

from __future__ import annotations

import ipaddress
from dataclasses import field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from asyncpull.dataclass import dataclass
from asyncpull.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

_DEFAULT_PORTS = {"http": "80", "https": "443"}
_PROXY_SCHEMES = ("http", "https")

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class _Everything:
    def matches(self, host: str, port: str, address: _Address | None) -> bool:
        return True


@dataclass(frozen=True, slots=True)
class _NetworkRule:
    network: _Network

    def matches(self, host: str, port: str, address: _Address | None) -> bool:
        return address is not None and address in self.network


@dataclass(frozen=True, slots=True)
class _AddressRule:
    address: _Address
    port: str | None

    def matches(self, host: str, port: str, address: _Address | None) -> bool:
        return address == self.address and self.port in (None, port)


@dataclass(frozen=True, slots=True)
class _DomainRule:
    suffix: str  # with its leading dot
    port: str | None
    includes_domain: bool

    def matches(self, host: str, port: str, address: _Address | None) -> bool:
        if address is not None or self.port not in (None, port):
            return False
        return host.endswith(self.suffix) or (self.includes_domain and host == self.suffix[1:])


_Rule = _Everything | _NetworkRule | _AddressRule | _DomainRule


@dataclass(frozen=True, slots=True)
class Proxies:
    """What the environment says about proxies. Their URLs may hold passwords, so no repr shows them."""

    http: str | None = field(default=None, repr=False)
    https: str | None = field(default=None, repr=False)
    direct: tuple[_Rule, ...] = ()
    is_cgi: bool = False

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Proxies:
        """What ``environ`` says; nothing is checked before a request needs it."""
        return cls(
            http=_value(environ, "HTTP_PROXY"),
            https=_value(environ, "HTTPS_PROXY"),
            direct=_rules(_value(environ, "NO_PROXY") or ""),
            is_cgi=bool(environ.get("REQUEST_METHOD")),
        )

    def for_url(self, url: str) -> str | None:
        """The URL of the proxy that a request for ``url`` goes through, with its user and password; None is directly.

        Raises ConfigurationError, which names the variable, for a proxy that cannot be used.
        """
        parts = urlsplit(url)
        variable, proxy = ("HTTPS_PROXY", self.https) if parts.scheme == "https" else ("HTTP_PROXY", self.http)
        if proxy is None or self._is_direct(parts.hostname or "", str(parts.port or _DEFAULT_PORTS[parts.scheme])):
            return None
        if variable == "HTTP_PROXY" and self.is_cgi:
            raise ConfigurationError(
                "HTTP_PROXY is not used where REQUEST_METHOD is set, because clients of a web server could set it",
                "unset REQUEST_METHOD, or HTTP_PROXY",
            )
        return _parse_proxy(variable, proxy)

    def _is_direct(self, host: str, port: str) -> bool:
        address = _address(host)
        if host == "localhost" or (address is not None and address.is_loopback):
            return True
        return any(rule.matches(host, port, address) for rule in self.direct)


def without_secret(proxy: str) -> str:
    """A proxy's URL as it may be shown: its password is left out."""
    parts = urlsplit(proxy)
    user, at, host = parts.netloc.rpartition("@")
    name, colon, _password = user.partition(":")
    return urlunsplit(parts._replace(netloc=name + (":…" if colon else "") + at + host))


def _value(environ: Mapping[str, str], name: str) -> str | None:
    return environ.get(name) or environ.get(name.lower()) or None


def _parse_proxy(variable: str, text: str) -> str:
    url = text if "://" in text else f"http://{text}"
    try:
        parts = urlsplit(url)
        host, _port = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigurationError(f"{variable}: {_without_user(url)!r} is not the URL of a proxy") from error
    if not host:
        raise ConfigurationError(f"{variable}: {_without_user(url)!r} is not the URL of a proxy")
    if parts.scheme not in _PROXY_SCHEMES:
        raise ConfigurationError(
            f"{variable}: a proxy of scheme {parts.scheme!r} cannot be used", "give one that speaks http or https"
        )
    return url


def _without_user(url: str) -> str:
    """A URL that may be malformed, without anything that could be a user or a password."""
    scheme, separator, rest = url.partition("://")
    return scheme + separator + rest.rpartition("@")[2]


def _rules(text: str) -> tuple[_Rule, ...]:
    rules: list[_Rule] = []
    for entry in text.lower().split(","):
        entry = entry.strip()
        if entry == "*":
            return (_Everything(),)
        rule = _rule(entry)
        if rule is not None:
            rules.append(rule)
    return tuple(rules)


def _rule(entry: str) -> _Rule | None:
    """One entry of NO_PROXY; what is malformed means nothing."""
    network = _network(entry)
    if network is not None:
        return _NetworkRule(network)
    host, port = _split_port(entry)
    address = _address(host)
    if address is not None:
        return _AddressRule(address, port)
    host = host.removeprefix("*") if host.startswith("*.") else host
    if not host:
        return None
    return _DomainRule("." + host.removeprefix("."), port, not host.startswith("."))


def _network(entry: str) -> _Network | None:
    if "/" not in entry:
        return None
    try:
        return ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return None


def _split_port(entry: str) -> tuple[str, str | None]:
    if entry.startswith("["):
        host, _bracket, rest = entry[1:].partition("]")
        return host, rest.removeprefix(":") or None
    if entry.count(":") != 1:
        return entry, None  # no port, or an IPv6 address
    host, _colon, port = entry.partition(":")
    return host, port or None


def _address(host: str) -> _Address | None:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    return address.ipv4_mapped or address if isinstance(address, ipaddress.IPv6Address) else address
