"""Targets: policies, signatures and what proves them."""

from __future__ import annotations

import base64
import json
from contextlib import suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import ec

from asyncpull.errors import ConfigurationError, DocumentError, IntegrityError
from asyncpull.spec.digest import Digest
from asyncpull.spec.fields import Fields
from asyncpull.spec.manifest import Descriptor
from asyncpull.spec.reference import parse_reference
from asyncpull.spec.signature import (
    BUNDLE_TYPE,
    SIGNATURES_SIZE_LIMIT,
    SIGSTORE_CERTIFICATE,
    SIGSTORE_CHAIN,
    SIGSTORE_LOG_ENTRY,
    SIGSTORE_SIGNATURE,
    SIGSTORE_TYPE,
    SigstoreSignature,
    SimpleSignature,
)
from asyncpull.spec.strictjson import StrictObject
from asyncpull.trust.claim import Claim, ClaimType
from asyncpull.trust.cosignkey import load_private_key
from asyncpull.trust.identity import MatchRepoDigestOrExact, named, parse_identity
from asyncpull.trust.judge import judge
from asyncpull.trust.openpgp import Keyring
from asyncpull.trust.openpgpmessage import CONTENT_LIMIT, plain_message
from asyncpull.trust.policy import Fulcio, Material, Policy, Rule, SigstoreSigned
from asyncpull.trust.policyfile import TrustOptions
from asyncpull.trust.registriesd import load_registries_directory, signature_url
from asyncpull.trust.scopes import of_reference
from asyncpull.trust.signaturestore import bundle_manifest, parse_attachments, parse_bundle_manifest, parse_listed
from asyncpull.trust.sigstore import verified_payload
from asyncpull.trust.statement import claims_of
from tests.fuzz.spec import DIGEST, MANIFEST, deep
from tests.fuzz.target import Target, halves, text_of
from tests.support import signers
from tests.support.policies import BAD, GOOD

if TYPE_CHECKING:
    from collections.abc import Iterator

FILE = Path("/somewhere/file")
IMAGES = tuple(map(of_reference, map(parse_reference, ("busybox:1", f"a.example:5000/b/c@{DIGEST}"))))


@cache
def _pgp() -> signers.PgpKey:
    return signers.PgpKey()


@cache
def _signed() -> bytes:
    return _pgp().sign(_CLAIM)


@cache
def _ring() -> Keyring:
    return Keyring([("keys", _pgp().public)])


@cache
def _authority() -> signers.Authority:
    return signers.Authority("root")


@cache
def _keys() -> dict[str, signers.SigstoreKey]:
    return signers.sigstore_keys()


def _policy(data: bytes) -> None:
    policy = Policy.from_bytes(FILE, data)
    assert policy.default
    for image in IMAGES:
        rule = policy.rule_for(image)
        assert rule.requirements
        if all(each.type in ("insecureAcceptAnything", "reject") for each in rule.requirements):
            verdict = judge("policy", rule, image, MANIFEST, ())
            assert verdict.is_accepted == all(each.type == "insecureAcceptAnything" for each in rule.requirements)


def _identity(data: bytes) -> None:
    name, raw = halves(data)
    signed = text_of(name)
    identity = parse_identity(StrictObject.parse(raw))
    for image in IMAGES:
        if identity.accepts(image.intended, signed):
            assert named(signed) is not None
    identity.accepts(None, signed)


def _claim(data: bytes) -> None:
    kind = ClaimType.SIGSTORE if data[:1] == b"s" else ClaimType.SIMPLE
    claim = Claim.from_bytes(data[1:], kind)
    assert Claim.from_bytes(claim.to_bytes(kind), kind) == claim


def _strict(data: bytes) -> None:
    document = StrictObject.parse(data)
    document.exactly(*document.values)
    for key in document.values:
        with suppress(DocumentError):
            document.inner(key).array("a")


def _frame(data: bytes) -> None:
    plain = plain_message(data)
    assert len(plain) <= max(CONTENT_LIMIT, len(data))
    assert plain_message(plain) == plain


def _keyring(data: bytes) -> None:
    keyring = Keyring([("keys", data)])
    with suppress(DocumentError, IntegrityError):
        keyring.opened(_signed())


def _opened(data: bytes) -> None:
    content, fingerprint = _ring().opened(data)
    assert content == _CLAIM, "a signature of something else"
    assert fingerprint.lower() == _pgp().fingerprint.lower()


def _registriesd(data: bytes) -> None:
    with TemporaryDirectory(prefix="fuzz-") as place:
        Path(place, "a.yaml").write_bytes(data)
        directory = load_registries_directory(TrustOptions(registries_dir=Path(place)), {}, 0)
    for image in IMAGES:
        directory.staging(image)
        directory.uses_attachments(image)
        assert image.intended is not None
        signature_url(directory.lookaside(image), image.intended, Digest.parse(DIGEST), 1)


def _attachments(data: bytes) -> None:
    with suppress(DocumentError):
        parse_listed(data)
    found = parse_attachments(data, None)
    assert sum(each.size for each in found) <= SIGNATURES_SIZE_LIMIT


