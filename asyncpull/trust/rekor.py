"""The log of sigstore, Rekor: an entry that says it has seen a signature, verified without asking it.

A signature brings along what the log promised (its *signed entry timestamp*): a payload signed by the log's key, and in
it, as a *hashedrekord*, whose key made which signature of what.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from asyncpull.errors import DocumentError, IntegrityError
from asyncpull.spec.fields import Fields
from asyncpull.spec.strictjson import StrictObject

if TYPE_CHECKING:
    from collections.abc import Sequence

_PEM = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----\n([A-Za-z0-9+/=\n]+)-----END \1-----\n?")
_EXACT_INTEGERS = 1 << 53


def logged_at(
    entry: str, logs: Sequence[ec.EllipticCurvePublicKey], key_or_certificate: bytes, signature: bytes, payload: bytes
) -> int:
    """When one of ``logs`` saw that ``key_or_certificate`` (PEM) made ``signature`` of ``payload``; seconds since 1970.

    Raises DocumentError for an entry that cannot be read, IntegrityError for one that is not signed by a log or is
    about another key, signature or payload.
    """
    document = StrictObject.parse(entry.encode())
    document.exactly("SignedEntryTimestamp", "Payload")
    promise = _base64(document.text("SignedEntryTimestamp"), "SignedEntryTimestamp")
    inner = document.inner("Payload")
    inner.exactly("body", "integratedTime", "logIndex", "logID")
    seconds = inner.integer("integratedTime")
    signed = {
        "body": inner.text("body"),
        "integratedTime": seconds,
        "logID": inner.text("logID"),
        "logIndex": inner.integer("logIndex"),
    }
    if not all(abs(value) < _EXACT_INTEGERS for value in signed.values() if isinstance(value, int)):
        raise DocumentError("a number in the entry is too large")
    # RFC 8785, which for these four keys is no more than their order and no space.
    canonical = json.dumps(signed, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")
    if not any(_has_signed(log, promise, canonical) for log in logs):
        raise IntegrityError("the log entry is not signed by a log of the policy")
    _require_about(_base64(str(signed["body"]), "Payload.body"), key_or_certificate, signature, payload)
    return seconds


def _has_signed(log: ec.EllipticCurvePublicKey, signature: bytes, data: bytes) -> bool:
    try:
        log.verify(signature, data, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


def _require_about(body: bytes, key_or_certificate: bytes, signature: bytes, payload: bytes) -> None:
    record = Fields.from_bytes(body, "the log entry")
    if (record.get("kind", str), record.get("apiVersion", str)) != ("hashedrekord", "0.0.1"):
        raise DocumentError("the log entry is no hashedrekord of version 0.0.1")
    spec = _inner(record, "spec")
    seen, data = _inner(spec, "signature"), _inner(_inner(spec, "data"), "hash")
    key = _base64(_inner(seen, "publicKey").get("content", str), "the key in the log entry")
    if _der(key, "the key in the log entry") != _der(key_or_certificate, "the key"):
        raise IntegrityError("the log entry is about another key")
    if _base64(seen.get("content", str), "the signature in the log entry") != signature:
        raise IntegrityError("the log entry is about another signature")
    if data.get("algorithm", str) != "sha256":
        raise DocumentError("the log entry is not about a SHA-256")
    if data.get("value", str).lower() != hashlib.sha256(payload).hexdigest():
        raise IntegrityError("the log entry is about another payload")


def _inner(fields: Fields, key: str) -> Fields:
    return Fields.of(fields.get(key, dict), f"{fields.where}.{key}")


def _der(pem: bytes, what: str) -> bytes:
    match = _PEM.fullmatch(pem.replace(b"\r\n", b"\n"))
    if match is None:
        raise DocumentError(f"{what} is not in PEM")
    return _base64(match[2].decode().replace("\n", ""), what)


def _base64(text: str, what: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise DocumentError(f"{what} is not base64") from error
