"""``signedIdentity``: which name a signature must give an image (containers-policy.json(5)).

A signature says a name besides a digest, so that an image that was signed as one thing cannot be sent as another. What
the image is called here is the *intended* name; a transport without names of that kind (``dir:``, ``oci:``) has none,
and then only those kinds accept that say the name themselves.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from asyncpull.dataclass import dataclass
from asyncpull.errors import DocumentError, InvalidReferenceError
from asyncpull.spec.reference import Reference, parse_reference
from asyncpull.spec.strictjson import StrictObject, path_of

if TYPE_CHECKING:
    from collections.abc import Callable

_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_HOST = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?"
_COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_PREFIX = re.compile(rf"{_HOST}(?:/{_COMPONENT})*")


@dataclass(frozen=True, slots=True)
class MatchExact:
    """The very name, with its tag or digest."""

    def accepts(self, intended: Reference | None, signed: str) -> bool:
        """Whether a signature for the name ``signed`` is one for ``intended``."""
        name = named(signed)
        return intended is not None and name is not None and _is_whole(name) and name == intended


@dataclass(frozen=True, slots=True)
class MatchRepoDigestOrExact:
    """The very name where that has a tag; where it is a digest, any name of the same repository."""

    def accepts(self, intended: Reference | None, signed: str) -> bool:
        """Whether a signature for the name ``signed`` is one for ``intended``."""
        return intended is not None and _repository_by_digest_or_exactly(intended, named(signed))


@dataclass(frozen=True, slots=True)
class MatchRepository:
    """Any name of the same repository."""

    def accepts(self, intended: Reference | None, signed: str) -> bool:
        """Whether a signature for the name ``signed`` is one for ``intended``."""
        name = named(signed)
        return intended is not None and name is not None and name.name == intended.name


@dataclass(frozen=True, slots=True)
class ExactReference:
    """``reference`` and no other name, whatever the image is called here."""

    reference: Reference

    def accepts(self, _intended: Reference | None, signed: str) -> bool:
        """Whether a signature for the name ``signed`` will do."""
        return named(signed) == self.reference


@dataclass(frozen=True, slots=True)
class ExactRepository:
    """Any name of ``repository``, whatever the image is called here."""

    repository: str

    def accepts(self, _intended: Reference | None, signed: str) -> bool:
        """Whether a signature for the name ``signed`` will do."""
        name = named(signed)
        return name is not None and name.name == self.repository


@dataclass(frozen=True, slots=True)
class RemapIdentity:
    """As MatchRepoDigestOrExact, after ``prefix`` of the name was replaced by ``signed_prefix``."""

    prefix: str
    signed_prefix: str

    def accepts(self, intended: Reference | None, signed: str) -> bool:
        """Whether a signature for the name ``signed`` is one for ``intended``."""
        if intended is None:
            return False
        if intended.name == self.prefix or intended.name.startswith(f"{self.prefix}/"):
            text = self.signed_prefix + str(intended)[len(self.prefix) :]
            remapped = named(text)
            if remapped is None or str(remapped) != text:  # a short name is not a prefix that anybody can mean
                return False
            intended = remapped
        return _repository_by_digest_or_exactly(intended, named(signed))


SignedIdentity = (
    MatchExact | MatchRepoDigestOrExact | MatchRepository | ExactReference | ExactRepository | RemapIdentity
)


def named(text: str) -> Reference | None:
    """What ``text`` names, None if it is no name; without a tag and a digest it is a repository, and stays one."""
    if text.startswith("docker://"):
        return None
    try:
        parsed = parse_reference(text)
    except InvalidReferenceError:
        return None
    if parsed.digest is None and ":" not in text.rpartition("/")[2]:
        return Reference(parsed.domain, parsed.path)
    return parsed


def parse_identity(identity: StrictObject) -> SignedIdentity:
    """Read the value of ``signedIdentity``. Raises DocumentError."""
    kind = identity.text("type")
    if kind not in _PARSERS:
        raise DocumentError(f"{path_of(identity.where, 'type')}: there is no identity requirement {kind!r}")
    return _PARSERS[kind](identity)


def _match_exact(identity: StrictObject) -> MatchExact:
    identity.exactly("type")
    return MatchExact()


def _match_repo_digest_or_exact(identity: StrictObject) -> MatchRepoDigestOrExact:
    identity.exactly("type")
    return MatchRepoDigestOrExact()


def _match_repository(identity: StrictObject) -> MatchRepository:
    identity.exactly("type")
    return MatchRepository()


def _exact_reference(identity: StrictObject) -> ExactReference:
    identity.exactly("type", "dockerReference")
    reference = _name(identity, "dockerReference")
    if not _is_whole(reference):
        raise DocumentError(f"{path_of(identity.where, 'dockerReference')} has neither a tag nor a digest")
    return ExactReference(reference)


def _exact_repository(identity: StrictObject) -> ExactRepository:
    identity.exactly("type", "dockerRepository")
    return ExactRepository(_name(identity, "dockerRepository").name)


def _remap(identity: StrictObject) -> RemapIdentity:
    identity.exactly("type", "prefix", "signedPrefix")
    for key in ("prefix", "signedPrefix"):
        if not _PREFIX.fullmatch(identity.text(key)):
            raise DocumentError(f"{path_of(identity.where, key)}: {identity.text(key)!r} is no prefix of names")
    return RemapIdentity(identity.text("prefix"), identity.text("signedPrefix"))


_PARSERS: dict[str, Callable[[StrictObject], SignedIdentity]] = {
    "matchExact": _match_exact,
    "matchRepoDigestOrExact": _match_repo_digest_or_exact,
    "matchRepository": _match_repository,
    "exactReference": _exact_reference,
    "exactRepository": _exact_repository,
    "remapIdentity": _remap,
}


def _name(identity: StrictObject, key: str) -> Reference:
    reference = named(identity.text(key))
    if reference is None:
        raise DocumentError(f"{path_of(identity.where, key)}: {identity.text(key)!r} is not a reference")
    return reference


def _is_whole(name: Reference) -> bool:
    return name.tag is not None or name.digest is not None


def _repository_by_digest_or_exactly(intended: Reference, signed: Reference | None) -> bool:
    if signed is None or not _is_whole(signed):
        return False
    if intended.tag is not None:
        return signed == intended
    return intended.digest is not None and signed.name == intended.name