def _sigstore(data: bytes) -> None:
    """The annotations as JSON, then the payload; by keys, by keys in a log, by certificates."""
    head, payload = halves(data, b"\0")
    found = Fields.from_bytes(head, "annotations").values
    annotations = {key: value for key, value in found.items() if isinstance(value, str)}
    signature = SigstoreSignature(SIGSTORE_TYPE, payload, annotations)
    accepted = []
    for requirement in _requirements():
        with suppress(DocumentError, IntegrityError):
            accepted.append(verified_payload(signature, requirement))
    if not accepted:
        raise DocumentError("refused by all")
    assert set(accepted) == {_SIGSTORE_CLAIM}, "a signature of something else"
    for image in IMAGES:
        judge("policy", Rule("default", (_requirements()[0],)), image, MANIFEST, (signature, SimpleSignature(payload)))


@cache
def _requirements() -> tuple[SigstoreSigned, ...]:
    keys = Material(data=tuple(signers.public_pem(_keys()[kind]) for kind in ("Ed25519", "P-384")))
    log = Material(data=(signers.public_pem(_keys()["P-256"]),))
    fulcio = Fulcio(Material(data=(_authority().pem,)), "https://issuer.example", "a@b.example")
    identity = MatchRepoDigestOrExact()
    return (
        SigstoreSigned(keys, None, identity),
        SigstoreSigned(keys, log, identity),
        SigstoreSigned(fulcio, log, identity),
    )


def _bundle(data: bytes) -> None:
    signature = SigstoreSignature(BUNDLE_TYPE, data)
    accepted = []
    for requirement in _requirements():
        with suppress(DocumentError, IntegrityError):
            accepted.append(verified_payload(signature, requirement))
    if not accepted:
        raise DocumentError("refused by all")
    assert set(accepted) == {_STATEMENT}, "a signature of something else"


def _statement(data: bytes) -> None:
    assert all(str(claim.digest) for claim in claims_of(data))


def _bundle_manifest(data: bytes) -> None:
    bundle = parse_bundle_manifest(data)
    if bundle is not None:
        again = parse_bundle_manifest(bundle_manifest(bundle, bundle, bundle))
        assert again is not None
        assert (again.digest, again.size, again.media_type) == (bundle.digest, bundle.size, bundle.media_type)


def _cosign_key(data: bytes) -> None:
    with suppress(ValueError, RecursionError, TypeError, AttributeError, KeyError):
        cost = json.loads(data)["kdf"]["params"]
        if cost["N"] * cost["r"] * cost["p"] > 1 << 12:  # as slow as it is meant to be
            raise ConfigurationError("slow")
    begin, end = (f"-----{word} ENCRYPTED COSIGN PRIVATE KEY-----".encode() for word in ("BEGIN", "END"))
    load_private_key("key", begin + b"\n" + base64.b64encode(data) + b"\n" + end, b"secret")


def _claim_seeds() -> Iterator[bytes]:
    yield b"-" + _CLAIM
    yield b"s" + _SIGSTORE_CLAIM
    yield b"s" + _SIGSTORE_CLAIM.replace(b"{}", b"null")
    yield b"-" + signers.claim(signers.SIMPLE, DIGEST, "b:1", timestamp=1e9)


def _sigstore_seeds() -> Iterator[bytes]:
    key = _keys()["Ed25519"]
    made = signers.raw_sign(key, _SIGSTORE_CLAIM)
    log = _keys()["P-256"]
    assert isinstance(log, ec.EllipticCurvePrivateKey)
    entry = signers.log_entry(log, signers.public_pem(key), made, _SIGSTORE_CLAIM, signers.NOW)
    certificate = _authority().issue(key)
    of_certificate = signers.log_entry(log, certificate, made, _SIGSTORE_CLAIM, signers.NOW)
    simple = {SIGSTORE_SIGNATURE: signers.encode(made)}
    for made_of in (
        simple,
        simple | {SIGSTORE_LOG_ENTRY: entry},
        simple
        | {
            SIGSTORE_LOG_ENTRY: of_certificate,
            SIGSTORE_CERTIFICATE: certificate.decode(),
            SIGSTORE_CHAIN: _authority().pem.decode(),
        },
    ):
        yield json.dumps(made_of).encode() + b"\0" + _SIGSTORE_CLAIM


def _bundle_seeds() -> Iterator[bytes]:
    key, log = _keys()["Ed25519"], _keys()["P-256"]
    assert isinstance(log, ec.EllipticCurvePrivateKey)
    yield signers.bundle(key, _STATEMENT)
    bare = signers.bundle(key, _STATEMENT)
    entry = signers.bundle_entry(log, signers.public_pem(key), bare, _STATEMENT, signers.NOW)
    yield signers.bundle(key, _STATEMENT, entries=[entry])
    certificate = _authority().issue(key)
    bare = signers.bundle(key, _STATEMENT, certificate=certificate)
    entry = signers.bundle_entry(log, certificate, bare, _STATEMENT, signers.NOW)
    yield signers.bundle(key, _STATEMENT, certificate=certificate, entries=[entry])


