"""Private keys as cosign and skopeo keep them: PKCS #8, encrypted by NaCl's secretbox, in PEM.

::

    {"kdf": {"name": "scrypt", "params": {"N": …, "r": …, "p": …}, "salt": …},
     "cipher": {"name": "nacl/secretbox", "nonce": …}, "ciphertext": …}
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import load_der_private_key

from asyncpull.errors import ConfigurationError, DocumentError
from asyncpull.spec.fields import Fields

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey

_PEM = re.compile(
    rb"\s*-----BEGIN ENCRYPTED (COSIGN|SIGSTORE) PRIVATE KEY-----\s([A-Za-z0-9+/=\s]+)"
    rb"-----END ENCRYPTED \1 PRIVATE KEY-----\s*"
)
_MEMORY_LIMIT = 1 << 30  # what deriving the key may take; cosign's parameters take 64 MiB


def load_private_key(origin: str, raw: bytes, passphrase: bytes) -> PrivateKey:
    """Decrypt the key in ``raw``, which came from ``origin``. Raises ConfigurationError."""
    match = _PEM.fullmatch(raw)
    if match is None:
        raise ConfigurationError(f"{origin}: no private key of cosign", "skopeo generate-sigstore-key makes one")
    try:
        encoded = _decrypted(Fields.from_bytes(base64.b64decode(match[2]), "the key"), passphrase)
        key = load_der_private_key(encoded, None)
    except (DocumentError, ValueError, TypeError, binascii.Error, UnsupportedAlgorithm) as error:
        raise ConfigurationError(f"{origin}: {error}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey):
        raise ConfigurationError(f"{origin}: a key that is neither ECDSA nor RSA nor Ed25519")
    return key


def raw_signature(key: PrivateKey, data: bytes) -> bytes:
    """The signature of ``data``, over its SHA-256 but for Ed25519, which has a hash of its own."""
    match key:
        case ec.EllipticCurvePrivateKey():
            return key.sign(data, ec.ECDSA(hashes.SHA256()))
        case rsa.RSAPrivateKey():
            return key.sign(data, padding.PKCS1v15(), hashes.SHA256())
        case _:
            return key.sign(data)


def _decrypted(box: Fields, passphrase: bytes) -> bytes:
    from nacl.exceptions import CryptoError
    from nacl.secret import SecretBox

    derivation = Fields.of(box.get("kdf", dict), "kdf")
    cipher = Fields.of(box.get("cipher", dict), "cipher")
    if (derivation.get("name", str), cipher.get("name", str)) != ("scrypt", "nacl/secretbox"):
        raise DocumentError("the key is not encrypted by scrypt and nacl/secretbox")
    cost = Fields.of(derivation.get("params", dict), "kdf.params")
    n, r, p = cost.get("N", int), cost.get("r", int), cost.get("p", int)
    if min(n, r, p) < 1 or 128 * n * r * p > _MEMORY_LIMIT:
        raise DocumentError("the key was encrypted with parameters out of bounds")
    salt, nonce = _base64(derivation.get("salt", str)), _base64(cipher.get("nonce", str))
    secret = hashlib.scrypt(passphrase, salt=salt, n=n, r=r, p=p, maxmem=2 * _MEMORY_LIMIT - 1, dklen=32)
    try:
        plain: bytes = SecretBox(secret).decrypt(_base64(box.get("ciphertext", str)), nonce)
    except (CryptoError, ValueError, TypeError) as error:
        raise DocumentError("the passphrase is wrong, or the key is damaged") from error
    return plain


def _base64(text: str) -> bytes:
    return base64.b64decode(text, validate=True)
