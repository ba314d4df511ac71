"""References: what the user named (the grammar of distribution/reference).

::

    reference       name [":" tag] ["@" digest]
    name            [domain "/"] path
    domain          (domain-name | IPv4 | "[" IPv6 "]") [":" port]
    path            component *("/" component)
    component       lower-case letters and digits, joined by one of ``. _ __`` or any number of ``-``
    tag             [A-Za-z0-9_] and up to 127 of [A-Za-z0-9_.-]
    digest          algorithm ":" hex

The first component is a domain if it has a dot, a colon or a capital letter, or is ``localhost``; otherwise the name
lives on docker.io, below ``library/`` if it has one component. A path has at most 255 characters. A name of 64 hex
digits is refused, because every tool takes those for an ID.
"""

from __future__ import annotations

import re
from dataclasses import replace

from asyncpull.dataclass import dataclass
from asyncpull.errors import InvalidDigestError, InvalidReferenceError
from asyncpull.spec.digest import Digest

DEFAULT_DOMAIN = "docker.io"
DEFAULT_TAG = "latest"
PATH_LIMIT = 255

_LEGACY_DOMAIN = "index.docker.io"
_OFFICIAL = "library/"

_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_DOMAIN = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?")
_COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_IDENTIFIER = re.compile(r"[a-f0-9]{64}")


@dataclass(frozen=True, slots=True)
class Reference:
    """A normalised reference: the domain is always there, and a tag or a digest or both."""

    domain: str
    path: str
    tag: str | None = None
    digest: Digest | None = None

    @property
    def name(self) -> str:
        """Domain and path, ``docker.io/library/alpine``."""
        return f"{self.domain}/{self.path}"

    @property
    def store_name(self) -> str:
        """The name that containers/storage keeps: a digest wins over a tag."""
        return f"{self.name}@{self.digest}" if self.digest else f"{self.name}:{self.tag}"

    @property
    def familiar(self) -> str:
        """The short form that people type, ``alpine:3.20``."""
        name = self.name
        if self.domain == DEFAULT_DOMAIN:
            rest = self.path.removeprefix(_OFFICIAL)
            short = self.path if "/" in rest else rest
            name = name if has_domain(short) else short  # docker.io/localhost/app is not localhost/app
        return name + self._suffix

    @property
    def _suffix(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    def with_tag(self, tag: str) -> Reference:
        """The same repository under ``tag``. Raises InvalidReferenceError."""
        if not is_tag(tag):
            raise InvalidReferenceError(f"{tag!r} is not a tag")
        return replace(self, tag=tag, digest=None)

    def with_digest(self, digest: Digest) -> Reference:
        """The same repository at ``digest``, without a tag."""
        return replace(self, tag=None, digest=digest)

    def __str__(self) -> str:
        return self.name + self._suffix


def is_tag(text: str) -> bool:
    """Whether ``text`` could be a tag."""
    return _TAG.fullmatch(text) is not None


def parse_reference(text: str) -> Reference:
    """Parse and normalise; ``:latest`` is added where there is neither tag nor digest.

    A leading ``docker://`` is allowed. Raises InvalidReferenceError.
    """
    rest = text.removeprefix("docker://")
    if not rest:
        raise InvalidReferenceError("the reference is empty")
    if _IDENTIFIER.fullmatch(rest):
        raise InvalidReferenceError(f"{rest} is an ID, not a reference", "name a repository, such as alpine:3.20")
    rest, at, digest_text = rest.partition("@")
    domain, path = _split_domain(rest)
    path, colon, tag = path.partition(":")
    if domain == DEFAULT_DOMAIN and "/" not in path:
        path = _OFFICIAL + path
    _require_name(text, domain, path)
    if colon and not _TAG.fullmatch(tag):
        raise InvalidReferenceError(f"{text!r}: {tag[:140]!r} is not a tag")
    try:
        digest = Digest.parse(digest_text) if at else None
    except InvalidDigestError as error:
        raise InvalidReferenceError(f"{text!r}: {error}") from error
    if not colon and digest is None:
        tag = DEFAULT_TAG
    return Reference(domain, path, tag or None, digest)


def has_domain(text: str) -> bool:
    """Whether ``text`` says which registry it means; a short name does not."""
    first, slash, _rest = text.partition("/")
    return bool(slash) and (first == "localhost" or any(c in first for c in ".:") or first != first.lower())


def _split_domain(name: str) -> tuple[str, str]:
    if not has_domain(name):
        return DEFAULT_DOMAIN, name
    first, _slash, rest = name.partition("/")
    return (DEFAULT_DOMAIN if first == _LEGACY_DOMAIN else first), rest


def _require_name(text: str, domain: str, path: str) -> None:
    if not _DOMAIN.fullmatch(domain):
        raise InvalidReferenceError(f"{text!r}: {domain!r} is not a registry's domain")
    if path != path.lower():
        raise InvalidReferenceError(f"{text!r}: a repository name is lower case", f"try {path.lower()!r}")
    if not _PATH.fullmatch(path):
        raise InvalidReferenceError(f"{text!r} is not a reference", "the form is [DOMAIN/]PATH[:TAG][@DIGEST]")
    if len(path) > PATH_LIMIT:
        raise InvalidReferenceError(f"{text[:80]!r}…: a repository path has at most {PATH_LIMIT} characters")
