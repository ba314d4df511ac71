"""Verdicts: every requirement met and refused, with keys and signatures that other code made."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from asyncpull.errors import PolicyError
from asyncpull.spec.reference import parse_reference
from asyncpull.spec.signature import SIGSTORE_TYPE, Signature, SigstoreSignature, SimpleSignature
from asyncpull.trust.identity import MatchExact, MatchRepoDigestOrExact
from asyncpull.trust.judge import Verdict, judge
from asyncpull.trust.policy import (
    AcceptAnything,
    Authorities,
    Fulcio,
    Material,
    Reject,
    Requirement,
    Rule,
    SignedBaseLayer,
    SignedBy,
    SigstoreSigned,
)
from asyncpull.trust.scopes import of_reference
from tests.support.signers import (
    BUNDLE,
    CERTIFICATE,
    CHAIN,
    NOW,
    SIGNATURE,
    SIGSTORE,
    SIMPLE,
    Authority,
    PgpKey,
    SigstoreKey,
    claim,
    encode,
    log_entry,
    public_pem,
    raw_sign,
    sigstore_keys,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NAME = "a.example/b:1"
MANIFEST = b'{"schemaVersion": 2}'
DIGEST = "sha256:" + hashlib.sha256(MANIFEST).hexdigest()
USUAL = MatchRepoDigestOrExact()
ISSUER, EMAIL = "https://issuer.example", "a@b.example"


@pytest.fixture(scope="module")
def key() -> PgpKey:
    return PgpKey()


@pytest.fixture(scope="module")
def other() -> PgpKey:
    return PgpKey()


@pytest.fixture(scope="module")
def keys() -> dict[str, SigstoreKey]:
    return sigstore_keys()


def verdict(
    *requirements: Requirement, signatures: tuple[Signature, ...] = (), name: str = NAME, manifest: bytes = MANIFEST
) -> Verdict:
    image = of_reference(parse_reference(name))
    return judge("/policy.json", Rule("default", requirements), image, manifest, signatures)


def why(found: Verdict) -> str:
    """The reasons of a verdict that refuses, which is what a pull would tell."""
    assert not found.is_accepted
    with pytest.raises(PolicyError) as caught:
        found.require()
    return str(caught.value)


def pgp(*keyrings: bytes, key_type: str = "GPGKeys") -> SignedBy:
    return SignedBy(key_type, Material(data=keyrings), USUAL)


# ---- without signatures


def test_accept_and_reject() -> None:
    assert verdict(AcceptAnything()).is_accepted
    assert why(verdict(Reject())) == f"docker://{NAME}: everything is rejected"
    assert why(verdict(AcceptAnything(), Reject())) == f"docker://{NAME}: everything is rejected"
    assert "implemented by nobody" in why(verdict(SignedBaseLayer(MatchExact())))
    assert not verdict().is_accepted


def test_every_requirement_is_explained(key: PgpKey) -> None:
    found = verdict(AcceptAnything(), pgp(key.public), SigstoreSigned(Material(("/none",)), None, USUAL), Reject())
    assert [finding.is_met for finding in found.findings] == [True, False, False, False]
    message = why(found)
    assert message.count("a signature is required, and there is none of that kind") == 1
    assert "everything is rejected" in message


# ---- simple signing


def test_signed_by(key: PgpKey, other: PgpKey) -> None:
    signature = SimpleSignature(key.sign(claim(SIMPLE, DIGEST, NAME)))
    for requirement in (pgp(key.public), pgp(other.public, key.public), pgp(other.public + key.public)):
        found = verdict(requirement, signatures=(signature,))
        assert found.is_accepted
        assert found.findings[0].reasons == (f"signed by the key {key.fingerprint}",)
    assert "not signed by one of the policy's keys" in why(verdict(pgp(other.public), signatures=(signature,)))


def test_one_good_signature_among_others_is_enough(key: PgpKey, other: PgpKey) -> None:
    good, foreign = (SimpleSignature(each.sign(claim(SIMPLE, DIGEST, NAME))) for each in (key, other))
    junk = SimpleSignature(b"\x90junk")
    attached = SigstoreSignature(SIGSTORE_TYPE, b"{}")
    assert verdict(pgp(key.public), signatures=(junk, attached, foreign, good)).is_accepted
    message = why(verdict(pgp(key.public), signatures=(junk, attached, foreign)))
    assert "signature 1: " in message
    assert "signature 2: not signed" in message
    assert verdict(pgp(key.public), pgp(other.public), signatures=(foreign, good)).is_accepted
    assert not verdict(pgp(key.public), pgp(other.public), signatures=(good,)).is_accepted


@pytest.mark.parametrize(
    ("kind", "digest", "name", "reason"),
    [
        (SIMPLE, "sha256:" + "0" * 64, NAME, "for another manifest, sha256:000"),
        (SIMPLE, DIGEST, "a.example/b:2", "for the name 'a.example/b:2'"),
        (SIMPLE, DIGEST, "a.example/b", "for the name 'a.example/b'"),
        (SIMPLE, DIGEST, "", "for the name ''"),
        (SIGSTORE, DIGEST, NAME, "no claim about an image: critical.type"),
        (SIMPLE, "md5:00", NAME, "no claim about an image: critical.image"),
    ],
)
def test_a_claim_about_something_else(key: PgpKey, kind: str, digest: str, name: str, reason: str) -> None:
    signature = SimpleSignature(key.sign(claim(kind, digest, name)))
    assert reason in why(verdict(pgp(key.public), signatures=(signature,)))


def test_other_algorithms_of_digests(key: PgpKey) -> None:
    digest = "sha512:" + hashlib.sha512(MANIFEST).hexdigest()
    signature = SimpleSignature(key.sign(claim(SIMPLE, digest, NAME)))
    assert verdict(pgp(key.public), signatures=(signature,)).is_accepted
    assert not verdict(pgp(key.public), signatures=(signature,), manifest=MANIFEST + b" ").is_accepted


def test_every_byte_of_a_signature_counts(key: PgpKey) -> None:
    message = key.sign(claim(SIMPLE, DIGEST, NAME))
    requirement = pgp(key.public)
    for position in range(0, len(message), 7):
        changed = bytearray(message)
        changed[position] ^= 0x10
        found = verdict(requirement, signatures=(SimpleSignature(bytes(changed)),))
        if found.is_accepted:  # only what is not hashed, such as hints about who signed, may be other bytes
            assert verdict(requirement, signatures=(SimpleSignature(message),)).is_accepted
            assert position not in range(message.index(b"critical"), message.index(b"optional"))
    for end in range(0, len(message), 11):
        assert not verdict(requirement, signatures=(SimpleSignature(message[:end]),)).is_accepted
    assert not verdict(requirement, signatures=(SimpleSignature(message + message),)).is_accepted


def test_a_revoked_key_and_no_key(key: PgpKey) -> None:
    signature = SimpleSignature(key.sign(claim(SIMPLE, DIGEST, NAME)))
    assert not verdict(pgp(key.revoked), signatures=(signature,)).is_accepted
    assert not verdict(pgp(key.public, key.revoked), signatures=(signature,)).is_accepted
    assert "no keyring of OpenPGP" in why(verdict(pgp(b"nonsense"), signatures=(signature,)))
    assert "keyType X509Certificates" in why(
        verdict(pgp(key.public, key_type="X509Certificates"), signatures=(signature,))
    )


def test_a_keyring_that_cannot_be_read(key: PgpKey, tmp_path: Path) -> None:
    signature = SimpleSignature(key.sign(claim(SIMPLE, DIGEST, NAME)))
    path = tmp_path / "ring.gpg"
    requirement = SignedBy("GPGKeys", Material((str(path),)), USUAL)
    assert f"{path}: the key cannot be read: No such file" in why(verdict(requirement, signatures=(signature,)))
    path.write_bytes(key.public)
    assert verdict(requirement, signatures=(signature,)).is_accepted


# ---- sigstore by keys


def attached(
    key: SigstoreKey, payload: bytes | None = None, media_type: str = SIGSTORE_TYPE, **more: str
) -> SigstoreSignature:
    payload = claim(SIGSTORE, DIGEST, NAME) if payload is None else payload
    named = {{"bundle": BUNDLE, "certificate": CERTIFICATE, "chain": CHAIN}[name]: text for name, text in more.items()}
    return SigstoreSignature(media_type, payload, {SIGNATURE: encode(raw_sign(key, payload))} | named)


def by_keys(*keys: SigstoreKey, rekor: SigstoreKey | None = None) -> SigstoreSigned:
    logs = None if rekor is None else Material(data=(public_pem(rekor),))
    return SigstoreSigned(Material(data=tuple(map(public_pem, keys))), logs, USUAL)


@pytest.mark.parametrize("kind", ["P-256", "P-384", "RSA", "Ed25519"])
def test_sigstore_by_a_key(keys: dict[str, SigstoreKey], kind: str) -> None:
    key = keys[kind]
    rest = [each for name, each in keys.items() if name != kind]
    assert verdict(by_keys(key), signatures=(attached(key),)).is_accepted
    assert verdict(by_keys(*rest, key), signatures=(attached(key),)).is_accepted
    assert "not signed by one of the keys" in why(verdict(by_keys(*rest), signatures=(attached(key),)))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda one: replace(one, payload=one.payload + b" "), "not signed by the key"),
        (lambda one: replace(one, annotations={}), f"the signature has no {SIGNATURE}"),
        (lambda one: replace(one, annotations={SIGNATURE: "no base64"}), f"{SIGNATURE} is not base64"),
        (lambda one: replace(one, annotations={SIGNATURE: ""}), "not signed by the key"),
        (lambda one: replace(one, media_type="application/vnd.dsse.envelope.v1+json"), "there is none of that kind"),
    ],
)
def test_sigstore_that_was_changed(
    keys: dict[str, SigstoreKey], change: Callable[[SigstoreSignature], SigstoreSignature], reason: str
) -> None:
    key = keys["P-256"]
    assert reason in why(verdict(by_keys(key), signatures=(change(attached(key)),)))


@pytest.mark.parametrize(
    ("kind", "digest", "name", "reason"),
    [
        (SIGSTORE, "sha256:" + "0" * 64, NAME, "for another manifest"),
        (SIGSTORE, DIGEST, "a.example/b", "for the name 'a.example/b'"),
        (SIMPLE, DIGEST, NAME, "no claim about an image"),
    ],
)
def test_sigstore_about_something_else(
    keys: dict[str, SigstoreKey], kind: str, digest: str, name: str, reason: str
) -> None:
    key = keys["P-256"]
    assert reason in why(verdict(by_keys(key), signatures=(attached(key, claim(kind, digest, name)),)))


def test_keys_that_cannot_be_used(keys: dict[str, SigstoreKey]) -> None:
    requirement = SigstoreSigned(Material(data=(b"nonsense",)), None, USUAL)
    assert "no public key in PEM" in why(verdict(requirement, signatures=(attached(keys["RSA"]),)))
    rekor = by_keys(keys["P-256"], rekor=keys["RSA"])
    assert "not one of ECDSA" in why(verdict(rekor, signatures=(attached(keys["P-256"]),)))


# ---- sigstore with a log


@pytest.fixture(scope="module")
def log() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def logged(
    key: SigstoreKey, log: ec.EllipticCurvePrivateKey, *, of: SigstoreKey | None = None, payload: bytes | None = None
) -> SigstoreSignature:
    made = attached(key)
    raw = raw_sign(key, made.payload) if payload is not None else base64.b64decode(made.annotations[SIGNATURE])
    entry = log_entry(log, public_pem(of or key), raw, payload or made.payload, NOW)
    return replace(made, annotations={**made.annotations, BUNDLE: entry})


def test_a_log_must_have_seen_it(keys: dict[str, SigstoreKey], log: ec.EllipticCurvePrivateKey) -> None:
    key, rest = keys["P-256"], keys["Ed25519"]
    requirement = by_keys(rest, key, rekor=log)
    assert verdict(requirement, signatures=(logged(key, log),)).is_accepted
    another = ec.generate_private_key(ec.SECP256R1())
    for signature, reason in (
        (attached(key), f"the signature has no {BUNDLE}"),
        (logged(key, another), "not signed by a log of the policy"),
        (logged(key, log, of=keys["RSA"]), "about another key"),
        (logged(key, log, of=rest), "not signed by the key"),
        (logged(key, log, payload=b"{}"), "about another"),
        (replace(logged(key, log), payload=claim(SIGSTORE, DIGEST, "a.example/b:2")), "about another payload"),
    ):
        assert reason in why(verdict(requirement, signatures=(signature,)))
    good = logged(key, log)
    for old, new in (
        ("integratedTime", "integratedtime"),
        ('"logIndex": 8949589', '"logIndex": 8949580'),
        ('"logIndex": 8949589', '"logIndex": 89495890000000000000'),
        ('"Payload"', '"payload"'),
        ('{"SignedEntryTimestamp"', '{"x": 1, "SignedEntryTimestamp"'),
    ):
        entry = good.annotations[BUNDLE]
        assert old in entry
        changed = replace(good, annotations={**good.annotations, BUNDLE: entry.replace(old, new)})
        assert not verdict(requirement, signatures=(changed,)).is_accepted


# ---- sigstore by certificates


def fulcio(
    root: Authority, log: ec.EllipticCurvePrivateKey, issuer: str = ISSUER, email: str = EMAIL
) -> SigstoreSigned:
    by = Fulcio(Material(data=(root.pem,)), issuer, email)
    return SigstoreSigned(by, Material(data=(public_pem(log),)), USUAL)


def certified(
    key: SigstoreKey,
    log: ec.EllipticCurvePrivateKey,
    certificate: bytes,
    chain: bytes = b"",
    when: timedelta = timedelta(),
) -> SigstoreSignature:
    made = attached(key)
    raw = base64.b64decode(made.annotations[SIGNATURE])
    entry = log_entry(log, certificate, raw, made.payload, NOW + when)
    more = {BUNDLE: entry, CERTIFICATE: certificate.decode()} | ({CHAIN: chain.decode()} if chain else {})
    return replace(made, annotations={**made.annotations, **more})


def test_fulcio(keys: dict[str, SigstoreKey], log: ec.EllipticCurvePrivateKey) -> None:
    key = keys["P-256"]
    root = Authority("root")
    between = Authority("between", root)
    own, below = root.issue(key), between.issue(key)
    chain = between.pem + root.pem
    assert verdict(fulcio(root, log), signatures=(certified(key, log, own),)).is_accepted
    assert verdict(fulcio(root, log), signatures=(certified(key, log, below, chain),)).is_accepted
    expired = root.issue(key, begins=NOW - timedelta(hours=2), ends=NOW - timedelta(hours=1))
    signed_then = certified(key, log, expired, when=timedelta(hours=-1.5))
    assert verdict(fulcio(root, log), signatures=(signed_then,)).is_accepted
    stranger = Authority("root")
    no_authority = Authority("between", root, may_certify=False)
    no_certificate = {name: text for name, text in certified(key, log, own).annotations.items() if name != CERTIFICATE}
    for requirement, signature, reason in (
        (fulcio(root, log), certified(key, log, below), "not one of the policy's authorities"),
        (fulcio(stranger, log), certified(key, log, own), "not one of the policy's authorities"),
        (fulcio(root, log), certified(key, log, expired), "not one of the policy's authorities"),
        (fulcio(root, log), certified(key, log, own, when=timedelta(days=2)), "not one of the policy's authorities"),
        (
            fulcio(root, log),
            certified(key, log, no_authority.issue(key), no_authority.pem + root.pem),
            "not one of the policy's authorities",
        ),
        (
            fulcio(root, log),
            certified(key, log, root.issue(key, usage=ExtendedKeyUsageOID.SERVER_AUTH)),
            "not one of the policy's authorities",
        ),
        (fulcio(root, log, issuer="https://other.example"), certified(key, log, own), "one of a user of 'https://iss"),
        (fulcio(root, log), certified(key, log, root.issue(key, issuer=None)), "names 0 issuers"),
        (fulcio(root, log, email="x@y.example"), certified(key, log, own), "it is one of a@b.example"),
        (fulcio(root, log), certified(keys["RSA"], log, own), "not signed by the key"),
        (fulcio(root, log), certified(key, log, own + own), "in the log entry is not in PEM"),
        (fulcio(root, log), replace(certified(key, log, own), annotations=no_certificate), f"has no {CERTIFICATE}"),
        (fulcio(root, log), attached(key, certificate=own.decode()), f"has no {BUNDLE}"),
    ):
        assert reason in why(verdict(requirement, signatures=(signature,)))


@pytest.mark.parametrize(
    ("email", "host", "accepted"),
    [
        (EMAIL, None, True),
        ("x@y.example", None, False),
        (None, "signer.example", True),
        (None, "SIGNER.example.", True),
        (None, "x.signer.example", False),
        (None, "example", False),
        (None, "192.0.2.1", False),
        (EMAIL, "signer.example", True),
        ("x@y.example", "signer.example", False),
    ],
)
def test_authorities_of_ones_own(
    keys: dict[str, SigstoreKey], email: str | None, host: str | None, accepted: bool
) -> None:
    key = keys["RSA"]
    root = Authority("root")
    between = Authority("between", root)
    certificate = between.issue(key, issuer=None, usage=None).decode()
    for intermediates, chain in ((Material(data=(between.pem,)), ""), (None, (between.pem + root.pem).decode())):
        requirement = SigstoreSigned(Authorities(Material(data=(root.pem,)), intermediates, email, host), None, USUAL)
        for signer, expected in ((key, accepted), (keys["P-256"], False)):
            signature = attached(signer, certificate=certificate, chain=chain)
            assert verdict(requirement, signatures=(signature,)).is_accepted is expected
        assert not verdict(requirement, signatures=(attached(key),)).is_accepted


def test_a_certificate_of_ones_own_must_be_valid_now(keys: dict[str, SigstoreKey]) -> None:
    key, root = keys["RSA"], Authority("root")
    requirement = SigstoreSigned(Authorities(Material(data=(root.pem,)), None, EMAIL, None), None, USUAL)
    day = timedelta(days=1)
    for begins, ends, accepted in ((-day, day, True), (-2 * day, -day, False), (day, 2 * day, False)):
        certificate = root.issue(key, begins=NOW + begins, ends=NOW + ends).decode()
        assert verdict(requirement, signatures=(attached(key, certificate=certificate),)).is_accepted is accepted


def test_an_expired_root_is_none(keys: dict[str, SigstoreKey]) -> None:
    key = keys["RSA"]
    root = Authority("root", begins=NOW - timedelta(days=9), ends=NOW - timedelta(days=1))
    requirement = SigstoreSigned(Authorities(Material(data=(root.pem,)), None, EMAIL, None), None, USUAL)
    certificate = root.issue(key).decode()
    assert not verdict(requirement, signatures=(attached(key, certificate=certificate),)).is_accepted
