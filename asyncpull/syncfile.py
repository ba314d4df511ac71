"""What skopeo's sync files want from registries (skopeo-sync(1), "YAML file content").

::

    registry.example.com:
        images:
            busybox: []                          # every tag
            redis: ["1.0", "sha256:…"]           # these
        images-by-tag-regex:
            nginx: ^1\\.13\\.[12]-alpine-perl$     # a part of the tag is enough
        images-by-semver:
            alpine: ">= 3.12.0"                  # spec/semver.py
        credentials: {username: john, password: …}
        tls-verify: true
        cert-dir: /home/john/certs

skopeo leaves out what it cannot read and goes on; here that is an error which names it, before anything is copied.
"""

from __future__ import annotations

import re
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING

from asyncpull.dataclass import dataclass
from asyncpull.errors import ConfigurationError, InvalidReferenceError, UsageError
from asyncpull.registry.credentials import Credentials
from asyncpull.spec.reference import has_domain, parse_reference
from asyncpull.spec.semver import VersionRange
from asyncpull.yamlfile import parse_yaml

if TYPE_CHECKING:
    from asyncpull.spec.reference import Reference

_KEYS = frozenset({"images", "images-by-tag-regex", "images-by-semver", "credentials", "tls-verify", "cert-dir"})
FILE_LIMIT = 4 << 20


@dataclass(frozen=True, slots=True)
class WantedTags:
    """The tags of ``repository`` (its tag means nothing here) that ``pattern`` is found in and ``versions`` allow."""

    repository: Reference
    pattern: re.Pattern[str] | None = None
    versions: VersionRange | None = None

    def allows(self, tag: str) -> bool:
        """Whether ``tag`` is wanted."""
        if self.pattern is not None and self.pattern.search(tag) is None:
            return False
        return self.versions is None or self.versions.allows(tag)


@dataclass(frozen=True, slots=True)
class WantedRegistry:
    """What is wanted from one registry, and how it is asked; None is as all others are."""

    domain: str
    images: tuple[Reference, ...] = ()
    tags: tuple[WantedTags, ...] = ()
    credentials: Credentials | None = None
    tls_verify: bool | None = None
    cert_dir: Path | None = None


@dataclass(frozen=True, slots=True)
class _Place:
    """Where in the file something is, for messages."""

    path: Path
    keys: tuple[str, ...] = field(default=())

    def __truediv__(self, key: str) -> _Place:
        return _Place(self.path, (*self.keys, key))

    def error(self, problem: str) -> ConfigurationError:
        return ConfigurationError(f"{self.path}: {' / '.join(self.keys) or 'the file'} {problem}")


def parse_sync_file(path: Path, raw: bytes) -> tuple[WantedRegistry, ...]:
    """Parse a sync file. Raises ConfigurationError, which names file and key."""
    place = _Place(path)
    return tuple(_registry(place / domain, domain, value) for domain, value in _mapping(place, parse_yaml(path, raw)))


def _registry(place: _Place, domain: str, value: object) -> WantedRegistry:
    if not has_domain(f"{domain}/"):  # it would be taken for a part of the path, and docker.io would be asked
        raise place.error("is no registry: it has neither a dot nor a port, and is not localhost")
    table = dict(_mapping(place, value))
    for key in table:
        if key not in _KEYS:
            raise place.error(f"has the unknown key {key!r}")
    images: list[Reference] = []
    tags: list[WantedTags] = []
    for name, wanted in _mapping(place / "images", table.get("images")):
        at = place / "images" / name
        repository = _repository(at, domain, name)
        if not isinstance(wanted, list | None) or not all(isinstance(each, str) for each in wanted or ()):
            raise at.error("is no list of tags and digests in quotes")
        images += (_image(at, repository, each) for each in wanted or ())
        if not wanted:
            tags.append(WantedTags(repository))
    for name, text in _texts(place / "images-by-tag-regex", table.get("images-by-tag-regex")):
        at = place / "images-by-tag-regex" / name
        try:
            tags.append(WantedTags(_repository(at, domain, name), pattern=re.compile(text)))
        except (re.error, OverflowError, RecursionError) as error:  # of too large a repetition, of brackets in brackets
            raise at.error(f"is no regular expression: {error}") from error
    for name, text in _texts(place / "images-by-semver", table.get("images-by-semver")):
        at = place / "images-by-semver" / name
        try:
            tags.append(WantedTags(_repository(at, domain, name), versions=VersionRange.parse(text)))
        except UsageError as error:
            raise at.error(str(error)) from error
    verify, cert_dir = table.get("tls-verify"), table.get("cert-dir")
    if not isinstance(verify, bool | None):
        raise (place / "tls-verify").error("is neither true nor false")
    if not isinstance(cert_dir, str | None):
        raise (place / "cert-dir").error("is no path")
    return WantedRegistry(
        domain,
        tuple(images),
        tuple(tags),
        _credentials(place / "credentials", table.get("credentials")),
        verify,
        Path(cert_dir) if cert_dir else None,
    )


def _repository(place: _Place, domain: str, name: str) -> Reference:
    try:
        found = parse_reference(f"{domain}/{name}")
    except InvalidReferenceError as error:
        raise place.error(f"is no repository: {error}") from error
    if ":" in name or "@" in name:
        raise place.error("is an image, not a repository")
    return found


def _image(place: _Place, repository: Reference, text: str) -> Reference:
    separator = "@" if ":" in text else ":"
    try:
        return parse_reference(f"{repository.name}{separator}{text}")
    except InvalidReferenceError as error:
        raise place.error(f"has {text!r}, which is neither a tag nor a digest") from error


def _credentials(place: _Place, value: object) -> Credentials | None:
    table = dict(_texts(place, value))
    if not table:
        return None
    if not table.get("username") or not set(table) <= {"username", "password", "identitytoken"}:
        raise place.error("needs username and password")
    return Credentials(table["username"], table.get("password", ""), table.get("identitytoken") or None)


def _mapping(place: _Place, value: object) -> list[tuple[str, object]]:
    """The pairs of a mapping, which may be missing."""
    if value is None:
        return []
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise place.error("is no mapping")
    return list(value.items())


def _texts(place: _Place, value: object) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for key, text in _mapping(place, value):
        if not isinstance(text, str):
            raise (place / key).error("is no string; put it in quotes")
        found.append((key, text))
    return found
