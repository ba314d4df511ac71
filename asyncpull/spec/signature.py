"""Signatures as they are stored and sent: of two kinds, which nothing was verified of (containers-signature(5)).

In a lookaside store, in ``dir:`` and in a containers/storage store a signature is a file that tells its kind by its
first byte: one of OpenPGP's packets is *simple signing*, a zero begins ``\\0FORMAT\\n`` and what that format is.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import field
from types import MappingProxyType
from typing import TYPE_CHECKING

from asyncpull.dataclass import dataclass
from asyncpull.errors import DocumentError
from asyncpull.spec.fields import Fields

if TYPE_CHECKING:
    from collections.abc import Mapping

SIGNATURE_LIMIT = 4 << 20
"""Bytes that one signature may have."""
SIGNATURES_LIMIT = 128
"""Signatures that one manifest may have in one place."""
SIGNATURES_SIZE_LIMIT = 16 << 20
"""Bytes that all of those may have together, since all are held in memory; containers/image has no such limit."""
SIGSTORE_TYPE = "application/vnd.dev.cosign.simplesigning.v1+json"
"""The media type of what sigstore signs; other attachments of an image are not signatures of it."""
BUNDLE_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
"""The media type of a bundle of sigstore, which is a signature and all that proves it in one document."""

SIGSTORE_SIGNATURE = "dev.cosignproject.cosign/signature"
SIGSTORE_LOG_ENTRY = "dev.sigstore.cosign/bundle"
SIGSTORE_CERTIFICATE = "dev.sigstore.cosign/certificate"
SIGSTORE_CHAIN = "dev.sigstore.cosign/chain"

# What a message in OpenPGP begins with: compressed data, a one-pass signature or a signature, as old or new packets.
_OPENPGP = frozenset((0xA0, 0xA1, 0xA2, 0xA3, 0xC8, 0x90, 0x91, 0x92, 0x3D, 0xC4, 0x88, 0x89, 0x8A, 0x8B, 0xC2))
_SIMPLE, _SIGSTORE = b"simple-signing", b"sigstore-json"


@dataclass(frozen=True, slots=True)
class SimpleSignature:
    """A message in OpenPGP that holds what was signed."""

    message: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class SigstoreSignature:
    """A payload, and annotations that hold its signature and what else there is to be known; a bundle has no others."""

    media_type: str
    payload: bytes = field(repr=False)
    annotations: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


Signature = SimpleSignature | SigstoreSignature


def signature_from_file(raw: bytes, what: str) -> Signature:
    """Read the file of a signature, called ``what`` in messages. Raises DocumentError."""
    if not raw:
        raise DocumentError(f"{what} is empty")
    if raw[0] in _OPENPGP:
        return SimpleSignature(raw)
    name, newline, content = raw[1:].partition(b"\n")
    if raw[0] != 0 or not newline:
        raise DocumentError(f"{what} is no signature: it begins with {raw[:1]!r}")
    if name == _SIMPLE:
        return SimpleSignature(content)
    if name == _SIGSTORE:
        return _sigstore(Fields.from_bytes(content, what))
    raise DocumentError(f"{what} is a signature of the unknown format {name[:40]!r}")


def signature_to_file(signature: Signature) -> bytes:
    """The file of a signature."""
    if isinstance(signature, SimpleSignature):
        return signature.message
    document = {
        "mimeType": signature.media_type,
        "payload": base64.b64encode(signature.payload).decode(),
        "annotations": dict(signature.annotations),
    }
    return b"\0" + _SIGSTORE + b"\n" + json.dumps(document, separators=(",", ":")).encode()


def _sigstore(fields: Fields) -> SigstoreSignature:
    annotations = fields.get("annotations", dict, {})
    if not all(isinstance(value, str) for value in annotations.values()):
        raise DocumentError(f"{fields.where}.annotations has something that is no string")
    try:
        payload = base64.b64decode(fields.get("payload", str, ""), validate=True)
    except (binascii.Error, ValueError) as error:
        raise DocumentError(f"{fields.where}.payload is not base64") from error
    return SigstoreSignature(fields.get("mimeType", str, ""), payload, MappingProxyType(dict(annotations)))