def _attachment_seeds() -> Iterator[bytes]:
    layer = {"mediaType": SIGSTORE_TYPE, "digest": DIGEST, "size": 7, "annotations": {SIGSTORE_SIGNATURE: "AA=="}}
    yield json.dumps({"schemaVersion": 2, "layers": [layer, layer]}).encode()
    listed = {"schemaVersion": 2, "type": "atomic", "content": "AAAA"}
    yield json.dumps({"signatures": [listed], "layers": []}).encode()


def _key_seeds() -> Iterator[bytes]:
    parameters = {"N": 1024, "r": 1, "p": 1}
    box = {
        "kdf": {"name": "scrypt", "params": parameters, "salt": "AAAA"},
        "cipher": {"name": "nacl/secretbox", "nonce": base64.b64encode(bytes(24)).decode()},
        "ciphertext": base64.b64encode(bytes(40)).decode(),
    }
    yield json.dumps(box).encode()


_CLAIM = signers.claim(signers.SIMPLE, DIGEST, "a.example/b:1", creator="me", timestamp=1458239713)
_SIGSTORE_CLAIM = signers.claim(signers.SIGSTORE, DIGEST, "a.example/b:1")
_STATEMENT = signers.statement(DIGEST, "a.example/b:1")
_CONFIGURATION, _DOCUMENT = (ConfigurationError,), (DocumentError,)
_WORDS = (
    b'"critical":',
    b'"optional":',
    b'"timestamp":',
    b"null",
    b"NaN",
    b"1e400",
    b"[[[",
    b'{"a":',
    b"\\ud800",
    b"9" * 20,
)
_REGISTRIES = b"""default-docker:
  lookaside: file:///a
  use-sigstore-attachments: true
docker:
  a.example:5000:
    lookaside: https://b.example/c?d#e
    lookaside-staging: file:///d
"""

TARGETS = (
    Target(
        "policy",
        _policy,
        _CONFIGURATION,
        lambda: map(str.encode, GOOD + BAD),
        (b'"default":', b'"transports":', b'"type":"signedBy"', b'"keyData":', b'"fulcio":', b'"pki":', *_WORDS),
    ),
    Target(
        "signed-identity",
        _identity,
        _DOCUMENT,
        lambda: (
            b'busybox:1\n{"type":"matchExact"}',
            b'a.example/b:1\n{"type":"remapIdentity","prefix":"a.example:5000","signedPrefix":"c"}',
            b'a\n{"type":"exactReference","dockerReference":"busybox:1"}',
            b'a\n{"type":"exactRepository","dockerRepository":"busybox"}',
        ),
        (b'"matchRepository"', b'"matchRepoDigestOrExact"', DIGEST.encode()),
    ),
    Target("claim", _claim, _DOCUMENT, _claim_seeds, _WORDS),
    Target(
        "strict-json",
        _strict,
        _DOCUMENT,
        lambda: (b'{"a": {"a": [1]}, "b": null}', _CLAIM, deep(4000), b'{"a":' + b"9" * 4500 + b"}"),
        _WORDS,
    ),
    Target(
        "openpgp-frame",
        _frame,
        _DOCUMENT,
        lambda: (b"\xc4\x01o\xcb\x04data\xc2\x01s", b"\x88\x01s\xac\x04data", b"\xa3\x01" + b"x", _signed()),
        (b"\xc8\xff", b"\xa3\x02x\x9c", b"\xe9", b"\xca\x03PGP"),
        memory=(16 << 20, 400),
    ),
    Target("openpgp-keyring", _keyring, _CONFIGURATION, lambda: (_pgp().public, _pgp().revoked)),
    Target("openpgp-message", _opened, (DocumentError, IntegrityError), lambda: (_signed(),)),
    Target(
        "registries-d",
        _registriesd,
        _CONFIGURATION,
        lambda: (_REGISTRIES, b"docker:\n", b"default-docker: {sigstore: 'http://[::1]'}"),
        (b"default-docker:", b"docker:", b"lookaside:", b"sigstore-staging:", b"http://[", b"!!", b"? "),
        memory=(8 << 20, 400),
    ),
    Target("attachments", _attachments, _DOCUMENT, _attachment_seeds, _WORDS),
    Target("sigstore", _sigstore, _DOCUMENT, _sigstore_seeds, _WORDS, length=8192),
    Target("bundle", _bundle, _DOCUMENT, _bundle_seeds, (b'"tlogEntries":', b'"certificate":', *_WORDS), length=8192),
    Target("statement", _statement, _DOCUMENT, lambda: (_STATEMENT, signers.statement(DIGEST)), _WORDS),
    Target(
        "bundle-manifest",
        _bundle_manifest,
        _DOCUMENT,
        lambda: (bundle_manifest(*[Descriptor(BUNDLE_TYPE, Digest.parse(DIGEST), 7)] * 3), MANIFEST),
        _WORDS,
    ),
    Target("cosign-key", _cosign_key, _CONFIGURATION, _key_seeds, _WORDS),
)
