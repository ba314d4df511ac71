"""containerd's ``hosts.toml``, a second way to name mirrors (containerd's docs/hosts.md).

Below the directory that ``--hosts-dir`` names stands one per registry: ``host_port_`` or ``host:port``, ``host``, or
``_default`` for every other registry. Its ``hosts.toml`` names hosts in the order to be asked and, last of all, the
``server``, which is the registry itself where nothing else is said::

    server = "https://registry-1.docker.io"
    [host."https://mirror.example/v2/hub"]     # /v2 is added to a path that does not end in it,
      override_path = true                     # unless this is true
      capabilities = ["pull", "resolve"]       # blobs and manifests by digest; tags; push is not for us
      ca = "mirror.crt"                        # or a list; relative to the directory
      client = [["a.cert", "a.key"], "b.pem"]  # pairs, or files with both in one
      skip_verify = true
      dial_timeout = "1s"                      # accepted: a stalled host is left for the next one anyway
      [host."https://mirror.example/v2/hub".header]
        x-token = "…"

A directory without ``hosts.toml`` holds certificates as ``certs.d`` does. How it goes together with
``registries.conf``: where this directory has something for a registry, it decides which endpoints that has, and
``location`` and mirrors of ``registries.conf`` do not count; ``blocked`` does.

containerd falls back to certificates where a file cannot be parsed, and asks https first at ``http://`` hosts with
certificates. Here the one is an error that names file and key, and the other is asked by http, unless ``skip_verify``
is given. And containerd speaks plain http with localhost by itself; here that needs to be said, as for podman.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from asyncpull.dataclass import dataclass
from asyncpull.errors import ConfigurationError
from asyncpull.log import Log
from asyncpull.registry.certificates import CertificateDirectory
from asyncpull.registry.toml import Table
from asyncpull.tls import TlsFiles

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FILE_NAME = "hosts.toml"
DEFAULT_DIRECTORY = "_default"

_CAPABILITIES = ("pull", "resolve", "push", "referrers")
_DURATION = re.compile(r"[+-]?(?:0|(?:(?:\d+\.?\d*|\.\d+)(?:ns|us|µs|μs|ms|s|m|h))+)")

_log = Log(__name__)


@dataclass(frozen=True, slots=True)
class HostRule:
    """One host of the file, or its server; ``host`` is empty for the registry itself, whatever that is.

    ``path`` is what stands before repositories (``/v2``). ``skip_verify`` is None where nothing is said.
    """

    host: str = ""
    scheme: str = ""
    path: str = "/v2"
    pulls: bool = True
    resolves: bool = True
    tls: TlsFiles = field(default_factory=TlsFiles)
    skip_verify: bool | None = None
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class HostsFile:
    """What counts for one registry: ``rules`` in the order to be asked, the server last. ``path`` is the directory."""

    path: Path
    rules: tuple[HostRule, ...]

    @classmethod
    def from_bytes(cls, path: Path, raw: bytes) -> HostsFile:
        """Parse ``hosts.toml`` of the directory ``path``. Raises ConfigurationError."""
        document = Table.from_bytes(path / FILE_NAME, raw)
        hosts = document.table("host")
        rules = []
        for name in () if hosts is None else hosts.values:
            table = hosts.table(name) if hosts is not None else None
            if table is not None:
                rules.append(_parse_host(table, name))
        server = document.text("server")
        rule = _parse_host(document, server)
        if not server:
            # Nothing restricts what the registry itself is asked for.
            rule = replace(rule, pulls=True, resolves=True)
        return cls(path, (*rules, rule))

    @classmethod
    def from_certificates(cls, directory: CertificateDirectory) -> HostsFile:
        """What a directory without the file means: certificates of the registry itself."""
        return cls(directory.path, (HostRule(tls=directory.tls_files()),))


@dataclass(frozen=True, slots=True)
class HostsDirectory:
    """Everything below one directory: what each subdirectory says, or what is wrong with it."""

    files: Mapping[str, HostsFile | ConfigurationError] = field(default_factory=lambda: MappingProxyType({}))

    def for_registry(self, domain: str) -> HostsFile | None:
        """What counts for ``host[:port]``, None if nothing does. Raises ConfigurationError if that is wrong."""
        name, colon, port = domain.rpartition(":")
        names = (f"{name}_{port}_", domain) if colon and name else (domain,)
        found = next((self.files[each] for each in (*names, DEFAULT_DIRECTORY) if each in self.files), None)
        if isinstance(found, ConfigurationError):
            raise found
        return found

    @classmethod
    def read(cls, directory: Path) -> HostsDirectory:
        """Read all of it. What is wrong for one registry is an error for that registry only."""
        if not directory.is_dir():
            raise ConfigurationError(f"{directory}: no such directory with hosts.toml files")
        try:
            paths = sorted(path for path in directory.iterdir() if path.is_dir())
        except OSError as error:
            raise ConfigurationError(f"{directory}: cannot be read: {error.strerror}") from error
        return cls(MappingProxyType({path.name: _read(path) for path in paths}))


def _read(path: Path) -> HostsFile | ConfigurationError:
    try:
        raw = (path / FILE_NAME).read_bytes()
    except FileNotFoundError:
        raw = b""
    except OSError as error:
        return ConfigurationError(f"{path / FILE_NAME}: cannot be read: {error.strerror}")
    try:
        if raw:
            return HostsFile.from_bytes(path, raw)
        return HostsFile.from_certificates(CertificateDirectory.read(path))
    except ConfigurationError as error:
        return error


def _parse_host(table: Table, url: str) -> HostRule:
    scheme, host, path = _parse_url(table, url, override_path=table.flag("override_path") or False)
    capabilities = [each.lower() for each in table.texts("capabilities") or ()]
    for number, capability in enumerate(capabilities):
        if capability not in _CAPABILITIES:
            raise table.error(f"capabilities[{number}]", f"{capability!r} is none of {', '.join(_CAPABILITIES)}")
    duration = table.text("dial_timeout")
    if duration and not _DURATION.fullmatch(duration):
        raise table.error("dial_timeout", f"{duration!r} is not a duration such as 1s or 500ms")
    rule = HostRule(
        host=host,
        scheme=scheme,
        path=path,
        pulls=not capabilities or "pull" in capabilities,
        resolves=not capabilities or "resolve" in capabilities,
        tls=TlsFiles(_parse_authorities(table), _parse_clients(table)),
        skip_verify=table.flag("skip_verify"),
        headers=_parse_headers(table.table("header")),
    )
    for key in table.unknown_keys():
        _log.warning("unknown key ignored", file=str(table.path), key=key)
    return rule


def _parse_url(table: Table, url: str, *, override_path: bool) -> tuple[str, str, str]:
    if not url:
        return "", "", "/v2"
    if "@" in url:
        raise ConfigurationError(f"{table.path}: the URL of a host has no user and no password", "use login for those")
    try:
        parts = urlsplit(url if "://" in url else f"https://{url}")
        _port = parts.port
    except ValueError as error:
        raise ConfigurationError(f"{table.path}: {url!r} is not a URL: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigurationError(f"{table.path}: {url!r} is not the URL of a registry", "write http[s]://host[:port]")
    path = posixpath.normpath(parts.path).rstrip("/") if parts.path else ""
    if not override_path and not path.endswith("/v2"):
        path += "/v2"
    return parts.scheme, parts.netloc, path


def _parse_authorities(table: Table) -> tuple[Path, ...]:
    value = table.value("ca")
    if isinstance(value, str):
        return (_path(table, value),)
    return tuple(_path(table, text) for text in table.texts("ca") or ())


def _parse_clients(table: Table) -> tuple[tuple[Path, Path], ...]:
    """Pairs of certificate and key, which may be one file."""
    value = table.value("client")
    if value is None:
        return ()
    entries = value if isinstance(value, list) else [value]
    pairs = []
    for number, entry in enumerate(entries):
        match entry:
            case str(both) | [str(both), ""]:
                pairs.append((_path(table, both), _path(table, both)))
            case [str(certificate), str(key)]:
                pairs.append((_path(table, certificate), _path(table, key)))
            case _:
                raise table.error(f"client[{number}]", "is neither a file nor a pair of a certificate and its key")
    return tuple(pairs)


def _parse_headers(table: Table | None) -> tuple[tuple[str, str], ...]:
    if table is None:
        return ()
    headers = []
    for name in table.values:
        value = table.value(name)
        for text in (value,) if isinstance(value, str) else table.texts(name) or ():
            if any(mark in name + str(text) for mark in "\r\n\0"):
                raise table.error(name, "a header has one line")
            headers.append((name, str(text)))
    return tuple(headers)


def _path(table: Table, text: str) -> Path:
    return table.path.parent / text
