"""``policy.json``: which requirements an image has to meet (containers-policy.json(5)).

::

    {"default": [REQUIREMENT…], "transports": {TRANSPORT: {SCOPE: [REQUIREMENT…], "": [REQUIREMENT…]}}}

The requirements of one scope count, those of the most specific one that fits the image, and all of them must be met. A
file with anything in it that is not understood is refused as a whole: a misspelt key must not mean less security.
"""

from __future__ import annotations

import base64
import binascii
import posixpath
from dataclasses import field
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from asyncpull.dataclass import dataclass
from asyncpull.errors import ConfigurationError, DocumentError, InvalidDigestError
from asyncpull.spec.digest import Digest
from asyncpull.spec.strictjson import StrictObject, as_text, items_of, path_of
from asyncpull.trust.identity import MatchRepoDigestOrExact, SignedIdentity, parse_identity

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from asyncpull.trust.scopes import ImageScopes

_KEY_TYPES = ("GPGKeys", "signedByGPGKeys", "X509Certificates", "signedByX509CAs")
_BY_PATH = frozenset({"dir", "oci", "oci-archive", "sif"})
_WITHOUT_SCOPES = frozenset({"docker-archive", "tarball"})


@dataclass(frozen=True, slots=True)
class Material:
    """Keys or certificates: files at ``paths``, or the very bytes in ``data``; one of both has something in it."""

    paths: tuple[str, ...] = ()
    data: tuple[bytes, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class AcceptAnything:
    """``insecureAcceptAnything``."""

    type: Literal["insecureAcceptAnything"] = "insecureAcceptAnything"


@dataclass(frozen=True, slots=True)
class Reject:
    """``reject``."""

    type: Literal["reject"] = "reject"


@dataclass(frozen=True, slots=True)
class SignedBy:
    """``signedBy``: a signature in OpenPGP by a key in one of the keyrings ``keys``."""

    key_type: str
    keys: Material
    identity: SignedIdentity
    type: Literal["signedBy"] = "signedBy"


@dataclass(frozen=True, slots=True)
class SignedBaseLayer:
    """``signedBaseLayer``: part of the format, and implemented by nobody; no image meets it."""

    identity: SignedIdentity
    type: Literal["signedBaseLayer"] = "signedBaseLayer"


@dataclass(frozen=True, slots=True)
class Fulcio:
    """Short-lived certificates of a Fulcio instance, for one user as one identity provider knows them."""

    authority: Material
    issuer: str
    email: str


@dataclass(frozen=True, slots=True)
class Authorities:
    """Certificates of one's own authorities (``pki``); ``email``, ``hostname`` or both are whose they must be."""

    roots: Material
    intermediates: Material | None
    email: str | None
    hostname: str | None


@dataclass(frozen=True, slots=True)
class SigstoreSigned:
    """``sigstoreSigned``: a signature by one of several keys, or by whoever has a certificate.

    ``rekor`` holds the keys of logs, one of which must have seen the signature; None where nobody asks for that.
    """

    by: Material | Fulcio | Authorities
    rekor: Material | None
    identity: SignedIdentity
    type: Literal["sigstoreSigned"] = "sigstoreSigned"


Requirement = AcceptAnything | Reject | SignedBy | SignedBaseLayer | SigstoreSigned


@dataclass(frozen=True, slots=True)
class Rule:
    """What decides about one image: ``scope`` is where in the policy it stands, for people."""

    scope: str
    requirements: tuple[Requirement, ...]

    @property
    def wants_signatures(self) -> bool:
        """Whether any signature could make a difference."""
        return any(isinstance(each, (SignedBy, SigstoreSigned)) for each in self.requirements)


@dataclass(frozen=True, slots=True)
class Policy:
    """A whole policy; ``origin`` is where it comes from."""

    default: tuple[Requirement, ...]
    transports: Mapping[str, Mapping[str, tuple[Requirement, ...]]] = field(
        default_factory=lambda: MappingProxyType({})
    )
    origin: str = "a policy"

    @classmethod
    def from_bytes(cls, path: Path, raw: bytes) -> Policy:
        """Parse the content of ``path``. Raises ConfigurationError, which names the key."""
        try:
            return _policy(StrictObject.parse(raw), str(path))
        except DocumentError as error:
            raise ConfigurationError(
                f"{path}: {error}", "the whole policy is refused: containers-policy.json(5)"
            ) from error

    def rule_for(self, image: ImageScopes) -> Rule:
        """The requirements of the most specific scope that there is for ``image``."""
        scopes = self.transports.get(image.transport)
        if scopes is not None:
            for scope in (*image.scopes, ""):
                if scope in scopes:
                    return Rule(path_of(path_of("transports", image.transport), scope), scopes[scope])
        return Rule("default", self.default)


def accept_anything(origin: str) -> Policy:
    """The policy that refuses nothing."""
    return Policy((AcceptAnything(),), origin=origin)


def _policy(document: StrictObject, origin: str) -> Policy:
    document.only("default", "transports")
    transports: dict[str, Mapping[str, tuple[Requirement, ...]]] = {}
    if document.has("transports"):
        by_transport = document.inner("transports")
        for transport in by_transport.values:
            transports[transport] = _scopes(transport, by_transport.inner(transport))
    return Policy(_requirements(document.value("default"), "default"), MappingProxyType(transports), origin)


def _scopes(transport: str, scopes: StrictObject) -> Mapping[str, tuple[Requirement, ...]]:
    for scope in scopes.values:
        problem = _problem_of(transport, scope) if scope else None
        if problem is not None:
            raise DocumentError(f"{path_of(scopes.where, scope)}: {problem}")
    return MappingProxyType(
        {scope: _requirements(value, path_of(scopes.where, scope)) for scope, value in scopes.values.items()}
    )


def _problem_of(transport: str, scope: str) -> str | None:
    """What is wrong with a scope, that could never fit an image; transports that nobody knows may have any."""
    if transport in _WITHOUT_SCOPES:
        return f'{transport} has no scopes but ""'
    if transport in _BY_PATH:
        return _problem_of_path(scope)
    if transport == "docker-daemon" and _is_digest(scope):
        return "an image ID is no scope"
    if transport == "containers-storage":
        return _problem_of_storage(scope)
    return None


def _problem_of_path(scope: str) -> str | None:
    if not scope.startswith("/"):
        return "is no absolute path"
    if scope == "/":
        return 'write "" for everything'
    # A path that begins with two slashes is another one to POSIX, and the same one to everybody here.
    clean = "/" + posixpath.normpath(scope).lstrip("/")
    return None if clean == scope else f"write it as {clean}"


def _problem_of_storage(scope: str) -> str | None:
    place, bracket, image = scope.removeprefix("[").partition("]")
    if not scope.startswith("[") or not bracket:
        return "does not begin with [DRIVER@ROOT] or [ROOT]"
    driver, at, root = place.partition("@")
    if (at and not (driver and root)) or not (root if at else driver).startswith("/"):
        return "does not begin with [DRIVER@ROOT] or [ROOT], an absolute path"
    _name, *rest = image.split("@", 2)
    if rest and not (_is_digest(rest[0]) or (len(rest) == 1 and _is_id(rest[0]))):
        return f"{rest[0]!r} is neither a digest nor an ID"
    if len(rest) == 2 and not _is_id(rest[1]):
        return f"{rest[1]!r} is no ID"
    return None


def _is_digest(text: str) -> bool:
    try:
        Digest.parse(text)
    except InvalidDigestError:
        return False
    return True


def _is_id(text: str) -> bool:
    return _is_digest(f"sha256:{text}")


def _requirements(value: object, where: str) -> tuple[Requirement, ...]:
    found = tuple(_requirement(StrictObject.of(item, path)) for item, path in items_of(value, where))
    if not found:
        raise DocumentError(f"{where} is empty: say insecureAcceptAnything or reject")
    return found


def _requirement(requirement: StrictObject) -> Requirement:
    kind = requirement.text("type")
    if kind not in _PARSERS:
        raise DocumentError(f"{path_of(requirement.where, 'type')}: there is no requirement {kind!r}")
    return _PARSERS[kind](requirement)


def _accept_anything(requirement: StrictObject) -> AcceptAnything:
    requirement.exactly("type")
    return AcceptAnything()


def _reject(requirement: StrictObject) -> Reject:
    requirement.exactly("type")
    return Reject()


def _signed_by(requirement: StrictObject) -> SignedBy:
    requirement.only("type", "keyType", "keyPath", "keyPaths", "keyData", "signedIdentity")
    key_type = requirement.text("keyType")
    if key_type not in _KEY_TYPES:
        raise DocumentError(f"{path_of(requirement.where, 'keyType')}: there is no type {key_type!r}")
    return SignedBy(key_type, _one_of(requirement, "keyPath", "keyPaths", "keyData"), _identity(requirement))


def _signed_base_layer(requirement: StrictObject) -> SignedBaseLayer:
    requirement.exactly("type", "baseLayerIdentity")
    return SignedBaseLayer(parse_identity(requirement.inner("baseLayerIdentity")))


_KEYS = ("keyPath", "keyPaths", "keyData", "keyDatas")
_REKOR_KEYS = ("rekorPublicKeyPath", "rekorPublicKeyPaths", "rekorPublicKeyData", "rekorPublicKeyDatas")


def _sigstore_signed(requirement: StrictObject) -> SigstoreSigned:
    requirement.only("type", *_KEYS, "fulcio", "pki", *_REKOR_KEYS, "signedIdentity")
    _only_one(requirement, *_KEYS, "fulcio", "pki")
    rekor = _one_of(requirement, *_REKOR_KEYS) if any(map(requirement.has, _REKOR_KEYS)) else None
    by: Material | Fulcio | Authorities
    if requirement.has("fulcio"):
        by = _fulcio(requirement.inner("fulcio"))
        if rekor is None:
            raise DocumentError(f"{requirement.where}: fulcio wants a rekorPublicKeyPath as well")
    elif requirement.has("pki"):
        by = _authorities(requirement.inner("pki"))
        if rekor is not None:
            raise DocumentError(f"{requirement.where}: pki and keys of Rekor exclude each other")
    else:
        by = _one_of(requirement, *_KEYS)
    return SigstoreSigned(by, rekor, _identity(requirement))


def _fulcio(fulcio: StrictObject) -> Fulcio:
    fulcio.only("caPath", "caData", "oidcIssuer", "subjectEmail")
    authority = _one_of(fulcio, "caPath", "caData")
    return Fulcio(authority, _filled(fulcio, "oidcIssuer"), _filled(fulcio, "subjectEmail"))


def _authorities(pki: StrictObject) -> Authorities:
    intermediates = ("caIntermediatesPath", "caIntermediatesData")
    pki.only("caRootsPath", "caRootsData", *intermediates, "subjectEmail", "subjectHostname")
    if not (pki.has("subjectEmail") or pki.has("subjectHostname")):
        raise DocumentError(f"{pki.where} has neither subjectEmail nor subjectHostname")
    return Authorities(
        _one_of(pki, "caRootsPath", "caRootsData"),
        _one_of(pki, *intermediates) if any(map(pki.has, intermediates)) else None,
        _filled(pki, "subjectEmail") if pki.has("subjectEmail") else None,
        _filled(pki, "subjectHostname") if pki.has("subjectHostname") else None,
    )


_PARSERS: dict[str, Callable[[StrictObject], Requirement]] = {
    "insecureAcceptAnything": _accept_anything,
    "reject": _reject,
    "signedBy": _signed_by,
    "signedBaseLayer": _signed_base_layer,
    "sigstoreSigned": _sigstore_signed,
}


def _identity(requirement: StrictObject) -> SignedIdentity:
    if not requirement.has("signedIdentity"):
        return MatchRepoDigestOrExact()
    return parse_identity(requirement.inner("signedIdentity"))


def _only_one(place: StrictObject, *keys: str) -> str:
    there = [key for key in keys if place.has(key)]
    if len(there) != 1:
        found = ", ".join(there) or "none"
        raise DocumentError(f"{place.where}: exactly one of {', '.join(keys)} is wanted, and there is {found}")
    return there[0]


def _one_of(place: StrictObject, *keys: str) -> Material:
    """The material that one of ``keys`` gives; its name tells whether that is paths or bytes, one or several."""
    key = _only_one(place, *keys)
    where = path_of(place.where, key)
    items = place.array(key) if key.endswith("s") else [(place.value(key), where)]
    texts = [(as_text(item, path), path) for item, path in items]
    if not texts:
        raise DocumentError(f"{where} is empty")
    for text, path in texts:
        if not text:
            raise DocumentError(f"{path} is empty")
    if key.removesuffix("s").endswith("Path"):
        return Material(paths=tuple(text for text, _ in texts))
    return Material(data=tuple(_base64(text, path) for text, path in texts))


def _filled(place: StrictObject, key: str) -> str:
    text = place.text(key)
    if not text:
        raise DocumentError(f"{path_of(place.where, key)} is empty")
    return text


def _base64(text: str, where: str) -> bytes:
    try:
        return base64.b64decode(text.replace("\r", "").replace("\n", ""), validate=True)
    except (binascii.Error, ValueError) as error:
        raise DocumentError(f"{where} is not base64") from error
