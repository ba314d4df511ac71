"""Bundles of sigstore, as cosign attaches them to an image by default since its third version.

::

    {"mediaType": TYPE,
     "verificationMaterial": {"publicKey": {…} or "certificate": {"rawBytes": DER}, "tlogEntries": [ENTRY…]},
     "dsseEnvelope": {"payloadType": TYPE, "payload": STATEMENT, "signatures": [{"sig": …}]}}

The statement (in-toto's) says what was signed, and it is signed in an envelope of DSSE, so that it cannot be taken for
a document of another type. Bundles with a signature of something else than a statement say nothing about an image.
"""

from __future__ import annotations

import base64
import textwrap

from asyncpull.dataclass import dataclass
from asyncpull.errors import DocumentError
from asyncpull.spec.signature import BUNDLE_TYPE
from asyncpull.spec.strictjson import StrictObject
from asyncpull.trust.rekor import LogEntry, from_base64

_STATEMENT = "application/vnd.in-toto+json"
_ENTRIES_LIMIT = 16


@dataclass(frozen=True, slots=True)
class Bundle:
    """``statement`` and its ``signature``; ``certificate`` is in PEM, None where the signer is a key and known.

    ``entries`` are those of logs that promise something. Nothing of it is verified.
    """

    statement: bytes
    signature: bytes
    certificate: str | None
    entries: tuple[LogEntry, ...]

    @classmethod
    def from_bytes(cls, raw: bytes) -> Bundle:
        """Read a bundle. Raises DocumentError."""
        document = StrictObject.parse(raw)
        if document.text("mediaType") != BUNDLE_TYPE:
            raise DocumentError(f"mediaType is {document.text('mediaType')[:80]!r}, not {BUNDLE_TYPE!r}")
        if not document.has("dsseEnvelope"):
            raise DocumentError("the bundle has no statement about an image")
        envelope, material = document.inner("dsseEnvelope"), document.inner("verificationMaterial")
        if envelope.text("payloadType") != _STATEMENT:
            raise DocumentError(f"dsseEnvelope.payloadType is {envelope.text('payloadType')[:80]!r}")
        signatures = envelope.array("signatures")
        if len(signatures) != 1:
            raise DocumentError(f"the bundle has {len(signatures)} signatures, not one")
        signature = StrictObject.of(*signatures[0])
        return cls(
            _bytes(envelope, "payload"),
            _bytes(signature, "sig"),
            _pem(_bytes(material.inner("certificate"), "rawBytes")) if material.has("certificate") else None,
            _entries(material),
        )

    @property
    def signed(self) -> bytes:
        """The bytes that the signature is of: the statement and its type, each after its length."""
        kind = _STATEMENT.encode()
        return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(self.statement), self.statement)


def _entries(material: StrictObject) -> tuple[LogEntry, ...]:
    found: list[LogEntry] = []
    listed = material.array("tlogEntries") if material.has("tlogEntries") else []
    if len(listed) > _ENTRIES_LIMIT:
        raise DocumentError(f"the bundle has {len(listed)} entries of logs, the limit is {_ENTRIES_LIMIT}")
    for item, where in listed:
        entry = StrictObject.of(item, where)
        if not entry.has("inclusionPromise"):  # a log may prove that it has the entry by other means
            continue
        body = _bytes(entry, "canonicalizedBody")
        found.append(
            LogEntry(
                base64.b64encode(body).decode(),
                _whole(entry, "integratedTime"),
                _bytes(entry.inner("logId"), "keyId").hex(),
                _whole(entry, "logIndex") if entry.has("logIndex") else 0,
                _bytes(entry.inner("inclusionPromise"), "signedEntryTimestamp"),
            )
        )
    return tuple(found)


def _whole(place: StrictObject, key: str) -> int:
    """An integer of 64 bits, which is a string in JSON made of protocol buffers, and may be a number."""
    value = place.value(key)
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 20:
        return int(value)
    return place.integer(key)


def _bytes(place: StrictObject, key: str) -> bytes:
    return from_base64(place.text(key), f"{place.where}.{key}")


def _pem(der: bytes) -> str:
    lines = textwrap.wrap(base64.b64encode(der).decode(), 64)
    return "\n".join(["-----BEGIN CERTIFICATE-----", *lines, "-----END CERTIFICATE-----", ""])
