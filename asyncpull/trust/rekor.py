"""The log of sigstore, Rekor: an entry that says it has seen a signature, verified without asking it.

A signature brings along what the log promised (its *signed entry timestamp*): a payload signed by the log's key, and in
it whose key made which signature of what, as a *hashedrekord*, or as *dsse* for what is signed in an envelope.
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

from asyncpull.dataclass import dataclass
from asyncpull.errors import DocumentError, IntegrityError
from asyncpull.spec.fields import Fields
from asyncpull.spec.strictjson import StrictObject

if TYPE_CHECKING:
    from collections.abc import Sequence

_PEM = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----\n([A-Za-z0-9+/=\n]+)-----END \1-----\n?")
_EXACT_INTEGERS = 1 << 53


@dataclass(frozen=True, slots=True)
class LogEntry:
    """What a log has written down, and ``promise``, its signature of that; nothing of it is verified.

    ``body`` is base64, as it was signed; ``seconds`` since 1970 is when the log saw it.
    """

    body: str
    seconds: int
    log_id: str
    index: int
    promise: bytes

    @classmethod
    def from_annotation(cls, text: str) -> LogEntry:
        """Read the annotation of a signature that holds an entry. Raises DocumentError."""
        document = StrictObject.parse(text.encode("utf-8", "surrogatepass"))
        document.exactly("SignedEntryTimestamp", "Payload")
        promise = from_base64(document.text("SignedEntryTimestamp"), "SignedEntryTimestamp")
        inner = document.inner("Payload")
        inner.exactly("body", "integratedTime", "logIndex", "logID")
        return cls(
            inner.text("body"), inner.integer("integratedTime"), inner.text("logID"), inner.integer("logIndex"), promise
        )

    def seen(
        self,
        logs: Sequence[ec.EllipticCurvePublicKey],
        key_or_certificate: bytes,
        signature: bytes,
        payload: bytes,
    ) -> int:
        """When one of ``logs`` saw that ``key_or_certificate`` (PEM) made ``signature`` of ``payload``, in seconds.

        Raises DocumentError for an entry that cannot be read, IntegrityError for one that is not signed by a log or is
        about another key, signature or payload.
        """
        if not all(abs(value) < _EXACT_INTEGERS for value in (self.seconds, self.index)):
            raise DocumentError("a number in the log entry is too large")
        signed = {
            "body": self.body,
            "integratedTime": self.seconds,
            "logID": self.log_id,
            "logIndex": self.index,
        }
        # RFC 8785, which for these four keys is no more than their order and no space.
        canonical = json.dumps(signed, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")
        if not any(_has_signed(log, self.promise, canonical) for log in logs):
            raise IntegrityError("the log entry is not signed by a log of the policy")
        _require_about(from_base64(self.body, "the body of the log entry"), key_or_certificate, signature, payload)
        return self.seconds


def _has_signed(log: ec.EllipticCurvePublicKey, signature: bytes, data: bytes) -> bool:
    try:
        log.verify(signature, data, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


def _require_about(body: bytes, key_or_certificate: bytes, signature: bytes, payload: bytes) -> None:
    record = Fields.from_bytes(body, "the log entry")
    kind = record.get("kind", str), record.get("apiVersion", str)
    if kind not in _READERS:
        raise DocumentError(f"the log entry is a {kind[0][:40]!r} of version {kind[1][:40]!r}, which is not known here")
    key, seen, digest = _READERS[kind](_inner(record, "spec"))
    if _der(from_base64(key, "the key in the log entry"), "the key in the log entry") != _der(
        key_or_certificate, "the key"
    ):
        raise IntegrityError("the log entry is about another key")
    if from_base64(seen, "the signature in the log entry") != signature:
        raise IntegrityError("the log entry is about another signature")
    if digest.get("algorithm", str) != "sha256":
        raise DocumentError("the log entry is not about a SHA-256")
    if digest.get("value", str).lower() != hashlib.sha256(payload).hexdigest():
        raise IntegrityError("the log entry is about another payload")


def _hashedrekord(spec: Fields) -> tuple[str, str, Fields]:
    """The key, the signature and the digest of the payload, the first two in base64."""
    seen = _inner(spec, "signature")
    key = _inner(seen, "publicKey").get("content", str)
    return key, seen.get("content", str), _inner(_inner(spec, "data"), "hash")


def _dsse(spec: Fields) -> tuple[str, str, Fields]:
    """The same of an envelope, which has one signature."""
    signatures = spec.array("signatures")
    if len(signatures) != 1:
        raise DocumentError(f"the log entry is about {len(signatures)} signatures, not one")
    seen = Fields.of(*signatures[0])
    return seen.get("verifier", str), seen.get("signature", str), _inner(spec, "payloadHash")


_READERS = {("hashedrekord", "0.0.1"): _hashedrekord, ("dsse", "0.0.1"): _dsse}


def _inner(fields: Fields, key: str) -> Fields:
    return Fields.of(fields.get(key, dict), f"{fields.where}.{key}")


def _der(pem: bytes, what: str) -> bytes:
    match = _PEM.fullmatch(pem.replace(b"\r\n", b"\n"))
    if match is None:
        raise DocumentError(f"{what} is not in PEM")
    return from_base64(match[2].decode().replace("\n", ""), what)


def from_base64(text: str, what: str) -> bytes:
    """The bytes of ``text``, which is called ``what`` in messages. Raises DocumentError."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise DocumentError(f"{what} is not base64") from error
