"""Which endpoint the requests for a repository go to, and how far it is trusted.

Files are not read here: whoever reads ``registries.conf`` hands over values. An endpoint is tried by https. One that
is marked insecure is asked without verifying its certificate, and by plain http where https is not spoken at all, which
is what containers/image does; so are all endpoints where ``tls_verify`` is False, and none where it is True.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from asyncpull.spec.reference import Reference

# Where the registry of a domain really lives, if not at the domain.
_HOSTS = {"docker.io": "registry-1.docker.io"}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where requests go: ``host`` is ``name[:port]`` as in a URL."""

    host: str
    insecure: bool = False

    @property
    def schemes(self) -> tuple[str, ...]:
        """The schemes to try, in order."""
        return ("https", "http") if self.insecure else ("https",)


@dataclass(frozen=True, slots=True)
class RegistryAccess:
    """What the caller says about registries.

    ``insecure`` holds domains as references spell them, with their port. The paths are what is read instead of the
    usual places: ``authfile`` holds credentials, ``cert_dir`` certificates as below ``certs.d`` but for every registry,
    ``registries_conf`` and ``registries_conf_dir`` are containers-registries.conf(5), and ``hosts_dir`` is
    containerd's directory of ``hosts.toml`` files, which is only read where it is given.
    """

    tls_verify: bool | None = None
    insecure: frozenset[str] = frozenset()
    authfile: Path | None = None
    cert_dir: Path | None = None
    registries_conf: Path | None = None
    registries_conf_dir: Path | None = None
    hosts_dir: Path | None = None

    def endpoint(self, reference: Reference) -> Endpoint:
        """Where the requests for ``reference`` go."""
        insecure = reference.domain in self.insecure if self.tls_verify is None else not self.tls_verify
        return Endpoint(_HOSTS.get(reference.domain, reference.domain), insecure)
