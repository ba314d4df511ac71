"""Keys of all kinds and what they sign, made with other code than ours: by Sequoia, by cryptography and by gpg."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pysequoia
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SIMPLE, SIGSTORE = "atomic container signature", "cosign container image signature"
SIGNATURE = "dev.cosignproject.cosign/signature"
BUNDLE, CERTIFICATE, CHAIN = (f"dev.sigstore.cosign/{name}" for name in ("bundle", "certificate", "chain"))
NOW = datetime.now(UTC).replace(microsecond=0)


def claim(kind: str, digest: str, name: str, **optional: object) -> bytes:
    """What is signed, as other tools write it."""
    critical = {"type": kind, "image": {"docker-manifest-digest": digest}, "identity": {"docker-reference": name}}
    return json.dumps({"critical": critical, "optional": optional}).encode()


class PgpKey:
    """A key of OpenPGP with a subkey that signs."""

    def __init__(self) -> None:
        self.secret = pysequoia.Tsk.generate(user_id="somebody <a@b.example>")

    @property
    def public(self) -> bytes:
        return bytes(self.secret.extract_certificate())

    @property
    def fingerprint(self) -> str:
        return str(self.secret.extract_certificate().fingerprint)

    @property
    def revoked(self) -> bytes:
        """The public key with a note that it is not to be used any more."""
        certificate = pysequoia.Cert.from_bytes(bytes(self.secret))
        return self.public + bytes(certificate.revoke(self.secret.certifier()))

    def sign(self, content: bytes) -> bytes:
        return bytes(pysequoia.sign(self.secret.signer(), content, mode=pysequoia.SignatureMode.INLINE, armor=False))


SigstoreKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


def sigstore_keys() -> dict[str, SigstoreKey]:
    """A key of each kind."""
    return {
        "P-256": ec.generate_private_key(ec.SECP256R1()),
        "P-384": ec.generate_private_key(ec.SECP384R1()),
        "RSA": rsa.generate_private_key(65537, 2048),
        "Ed25519": ed25519.Ed25519PrivateKey.generate(),
    }


def public_pem(key: SigstoreKey) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def raw_sign(key: SigstoreKey, payload: bytes) -> bytes:
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return key.sign(payload, ec.ECDSA(hashes.SHA256()))
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(payload, padding.PKCS1v15(), hashes.SHA256())
    return key.sign(payload)


def log_entry(
    log: ec.EllipticCurvePrivateKey, key_or_certificate: bytes, signature: bytes, payload: bytes, when: datetime
) -> str:
    """What a log promises to have seen, as an annotation holds it."""
    body = {
        "apiVersion": "0.0.1",
        "kind": "hashedrekord",
        "spec": {
            "data": {"hash": {"algorithm": "sha256", "value": hashlib.sha256(payload).hexdigest()}},
            "signature": {"content": encode(signature), "publicKey": {"content": encode(key_or_certificate)}},
        },
    }
    entry = {
        "body": encode(json.dumps(body).encode()),
        "integratedTime": int(when.timestamp()),
        "logID": "c0d23d6ad406973f9559f3ba2d1ca01f84147d8ffc5b8445c224f98b9591801d",
        "logIndex": 8949589,
    }
    canonical = json.dumps(entry, sort_keys=True, separators=(",", ":")).encode()
    return json.dumps({"SignedEntryTimestamp": encode(raw_sign(log, canonical)), "Payload": entry})


BUNDLE_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
_STATEMENT = "application/vnd.in-toto+json"


def statement(digest: str, name: str | None = None, **changes: object) -> bytes:
    """What cosign signs in a bundle: that an image may be used, under a name if one is given."""
    annotations = {} if name is None else {"docker-reference": name}
    subject = {"digest": {"sha256": digest.removeprefix("sha256:")}, "annotations": annotations}
    document = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [subject],
        "predicateType": "https://sigstore.dev/cosign/sign/v1",
        "predicate": {},
    }
    return json.dumps(document | changes).encode()


def bundle(key: SigstoreKey, content: bytes, *, certificate: bytes | None = None, entries: object = None) -> bytes:
    """A bundle with a statement that ``key`` signs; ``certificate`` is in PEM."""
    signed = b" ".join([b"DSSEv1", b"%d" % len(_STATEMENT), _STATEMENT.encode(), b"%d" % len(content), content])
    material: dict[str, object] = {"publicKey": {"hint": "whatever"}}
    if certificate is not None:
        der = x509.load_pem_x509_certificate(certificate).public_bytes(Encoding.DER)
        material = {"certificate": {"rawBytes": encode(der)}}
    if entries is not None:
        material["tlogEntries"] = entries
    signature = encode(raw_sign(key, signed))
    envelope = {"payload": encode(content), "payloadType": _STATEMENT, "signatures": [{"sig": signature}]}
    return json.dumps({"mediaType": BUNDLE_TYPE, "verificationMaterial": material, "dsseEnvelope": envelope}).encode()


def bundle_entry(
    log: ec.EllipticCurvePrivateKey, key_or_certificate: bytes, raw: bytes, content: bytes, when: datetime
) -> dict[str, object]:
    """What a log promises about the bundle ``raw``, as an entry for it; ``content`` is its statement."""
    signature = json.loads(raw)["dsseEnvelope"]["signatures"][0]["sig"]
    spec = {
        "envelopeHash": {"algorithm": "sha256", "value": "0" * 64},
        "payloadHash": {"algorithm": "sha256", "value": hashlib.sha256(content).hexdigest()},
        "signatures": [{"signature": signature, "verifier": encode(key_or_certificate)}],
    }
    body = encode(json.dumps({"apiVersion": "0.0.1", "kind": "dsse", "spec": spec}).encode())
    log_id = hashlib.sha256(b"log")
    promised = {
        "body": body,
        "integratedTime": int(when.timestamp()),
        "logID": log_id.hexdigest(),
        "logIndex": 25579,
    }
    canonical = json.dumps(promised, sort_keys=True, separators=(",", ":")).encode()
    return {
        "logIndex": "25579",
        "logId": {"keyId": encode(log_id.digest())},
        "kindVersion": {"kind": "dsse", "version": "0.0.1"},
        "integratedTime": str(promised["integratedTime"]),
        "inclusionPromise": {"signedEntryTimestamp": encode(raw_sign(log, canonical))},
        "canonicalizedBody": body,
    }


def encode(data: bytes) -> str:
    return base64.b64encode(data).decode()


@dataclass
class Authority:
    """A certificate authority, or one below another."""

    name: str
    parent: Authority | None = None
    may_certify: bool = True
    begins: datetime = NOW - timedelta(days=30)
    ends: datetime = NOW + timedelta(days=30)

    def __post_init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        issuer = self.parent or self
        self.certificate = (
            self._builder(self.name, issuer.name, self.key.public_key(), self.begins, self.ends)
            .add_extension(x509.BasicConstraints(ca=self.may_certify, path_length=None), critical=True)
            .sign(issuer.key, hashes.SHA256())
        )

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    def issue(
        self,
        key: SigstoreKey,
        *,
        email: str = "a@b.example",
        host: str = "signer.example",
        issuer: str | None = "https://issuer.example",
        usage: x509.ObjectIdentifier | None = ExtendedKeyUsageOID.CODE_SIGNING,
        begins: datetime = NOW - timedelta(days=1),
        ends: datetime = NOW + timedelta(days=1),
    ) -> bytes:
        """A certificate for ``key``, in PEM; ``issuer`` is what Fulcio would say of the user's identity provider."""
        names = x509.SubjectAlternativeName([x509.RFC822Name(email), x509.DNSName(host)])
        builder = self._builder("leaf", self.name, key.public_key(), begins, ends).add_extension(names, critical=True)
        if usage is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        if issuer is not None:
            text = issuer.encode()
            old = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.1"), text)
            new = x509.UnrecognizedExtension(
                x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.8"), bytes([0x0C, len(text)]) + text
            )
            builder = builder.add_extension(old, critical=False).add_extension(new, critical=False)
        return builder.sign(self.key, hashes.SHA256()).public_bytes(Encoding.PEM)

    @staticmethod
    def _builder(subject: str, issuer: str, key: object, begins: datetime, ends: datetime) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
            .public_key(key)  # type: ignore[arg-type]  # each of them is one
            .serial_number(x509.random_serial_number())
            .not_valid_before(begins)
            .not_valid_after(ends)
        )


@dataclass(frozen=True, slots=True)
class Gpg:
    """A gpg with a home of its own, which has a short path: its agent listens on a socket there."""

    home: Path

    @property
    def environment(self) -> Mapping[str, str]:
        return {**os.environ, "GNUPGHOME": str(self.home)}

    def run(self, *arguments: str, data: bytes = b"") -> bytes:
        command = ["gpg", "--batch", "--quiet", "--passphrase", "", *arguments]
        return subprocess.run(command, input=data, env=self.environment, capture_output=True, check=True).stdout

    def make_key(self, name: str, *options: str, usage: str = "sign", lasts: str = "never") -> str:
        """Make a key; its fingerprint."""
        self.run(*options, "--quick-generate-key", name, "ed25519", usage, lasts)
        return self.fingerprint(name)

    def fingerprint(self, name: str) -> str:
        lines = self.run("--list-keys", "--with-colons", name).decode().splitlines()
        return next(line.split(":")[9] for line in lines if line.startswith("fpr"))

    def export(self, name: str) -> bytes:
        return self.run("--export", name)

    def end(self) -> None:
        """End the agent that was started meanwhile."""
        subprocess.run(["gpgconf", "--kill", "all"], env=self.environment, check=False, capture_output=True)
