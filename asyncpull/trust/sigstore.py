"""Signatures of sigstore, verified offline: by a key, or by a certificate (and what a log promised).

The payload is signed as it is, and holds a claim; its signature and what proves the key are annotations beside it.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from asyncpull.errors import ConfigurationError, DocumentError, IntegrityError
from asyncpull.spec.signature import SIGSTORE_CERTIFICATE, SIGSTORE_CHAIN, SIGSTORE_LOG_ENTRY, SIGSTORE_SIGNATURE
from asyncpull.trust.certificates import authorities_key, fulcio_key
from asyncpull.trust.material import read_material
from asyncpull.trust.policy import Authorities, Fulcio, Material, SigstoreSigned
from asyncpull.trust.rekor import logged_at

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from asyncpull.spec.signature import SigstoreSignature

PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey


def verified_payload(signature: SigstoreSignature, requirement: SigstoreSigned) -> bytes:
    """The payload of ``signature``, if whoever ``requirement`` names has signed it.

    Raises DocumentError, IntegrityError, and ConfigurationError for keys that cannot be read.
    """
    logs = None if requirement.rekor is None else _logs(requirement.rekor)
    made = _annotation(signature.annotations, SIGSTORE_SIGNATURE)
    try:
        raw = base64.b64decode(made.replace("\r", "").replace("\n", ""), validate=True)
    except (binascii.Error, ValueError) as error:
        raise DocumentError(f"{SIGSTORE_SIGNATURE} is not base64") from error
    keys = _keys(signature, requirement, logs, raw)
    if not any(_has_signed(key, raw, signature.payload) for key in keys):
        raise IntegrityError("not signed by " + ("the key" if len(keys) == 1 else "one of the keys") + " it should be")
    return signature.payload


def _keys(
    signature: SigstoreSignature,
    requirement: SigstoreSigned,
    logs: Sequence[ec.EllipticCurvePublicKey] | None,
    raw: bytes,
) -> list[PublicKey]:
    """The keys that may have made ``raw``, as far as certificates and logs say."""
    annotations, payload = signature.annotations, signature.payload
    match requirement.by:
        case Material():
            keys = public_keys(requirement.by)
            if logs is None:
                return keys
            return [_logged_key(keys, _annotation(annotations, SIGSTORE_LOG_ENTRY), logs, raw, payload)]
        case Fulcio():
            entry = _annotation(annotations, SIGSTORE_LOG_ENTRY)
            certificate = _annotation(annotations, SIGSTORE_CERTIFICATE)
            seconds = logged_at(entry, logs or (), certificate.encode(), raw, payload)
            return [_usable(fulcio_key(requirement.by, certificate, annotations.get(SIGSTORE_CHAIN), seconds))]
        case Authorities():
            certificate = _annotation(annotations, SIGSTORE_CERTIFICATE)
            return [_usable(authorities_key(requirement.by, certificate, annotations.get(SIGSTORE_CHAIN)))]


def _logged_key(
    keys: Sequence[PublicKey], entry: str, logs: Sequence[ec.EllipticCurvePublicKey], raw: bytes, payload: bytes
) -> PublicKey:
    failures: list[str] = []
    for key in keys:
        try:
            logged_at(entry, logs, key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), raw, payload)
        except IntegrityError as error:
            failures.append(str(error))
        else:
            return key
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


def _annotation(annotations: Mapping[str, str], name: str) -> str:
    if name not in annotations:
        raise DocumentError(f"the signature has no {name}")
    return annotations[name]
