"""Bundles of sigstore: judged, found by what they are about, and taken along.

The golden files were made by cosign 3.1.1, with ``--tlog-upload=false``: ``cosign sign``, ``cosign sign -a
docker-reference=a.example/b:1`` and ``cosign attest``, of one image and by one key; ``public-log`` is one of the
conformance suite of sigstore, which rekor.sigstore.dev has seen in December 2024.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from cryptography.x509 import load_pem_x509_certificate
from hypothesis import given
from hypothesis import strategies as st

from asyncpull.access import Access
from asyncpull.copy import Copier
from asyncpull.copying.plan import CopyOptions, Instances, ManifestFormat, Selection
from asyncpull.errors import DocumentError, IntegrityError, UsageError
from asyncpull.spec.reference import parse_reference
from asyncpull.spec.signature import SigstoreSignature, signature_from_file, signature_to_file
from asyncpull.trust.bundle import Bundle
from asyncpull.trust.identity import ExactRepository, MatchRepoDigestOrExact, MatchRepository, SignedIdentity
from asyncpull.trust.judge import judge
from asyncpull.trust.policy import Authorities, Fulcio, Material, Rule, SigstoreSigned
from asyncpull.trust.scopes import of_reference
from asyncpull.trust.signing import Signing
from asyncpull.trust.statement import claims_of
from tests.support import images
from tests.support.policies import ACCEPT
from tests.support.pulls import AMD64
from tests.support.signers import (
    BUNDLE_TYPE,
    NOW,
    Authority,
    bundle,
    bundle_entry,
    public_pem,
    sigstore_keys,
    statement,
)
from tests.trust.test_copies import ACCESS, IMAGE, INDEX, Desk, desk

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncpull.trust.policy import Requirement
    from tests.support.signers import SigstoreKey

__all__ = ["desk"]  # a fixture

GOLDEN = Path(__file__).parent / "golden"
MANIFEST = (GOLDEN / "cosign-manifest.json").read_bytes()
DIGEST = images.sha256(MANIFEST)
NAME = "a.example/b:1"
KEY = sigstore_keys()["P-256"]
LOG = ec.generate_private_key(ec.SECP256R1())
USUAL = MatchRepoDigestOrExact()


def reasons(requirement: Requirement, raw: bytes, *, name: str = NAME, manifest: bytes = MANIFEST) -> str | None:
    """Why a bundle does not meet ``requirement``; None where it does."""
    image = of_reference(parse_reference(name))
    rule = Rule("default", (requirement,))
    verdict = judge("/policy.json", rule, image, manifest, (SigstoreSignature(BUNDLE_TYPE, raw),))
    return None if verdict.is_accepted else "; ".join(verdict.findings[0].reasons)


def by_key(*keys: bytes, rekor: bytes | None = None, identity: SignedIdentity = USUAL) -> SigstoreSigned:
    return SigstoreSigned(Material(data=keys), None if rekor is None else Material(data=(rekor,)), identity)


# ---- cosign's


def test_signed_by_cosign() -> None:
    raw, key = (GOLDEN / "cosign-named.sigstore.json").read_bytes(), (GOLDEN / "cosign.pub").read_bytes()
    assert reasons(by_key(key), raw) is None
    assert reasons(by_key(public_pem(KEY), key), raw) is None
    assert reasons(by_key(key), raw, name=f"a.example/b@{DIGEST}") is None
    assert reasons(by_key(key, identity=MatchRepository()), raw, name="a.example/b:2") is None
    assert "for the name 'a.example/b:1'" in (reasons(by_key(key), raw, name="a.example/b:2") or "")
    assert "for the name 'a.example/b:1'" in (reasons(by_key(key), raw, name=f"a.example/c@{DIGEST}") or "")
    assert f"for another manifest, {DIGEST}" in (reasons(by_key(key), raw, manifest=MANIFEST + b" ") or "")
    assert "not signed by the key" in (reasons(by_key(public_pem(KEY)), raw) or "")
    rekor = by_key(key, rekor=public_pem(LOG))
    assert "no entry of a log" in (reasons(rekor, raw) or "")


@pytest.mark.parametrize("identity", [USUAL, MatchRepository(), ExactRepository("a.example/b")])
@pytest.mark.parametrize(
    ("name", "reason"),
    [("nameless", "for the name '', which is not accepted"), ("attestation", "no statement that signs an image")],
)
def test_what_says_no_name_is_good_for_none(identity: SignedIdentity, name: str, reason: str) -> None:
    raw, key = (GOLDEN / f"cosign-{name}.sigstore.json").read_bytes(), (GOLDEN / "cosign.pub").read_bytes()
    for reference in (NAME, f"a.example/b@{DIGEST}"):
        assert reason in (reasons(by_key(key, identity=identity), raw, name=reference) or "")


def test_every_byte_of_a_bundle_counts() -> None:
    raw, key = (GOLDEN / "cosign-named.sigstore.json").read_bytes(), (GOLDEN / "cosign.pub").read_bytes()
    hint = range(raw.index(b'"publicKey"'), raw.index(b'"dsseEnvelope"'))  # who may have signed, which decides nothing
    for position in range(0, len(raw), 3):
        changed = bytearray(raw)
        changed[position] ^= 0x04
        if reasons(by_key(key), bytes(changed)) is None:
            assert position in hint
    for end in range(0, len(raw), 7):
        assert reasons(by_key(key), raw[:end])


# ---- of all kinds


@pytest.mark.parametrize("kind", ["P-256", "P-384", "RSA", "Ed25519"])
def test_keys_of_all_kinds(kind: str) -> None:
    key = sigstore_keys()[kind]
    assert reasons(by_key(public_pem(key)), bundle(key, statement(DIGEST, NAME))) is None
    assert reasons(by_key(public_pem(sigstore_keys()[kind])), bundle(key, statement(DIGEST, NAME)))


def logged(when: timedelta = timedelta(), log: ec.EllipticCurvePrivateKey = LOG, key: SigstoreKey = KEY) -> bytes:
    content = statement(DIGEST, NAME)
    raw = bundle(KEY, content)
    entry = bundle_entry(log, public_pem(key), raw, content, NOW + when)
    document = json.loads(raw)
    document["verificationMaterial"]["tlogEntries"] = [{"logIndex": "1"}, entry]
    return json.dumps(document).encode()


def test_a_log_must_have_seen_it() -> None:
    requirement = by_key(public_pem(KEY), rekor=public_pem(LOG))
    good = logged()
    assert reasons(requirement, good) is None
    stranger = ec.generate_private_key(ec.SECP256R1())
    assert "not signed by a log of the policy" in (reasons(requirement, logged(log=stranger)) or "")
    assert "about another key" in (reasons(requirement, logged(key=sigstore_keys()["P-256"])) or "")
    for old, new in (
        (b'"25579"', b'"25578"'),
        (b'"25579"', b'"x"'),
        (b'"inclusionPromise"', b'"inclusionProof"'),
        (b'"integratedTime": "', b'"integratedTime": "1'),
    ):
        assert old in good
        assert reasons(requirement, good.replace(old, new))
    other = json.loads(good)
    other["dsseEnvelope"]["signatures"] = json.loads(bundle(KEY, statement(DIGEST, NAME)))["dsseEnvelope"]["signatures"]
    assert "about another signature" in (reasons(requirement, json.dumps(other).encode()) or "")


def test_what_the_public_log_has_seen() -> None:
    raw, key = ((GOLDEN / name).read_bytes() for name in ("public-log.sigstore.json", "rekor.sigstore.dev.pub"))
    log = load_pem_public_key(key)
    assert isinstance(log, ec.EllipticCurvePublicKey)
    found = Bundle.from_bytes(raw)
    (entry,) = found.entries
    assert found.certificate is not None
    certificate = found.certificate.encode()
    assert entry.seen([log], certificate, found.signature, found.statement) == 1734374576
    signer = load_pem_x509_certificate(certificate).public_key()
    assert isinstance(signer, ec.EllipticCurvePublicKey)
    signer.verify(found.signature, found.signed, ec.ECDSA(SHA256()))
    attempts: list[Callable[[], int]] = [
        lambda: entry.seen([LOG.public_key()], certificate, found.signature, found.statement),
        lambda: entry.seen([log], public_pem(KEY), found.signature, found.statement),
        lambda: entry.seen([log], certificate, found.signature + b"x", found.statement),
        lambda: entry.seen([log], certificate, found.signature, found.statement + b" "),
        lambda: replace(entry, seconds=entry.seconds + 1).seen([log], certificate, found.signature, found.statement),
    ]
    for attempt in attempts:
        with pytest.raises(IntegrityError):
            attempt()


def test_certificates() -> None:
    root, content = Authority("root"), statement(DIGEST, NAME)
    roots = Material(data=(root.pem,))
    fulcio = SigstoreSigned(
        Fulcio(roots, "https://issuer.example", "a@b.example"), Material(data=(public_pem(LOG),)), USUAL
    )
    pki = SigstoreSigned(Authorities(roots, None, "a@b.example", None), None, USUAL)
    for begins, ends, is_current in ((-2, 2, True), (-2, -1, False)):
        certificate = root.issue(KEY, begins=NOW + timedelta(hours=begins), ends=NOW + timedelta(hours=ends))
        for when, was_valid in ((timedelta(hours=-1.5), True), (timedelta(hours=3), False)):
            raw = bundle(KEY, content, certificate=certificate)
            entry = bundle_entry(LOG, certificate, raw, content, NOW + when)
            document = json.loads(raw)
            document["verificationMaterial"]["tlogEntries"] = [entry]
            raw = json.dumps(document).encode()
            assert (reasons(fulcio, raw) is None) is was_valid
            assert (reasons(pki, raw) is None) is is_current
    assert "the bundle has no certificate" in (reasons(pki, bundle(KEY, content)) or "")
    assert "no entry of a log" in (reasons(fulcio, bundle(KEY, content, certificate=certificate)) or "")
    stranger = Authority("root").issue(KEY)
    assert "authorities" in (reasons(pki, bundle(KEY, content, certificate=stranger)) or "")
    of_another = root.issue(sigstore_keys()["P-256"])
    assert "not signed by the key" in (reasons(pki, bundle(KEY, content, certificate=of_another)) or "")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"_type": "https://in-toto.io/Statement/v2"}, "_type is"),
        ({"predicateType": "https://slsa.dev/provenance/v1"}, "predicateType is"),
        ({"subject": []}, "it has no subject"),
        ({"subject": [{"digest": {}, "name": NAME}]}, "has 0 digests, not one"),
        ({"subject": [{"digest": {"md5": "00"}, "name": NAME}]}, "subject[0].digest"),
        ({"subject": [{"digest": {"sha256": "0" * 64}, "name": NAME}]}, "for another manifest"),
        ({"subject": [{"digest": {"sha256": DIGEST[7:]}, "name": "a.example/c:1"}]}, "for the name 'a.example/c:1'"),
        ({"subject": [{"digest": {"sha256": DIGEST[7:]}, "name": 1}]}, "subject[0].name is a number"),
    ],
)
def test_statements(change: dict[str, object], reason: str) -> None:
    raw = bundle(KEY, statement(DIGEST, NAME, **change))
    assert reason in (reasons(by_key(public_pem(KEY)), raw) or "")


def test_one_of_several_subjects_is_enough() -> None:
    subjects = [
        {"digest": {"sha256": "0" * 64}, "name": NAME},
        {"digest": {"sha256": DIGEST[7:]}, "name": "a.example/c:1"},
        {"digest": {"sha256": DIGEST[7:]}, "name": NAME},
    ]
    for number, accepted in ((3, True), (2, False)):
        raw = bundle(KEY, statement(DIGEST, subject=subjects[:number]))
        assert (reasons(by_key(public_pem(KEY)), raw) is None) is accepted


def changed(change: Callable[[dict[str, object]], object]) -> bytes:
    document = json.loads(bundle(KEY, statement(DIGEST, NAME)))
    change(document)
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    "change",
    [
        lambda document: document.update(mediaType="application/vnd.dev.sigstore.bundle+json;version=0.1"),
        lambda document: document.pop("dsseEnvelope"),
        lambda document: document.pop("verificationMaterial"),
        lambda document: document["dsseEnvelope"].update(payloadType="text/plain"),
        lambda document: document["dsseEnvelope"].update(signatures=[]),
        lambda document: document["dsseEnvelope"].update(signatures=document["dsseEnvelope"]["signatures"] * 2),
        lambda document: document["dsseEnvelope"].update(payload="!"),
        lambda document: document["verificationMaterial"].update(tlogEntries=[{}] * 17),
        lambda document: document["verificationMaterial"].update(tlogEntries={}),
        lambda document: document["verificationMaterial"].update(certificate={"rawBytes": 1}),
    ],
)
def test_what_is_no_bundle(change: Callable[[dict[str, object]], object]) -> None:
    with pytest.raises(DocumentError):
        Bundle.from_bytes(changed(change))
    assert reasons(by_key(public_pem(KEY)), changed(change))


_KEYS = st.sampled_from(
    [
        "mediaType",
        "verificationMaterial",
        "dsseEnvelope",
        "payload",
        "payloadType",
        "signatures",
        "sig",
        "certificate",
        "rawBytes",
        "tlogEntries",
        "inclusionPromise",
        "subject",
        "digest",
        "sha256",
        "name",
        "annotations",
        "_type",
        "predicateType",
    ]
)
_JSON = st.recursive(
    st.none() | st.text() | st.integers() | st.booleans() | st.just(BUNDLE_TYPE) | st.just("AAAA"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=4),
)


@given(_JSON)
def test_whatever_it_is_it_is_read_or_refused(value: object) -> None:
    good_bundle, good_statement = json.loads(bundle(KEY, statement(DIGEST, NAME))), json.loads(statement(DIGEST, NAME))
    more = value if isinstance(value, dict) else {"dsseEnvelope": value, "subject": value}
    for document in (value, good_bundle | more):
        with suppress(DocumentError):
            Bundle.from_bytes(json.dumps(document).encode())
    for document in (value, good_statement | more):
        with suppress(DocumentError):
            assert claims_of(json.dumps(document).encode())


# ---- where they are


def refer(desk: Desk, image: images.Image | images.Index, name: str, *, says: str = BUNDLE_TYPE) -> bytes:
    """Sign an image of the desk's repository a/b and list the bundle where a registry lists nothing itself."""
    raw = bundle(KEY, statement(image.manifest.digest, name))
    blob, empty = images.Blob(BUNDLE_TYPE, raw), images.Blob("application/vnd.oci.empty.v1+json", b"{}")
    for each in (blob, empty):
        desk.registry.add_blob(each.data)
    document = {
        "schemaVersion": 2,
        "mediaType": images.OCI_MANIFEST,
        "artifactType": BUNDLE_TYPE,
        "config": empty.descriptor(),
        "layers": [blob.descriptor()],
        "subject": image.manifest.descriptor(),
    }
    manifest = images.Blob(images.OCI_MANIFEST, json.dumps(document).encode())
    desk.registry.add_manifest("a/b", manifest.digest, manifest.data, manifest.media_type)
    listed = {"schemaVersion": 2, "mediaType": images.OCI_INDEX, "manifests": [manifest.descriptor(artifactType=says)]}
    tag = image.manifest.digest.replace(":", "-")
    desk.registry.add_manifest("a/b", tag, json.dumps(listed).encode(), images.OCI_INDEX)
    return raw


