"""Where the requests for one repository go: the registry itself, or one of its mirrors."""

from __future__ import annotations

from dataclasses import field

from asyncpull.dataclass import dataclass
from asyncpull.tls import TlsFiles


@dataclass(frozen=True, slots=True)
class Endpoint:
    """``host`` is ``name[:port]`` as in a URL, ``repository`` the path of the repository there.

    ``account`` is what credentials are looked up by (``docker.io/library/alpine``). An ``insecure`` endpoint is asked
    without verifying its certificate, and by plain http where https is not spoken at all. ``scheme`` is given where
    only that one may be spoken. ``prefix`` stands before the repository in every path. ``namespace`` is what a mirror
    is told that the repository belongs to (``?ns=``), None where it needs no telling. An endpoint that does not resolve
    tags is asked for digests only. ``is_named`` tells that it is at the domain that the reference names, so that what
    somebody says about that registry is about this endpoint. ``headers`` are sent with every request; their values may
    be secrets.
    """

    host: str
    repository: str
    account: str
    is_mirror: bool = False
    insecure: bool = False
    scheme: str | None = None
    prefix: str = "/v2"
    namespace: str | None = None
    resolves_tags: bool = True
    serves_blobs: bool = True
    is_named: bool = True
    tls: TlsFiles = field(default_factory=TlsFiles)
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    @property
    def schemes(self) -> tuple[str, ...]:
        """The schemes to try, in order."""
        if self.scheme is not None:
            return (self.scheme,)
        return ("https", "http") if self.insecure else ("https",)

    @property
    def name(self) -> str:
        """What messages and events call it: host and repository; unique among the endpoints of a reference."""
        return f"{self.host}{self.prefix.removeprefix('/v2')}/{self.repository}"
