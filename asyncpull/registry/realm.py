"""Who may be told a password: rules for the token server that a registry names.

A challenge of a registry says where tokens are to be had (RFC 6750, 3: ``realm``), and whoever answers in the place of
a registry could name any place. Credentials for a registry are sent there if and only if all of this holds:

1. The realm is an http or https URL without user information; plain http is for registries that may be spoken to in
   the clear. Any other is refused, with or without credentials.
2. It is at the same site as the registry: the same host, whatever the port; or both below one domain that can be
   registered, as ``registry-1.docker.io`` and ``auth.docker.io`` are, or ``registry.gitlab.com`` and ``gitlab.com``.
   Which domains can be registered is decided without a list of the world: the last two labels, or three where the last
   two are of the kind of ``co.uk``. Below domains at which strangers live next to each other, such as ``github.io``,
   and for addresses and names of one label, only the same host is the same site.
3. It is at no private, loopback or link-local address, and its name does not lead to one, unless the registry itself is
   at such an address: a registry out there must not send us to somebody's router. Any other is refused, with or without
   credentials: what a server in here answers to everybody would be handed to the registry as a token.

A *foreign* realm, one that breaks rule 2, is asked without credentials. To let a registry use a foreign realm all the
same, an entry in auth.json says both: ``"REALM-HOST/REGISTRY-HOST"``. An entry for the realm's host alone is not
enough: it may be a registry too, and whoever names it as a realm would be handed tokens for what is there.

What a name leads to may change between our question and the connection; rule 3 does not hold against that.
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from asyncpull.dataclass import dataclass
from asyncpull.errors import AuthenticationError

# Second-level labels below which names are registered, where the last label is that of a country.
# fmt: off
_SECOND_LEVELS = frozenset({
    "ac", "asn", "asso", "co", "com", "ed", "edu", "gen", "go", "gob", "gouv", "gov", "govt", "gv", "id", "ind",
    "info", "lg", "ltd", "mil", "mod", "muni", "ne", "net", "nhs", "nic", "nom", "or", "org", "plc", "police", "pro",
    "sch", "school", "tm", "web",
})
# Where strangers are neighbours.
_SHARED_DOMAINS = (
    "amazonaws.com", "appspot.com", "azurecontainer.io", "azurecr.cn", "azurecr.io", "azurecr.us", "azureedge.net",
    "azurewebsites.net", "cloudapp.azure.com", "cloudapp.net", "cloudflare.net", "cloudfront.net",
    "digitaloceanspaces.com", "duckdns.org", "dyndns.org", "firebaseapp.com", "fly.dev", "github.io", "gitlab.io",
    "googleusercontent.com", "herokuapp.com", "jfrog.io", "netlify.app", "ngrok.app", "ngrok.io", "ngrok-free.app",
    "nip.io", "no-ip.org", "ocir.io", "ondigitalocean.app", "onrender.com", "pages.dev", "pkg.dev", "r2.dev",
    "railway.app", "run.app", "sslip.io", "trafficmanager.net", "trycloudflare.com", "up.railway.app", "vercel.app",
    "web.app", "windows.net", "workers.dev",
)
# fmt: on


@dataclass(frozen=True, slots=True)
class Realm:
    """A token server: its URL without fragment, its host name, and the host as it is spelled with its port."""

    url: str
    hostname: str
    host: str


def parse_realm(text: str, registry: str, *, plain_http: bool) -> Realm:
    """The realm that ``registry`` names. Raises AuthenticationError where it breaks rule 1."""
    try:
        parts = urlsplit(text)
        port_is_fine = parts.port is None or parts.port > 0
    except ValueError:
        parts, port_is_fine = urlsplit(""), False
    is_url = text.isascii() and text.isprintable() and " " not in text
    if parts.scheme not in ("http", "https") or not parts.hostname or not port_is_fine or not is_url:
        raise AuthenticationError(f"{registry} names a token server that is no http or https URL")
    if "@" in parts.netloc:
        raise AuthenticationError(f"{registry} names a token server with user information in its URL, which is refused")
    if parts.scheme == "http" and not plain_http:
        raise AuthenticationError(f"{registry} names a token server on plain http, {parts.hostname}, which is refused")
    return Realm(text.partition("#")[0], parts.hostname, parts.netloc.lower())


def hostname_of(host: str) -> str:
    """The name in ``name[:port]`` or ``[address]:port``."""
    return urlsplit(f"//{host}").hostname or ""


def is_same_site(registry: str, realm: str) -> bool:
    """Rule 2, for two host names."""
    registry, realm = (name.lower().removesuffix(".") for name in (registry, realm))
    if registry == realm:
        return True
    site = _registrable(registry)
    return site is not None and site == _registrable(realm)


def _registrable(name: str) -> str | None:
    labels = name.split(".")
    if _is_address(name) or not all(labels):
        return None
    if any(name == domain or name.endswith(f".{domain}") for domain in _SHARED_DOMAINS):
        return None
    wanted = 3 if len(labels[-1]) == 2 and len(labels) > 1 and labels[-2] in _SECOND_LEVELS else 2
    return ".".join(labels[-wanted:]) if len(labels) >= wanted else None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