def bundles(desk: Desk, repository: str, digest: str) -> list[bytes]:
    """What is listed as bundles about a manifest."""
    found = desk.registry.manifest(repository, digest.replace(":", "-"))
    listed = [] if found is None else json.loads(found[0])["manifests"]
    manifests = [json.loads((desk.registry.manifest(repository, each["digest"]) or (b"{}",))[0]) for each in listed]
    return [desk.registry.blob(each["layers"][0]["digest"]) or b"" for each in manifests]


@pytest.mark.parametrize("says", [BUNDLE_TYPE, "application/vnd.oci.empty.v1+json"])
async def test_found_and_taken_along(desk: Desk, tmp_path: Path, says: str) -> None:
    desk.registry.add_image("a/b", "1", IMAGE)
    place = desk.place("a/b:1")
    raw = refer(desk, IMAGE, place.removeprefix("docker://"), says=says)
    (tmp_path / "key.pem").write_bytes(public_pem(KEY))
    exact = {"signedIdentity": {"type": "exactReference", "dockerReference": place.removeprefix("docker://")}}
    for _ in range(2):  # and nothing is there twice
        await desk.copy(place, desk.place("c/d:1"), desk.sigstore_signed)
    assert bundles(desk, "c/d", IMAGE.manifest.digest) == [raw]
    await desk.copy(desk.place("c/d:1"), f"dir:{tmp_path}/dir", desk.sigstore_signed | exact)
    stored = (tmp_path / "dir/signature-1").read_bytes()
    assert signature_from_file(stored, "x") == SigstoreSignature(BUNDLE_TYPE, raw)
    assert signature_to_file(SigstoreSignature(BUNDLE_TYPE, raw)) == stored
    await desk.copy(f"dir:{tmp_path}/dir", desk.place("e/f:1"), desk.sigstore_signed | exact)
    assert bundles(desk, "e/f", IMAGE.manifest.digest) == [raw]
    with pytest.raises(UsageError, match="is signed, and would be changed"):
        await desk.copy(place, desk.place("g/h:1"), ACCEPT, format=ManifestFormat.V2S2)
    desk.configure(lookaside=f"file://{tmp_path}/lookaside")  # nobody asks for attachments then
    await desk.copy(place, desk.place("g/h:1"), ACCEPT)
    assert bundles(desk, "g/h", IMAGE.manifest.digest) == []


async def test_with_all_of_an_index_each_is_copied_once(desk: Desk) -> None:
    desk.registry.add_image("a/b", "1", INDEX)
    place = desk.place("a/b:1")
    digests = [INDEX.manifest.digest, INDEX.images[0].manifest.digest]
    signed = [refer(desk, each, place.removeprefix("docker://")) for each in (INDEX, INDEX.images[0])]
    whole = CopyOptions(selection=Selection(Instances.ALL))
    for signing, repository, expected in ((None, "c/d", signed), (Signing(removes=True), "e/f", [])):
        async with Copier(platform=AMD64, trust=desk.options, source=Access(ACCESS)) as copier:
            (desk.directory / "policy.json").write_text(json.dumps({"default": [ACCEPT]}))
            await copier.copy(place, desk.place(f"{repository}:1"), whole, signing)
        assert [each for digest in digests for each in bundles(desk, repository, digest)] == expected
