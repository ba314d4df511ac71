"""Signatures of sigstore, verified offline: by a key, or by a certificate (and what a log promised).

What is attached to an image is a claim that is signed as it is, with annotations beside it that hold its signature and
what proves the key. A bundle has a statement for the claim, and all of that in one document.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from asyncpull.dataclass import dataclass
from asyncpull.errors import ConfigurationError, DocumentError, IntegrityError
from asyncpull.spec.signature import (
    BUNDLE_TYPE,
    SIGSTORE_CERTIFICATE,
    SIGSTORE_CHAIN,
    SIGSTORE_LOG_ENTRY,
    SIGSTORE_SIGNATURE,
)
from asyncpull.trust.bundle import Bundle
from asyncpull.trust.certificates import authorities_key, fulcio_key
from asyncpull.trust.material import read_material
from asyncpull.trust.policy import Authorities, Fulcio, Material, SigstoreSigned
from asyncpull.trust.rekor import LogEntry, from_base64

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncpull.spec.signature import SigstoreSignature

PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey


class Evidence(Protocol):
    """What a signature comes with; nothing of it is verified. What is missing is a DocumentError when it is wanted."""

    @property
    def payload(self) -> bytes:
        """What was signed, as a log knows it."""

    @property
    def signed(self) -> bytes:
        """The bytes that the signature is of."""

    def signature(self) -> bytes:
        """The signature."""

    def certificate(self) -> str:
        """The certificate of whoever signed, in PEM."""

    def chain(self) -> str | None:
        """Certificates between that one and an authority, and a last one that nobody looks at; in PEM."""

    def entries(self) -> Sequence[LogEntry]:
        """What logs promised, at least one entry."""


@dataclass(frozen=True, slots=True)
class _Attached:
    """A payload that is signed as it is, with everything else in annotations beside it."""

    given: SigstoreSignature

    @property
    def payload(self) -> bytes:
        return self.given.payload

    @property
    def signed(self) -> bytes:
        return self.given.payload

    def signature(self) -> bytes:
        text = self._annotation(SIGSTORE_SIGNATURE)
        return from_base64(text.replace("\r", "").replace("\n", ""), SIGSTORE_SIGNATURE)

    def certificate(self) -> str:
        return self._annotation(SIGSTORE_CERTIFICATE)

    def chain(self) -> str | None:
        return self.given.annotations.get(SIGSTORE_CHAIN)

    def entries(self) -> Sequence[LogEntry]:
        return (LogEntry.from_annotation(self._annotation(SIGSTORE_LOG_ENTRY)),)

    def _annotation(self, name: str) -> str:
        if name not in self.given.annotations:
            raise DocumentError(f"the signature has no {name}")
        return self.given.annotations[name]


@dataclass(frozen=True, slots=True)
class _Bundled:
    """A bundle, which holds all of it but certificates of authorities."""

    bundle: Bundle

    @property
    def payload(self) -> bytes:
        return self.bundle.statement

    @property
    def signed(self) -> bytes:
        return self.bundle.signed

    def signature(self) -> bytes:
        return self.bundle.signature

    def certificate(self) -> str:
        if self.bundle.certificate is None:
            raise DocumentError("the bundle has no certificate")
        return self.bundle.certificate

    def chain(self) -> str | None:
        return None

    def entries(self) -> Sequence[LogEntry]:
        if not self.bundle.entries:
            raise DocumentError("the bundle has no entry of a log with a signed timestamp")
        return self.bundle.entries


def verified_payload(signature: SigstoreSignature, requirement: SigstoreSigned) -> bytes:
    """The payload of ``signature``, if whoever ``requirement`` names has signed it; of a bundle, its statement.

    Raises DocumentError, IntegrityError, and ConfigurationError for keys that cannot be read.
    """
    is_bundle = signature.media_type == BUNDLE_TYPE
    evidence: Evidence = _Bundled(Bundle.from_bytes(signature.payload)) if is_bundle else _Attached(signature)
    keys = _keys(evidence, requirement)
    if not any(_has_signed(key, evidence.signature(), evidence.signed) for key in keys):
        raise IntegrityError("not signed by " + ("the key" if len(keys) == 1 else "one of the keys") + " it should be")
    return evidence.payload


def _keys(evidence: Evidence, requirement: SigstoreSigned) -> list[PublicKey]:
    """The keys that may have made the signature, as far as certificates and logs say."""
    logs = None if requirement.rekor is None else _logs(requirement.rekor)
    match requirement.by:
        case Material():
            keys = public_keys(requirement.by)
            return keys if logs is None else [_logged_key(keys, evidence, logs)]
        case Fulcio():
            entries, certificate = evidence.entries(), evidence.certificate()
            seconds = _logged_at(entries, logs or (), certificate.encode(), evidence)
            return [_usable(fulcio_key(requirement.by, certificate, evidence.chain(), seconds))]
        case Authorities():
            return [_usable(authorities_key(requirement.by, evidence.certificate(), evidence.chain()))]


def _logged_key(keys: Sequence[PublicKey], evidence: Evidence, logs: Sequence[ec.EllipticCurvePublicKey]) -> PublicKey:
    entries, failures = evidence.entries(), list[str]()
    for key in keys:
        try:
            _logged_at(entries, logs, key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), evidence)
        except IntegrityError as error:
            failures.append(str(error))
        else:
            return key
    raise IntegrityError("; ".join(dict.fromkeys(failures)))


def _logged_at(
    entries: Sequence[LogEntry],
    logs: Sequence[ec.EllipticCurvePublicKey],
    key_or_certificate: bytes,
    evidence: Evidence,
) -> int:
    """When a log saw the signature, by the first entry that says so."""
    failures: list[str] = []
    for entry in entries:
        try:
            return entry.seen(logs, key_or_certificate, evidence.signature(), evidence.payload)
        except IntegrityError as error:
            failures.append(str(error))
    raise IntegrityError("; ".join(dict.fromkeys(failures)))


def public_keys(material: Material) -> list[PublicKey]:
    """The public keys of ``material``, one in each piece. Raises ConfigurationError."""
    keys = []
    for origin, raw in read_material(material):
        try:
            keys.append(_usable(load_pem_public_key(raw)))
        except (ValueError, TypeError, UnsupportedAlgorithm, DocumentError) as error:
            raise ConfigurationError(f"{origin}: no public key in PEM that can be used: {error}") from error
    return keys


def _logs(material: Material) -> list[ec.EllipticCurvePublicKey]:
    keys = [key for key in public_keys(material) if isinstance(key, ec.EllipticCurvePublicKey)]
    if len(keys) != len(material.paths) + len(material.data):
        raise ConfigurationError("the key of a log is not one of ECDSA")
    return keys


def _usable(key: object) -> PublicKey:
    if not isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey):
        raise DocumentError("a key that is neither ECDSA nor RSA nor Ed25519")
    return key


def _has_signed(key: PublicKey, signature: bytes, data: bytes) -> bool:
    try:
        match key:
            case ec.EllipticCurvePublicKey():
                key.verify(signature, data, ec.ECDSA(hashes.SHA256()))
            case rsa.RSAPublicKey():
                key.verify(signature, data, padding.PKCS1v15(), hashes.SHA256())
            case _:
                key.verify(signature, data)
    except InvalidSignature:
        return False
    return True
