"""URLs of requests: what two of them share, where one leads to, and what of one may be told."""

from __future__ import annotations

from urllib.parse import urljoin, urlsplit

from asyncpull.errors import UnavailableError

_PORTS = {"http": 80, "https": 443}


def origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port of ``url``: what two requests must share to share an Authorization. Raises ValueError."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("not an absolute http or https URL")
    return parts.scheme, parts.hostname, parts.port or _PORTS[parts.scheme]


def authority(url: str, *, with_port: bool = False) -> str:
    """Host and port of ``url`` as requests name them; the port that the scheme has anyway only ``with_port``."""
    scheme, host, port = origin(url)
    name = f"[{host}]" if ":" in host else host
    return f"{name}:{port}" if with_port or port != _PORTS[scheme] else name


def resolved(url: str, named: str) -> str:
    """The URL that a header in the answer of ``url`` has ``named``. Raises UnavailableError for any but http(s)."""
    try:
        target = urljoin(url, named)
        origin(target)
    except ValueError as error:
        raise UnavailableError(f"{redact(url)}: leads to something that is no http or https URL") from error
    return target


def redact(url: str) -> str:
    """``url`` for a message: user information dropped, and of a query only that there is one."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}" + ("?…" if parts.query else "")


def redirected(url: str, location: str, *, plain_http: bool) -> str:
    """Where ``url`` redirects to by ``location``; from https to http only with ``plain_http``.

    Raises UnavailableError.
    """
    target = resolved(url, location)
    if origin(target)[0] == "http" and origin(url)[0] == "https" and not plain_http:
        raise UnavailableError(f"{redact(url)}: redirects from https to {redact(target)}, which is refused")
    return target
